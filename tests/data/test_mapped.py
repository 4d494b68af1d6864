"""Caches larger than memory and of more files than a process may open."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from medaug.core.config import DataConfig
from medaug.core.errors import CacheError
from medaug.data.cache.arrays import Stack, mapped
from medaug.data.cache.fill import write_case
from medaug.data.cache.prepare import SliceCache
from medaug.data.cache.store import INDEX, fingerprint, read_case, read_index
from medaug.data.feed.feed import Feed, codec_for
from medaug.runtime.files import write_json

SCANS = 120


@pytest.fixture
def few_descriptors() -> Iterator[int]:
    """Fewer files may be opened than a cache of ``SCANS`` scans has arrays."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = len(os.listdir("/proc/self/fd")) + SCANS
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    yield limit
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def many_scans(tmp_path: Path, phantom_cache: Path) -> SliceCache:
    """Slices of the phantom dealt out over many scans of three slices each."""
    source = SliceCache.open(phantom_cache)
    case = source.cases[source.split["train"][0]]
    assert case.label is not None
    index = read_index(phantom_cache)
    assert index is not None
    names = [f"scan_{number:04d}" for number in range(SCANS)]
    shown = np.flatnonzero(case.label_pixels["pancreas"] >= DataConfig().min_label_pixels)
    for number, name in enumerate(names):
        z = np.roll(shown, number)[:3]
        arrays = {"image": case.image[z] + np.int16(number), "label": case.label[z]}
        write_case(tmp_path / "cases" / name, arrays, case.affine, source.labels)
    split = {"train": names[:-1], "heldout": names[-1:]}
    cases = [read_case(tmp_path, name, "ct") for name in names]
    digests = {case.id: case.digest for case in cases if case is not None}
    index |= {"expected": names, "split": split, "failed": {}}
    write_json(tmp_path / INDEX, index | {"fingerprint": fingerprint(index, digests, split)})
    return SliceCache.open(tmp_path)


def test_a_cache_has_more_scans_than_descriptors(
    many_scans: SliceCache, few_descriptors: int
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    data = DataConfig(size=32, augment=None)
    cpu = torch.device("cpu")
    feed = Feed(many_scans, data, codec_for(many_scans, data), seed=0, device=cpu)
    assert len(feed) == 3 * (SCANS - 1)
    feed.batch(0, len(feed))
    assert len(os.listdir("/proc/self/fd")) == before
    train = [many_scans.cases[name] for name in many_scans.split["train"]]
    assert 2 * len(train) > few_descriptors - before  # two arrays each: mapped, and not held open
    np.testing.assert_array_equal(feed.images, np.concatenate([case.image for case in train]))
    maps = np.concatenate([case.label for case in train if case.label is not None])
    np.testing.assert_array_equal(feed.label_maps, maps)
    index = torch.tensor([5, 0, 5, 300])
    assert torch.equal(feed.stored(index), feed.images[index])
    assert torch.equal(feed.marks(index), torch.from_numpy(maps)[index])  # type: ignore[arg-type]


def test_slices_are_copied_only_when_asked_for(tmp_path: Path) -> None:
    np.save(tmp_path / "large.npy", np.zeros((4000, 64, 64), np.int16))  # 33 MB
    held = _own_memory()
    stack = Stack([mapped(tmp_path / "large.npy"), None], [np.arange(4000)] * 2, (64, 64), np.int16)
    assert stack[torch.tensor([3, 7999])].shape == (2, 64, 64)
    assert _own_memory() - held < 4e6
    whole = stack.whole()
    assert (whole.shape, whole.nbytes) == ((8000, 64, 64), stack.nbytes)


def test_rows_of_a_stack_are_those_of_its_arrays() -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 99, (n, 4, 4)).astype(np.uint8) for n in (5, 1, 7)]
    keep = [np.array([4, 1]), np.array([], np.intp), np.arange(3), np.array([6])]
    stack = Stack([arrays[0], arrays[1], None, arrays[2]], keep, (4, 4), np.uint8)
    zeros = np.zeros((3, 4, 4), np.uint8)
    whole = torch.from_numpy(np.concatenate([arrays[0][[4, 1]], zeros, arrays[2][[6]]]))
    assert torch.equal(stack.whole(), whole)
    index = torch.tensor([5, 0, 3, 0])
    assert torch.equal(stack[index], whole[index])
    chosen = torch.tensor([True, False, True, False, False, True])
    assert torch.equal(stack[chosen], whole[chosen])


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00v\x00", b"no array"])
def test_a_damaged_array_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "image.npy").write_bytes(content)
    with pytest.raises(CacheError, match=r"image\.npy: cannot be read"):
        mapped(tmp_path / "image.npy")
    np.save(tmp_path / "image.npy", np.zeros((3, 8, 8), np.int16))
    whole = (tmp_path / "image.npy").read_bytes()
    (tmp_path / "image.npy").write_bytes(whole[:-9])
    with pytest.raises(CacheError, match="does not hold the array that it names"):
        mapped(tmp_path / "image.npy")


def test_a_mapped_array_cannot_be_written_to(tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", np.arange(6, dtype=np.int16).reshape(2, 3))
    array = mapped(tmp_path / "image.npy")
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]


def _own_memory() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))
