"""What changes in a source under the same name is noticed, named and cut anew."""

import os
import shutil
import struct
import time
import zipfile
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medaug.core.errors import DataError
from medaug.data import open_source
from medaug.data.cache import changes, fill, slicing
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
from medaug.data.cache.store import read_index
from medaug.data.sources.idx import Idx
from medaug.data.sources.pancreas import PancreasCT
from tests.conftest import miniature, write_label
from tests.support.trees import tree

SETTINGS = CacheSettings(size=32, fov_mm=300.0, holdout=0.34)
LABELS = "TCIA_pancreas_labels-02-05-2017"
SECOND = "PANCREAS_0002"


@pytest.fixture
def source(collection) -> PancreasCT:
    return PancreasCT(collection(1, 2, 3))


@pytest.fixture
def cache(source, tmp_path: Path) -> Path:
    prepare(source, tmp_path / "cache", SETTINGS, workers=0)
    return tmp_path / "cache"


def write_idx(path: Path, array: np.ndarray) -> None:
    sides = (0x0800 + array.ndim, *array.shape)
    path.write_bytes(struct.pack(f">{len(sides)}I", *sides) + array.astype(np.uint8).tobytes())


def again(source, cache, workers=0):
    return prepare(source, cache, SETTINGS, workers)


def differing(cache: Path, before: dict[str, str]) -> set[str]:
    now = tree(cache, ".lock")
    assert now.keys() == before.keys()
    return {name for name in now if now[name] != before[name]}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_replaced_label_is_cut_anew(source, cache, tmp_path, workers):
    before, old = tree(cache, ".lock"), SliceCache.open(cache)
    whole = old.cases[SECOND].label_pixels["pancreas"].sum()
    mask = miniature(2)[1]
    mask[:, : int(np.argwhere(mask).mean(axis=0)[1])] = 0
    write_label(source.root / LABELS / "label0002.nii.gz", mask)
    report = again(source, cache, workers)
    assert report.changed == {SECOND: "its label changed"}
    assert (report.done, report.skipped) == ([SECOND], ["PANCREAS_0001", "PANCREAS_0003"])
    opened = SliceCache.open(cache)
    assert opened.fingerprint != old.fingerprint
    assert opened.split == old.split
    assert 0 < opened.cases[SECOND].label_pixels["pancreas"].sum() < whole
    files = {f"cases/{SECOND}/{name}" for name in ("case.json", "label.npy", "source.json")}
    assert differing(cache, before) == {"cache.json", *files}
    again(source, tmp_path / "fresh")
    assert tree(cache, ".lock") == tree(tmp_path / "fresh", ".lock")
    assert again(source, cache).changed == {}


def test_a_label_replaced_in_an_archive_is_noticed(source, cache, tmp_path):
    packed, labels = source.root / f"{LABELS}.zip", source.root / LABELS

    def pack() -> None:
        with zipfile.ZipFile(packed, "w") as archive:
            for file in sorted(labels.iterdir()):
                archive.write(file, file.name)

    pack()
    labels.rename(tmp_path / LABELS)
    labels = tmp_path / LABELS
    assert again(source, cache).changed == {}
    mask = miniature(2)[1]
    mask[:, : int(np.argwhere(mask).mean(axis=0)[1])] = 0
    write_label(labels / "label0002.nii.gz", mask)
    pack()
    assert again(source, cache).changed == {SECOND: "its label changed"}
    assert again(source, cache).changed == {}


def test_one_bit_of_a_scan_is_noticed(source, cache):
    file = next(source.root.glob(f"**/{SECOND}/*/*/1-007.dcm"))
    content = bytearray(file.read_bytes())
    content[-1000] ^= 1  # the size stays
    file.write_bytes(content)
    assert again(source, cache).changed == {SECOND: "its image changed"}
    assert again(source, cache).changed == {}


def test_new_times_alone_redo_nothing(source, cache, monkeypatch):
    """As after a copy or a second download."""
    before = tree(cache, ".lock")
    for file in source.root.rglob("*.*"):
        os.utime(file, ns=(1, 1))
    report = again(source, cache)
    assert (report.done, report.changed, len(report.skipped)) == ([], {}, 3)
    assert {Path(name).name for name in differing(cache, before)} == {"source.json"}
    monkeypatch.setattr("medaug.data.cache.changes.contents", None)  # not read a second time
    again(source, cache)


def test_a_label_that_goes_comes_or_counts_otherwise_is_noticed(source, cache, monkeypatch):
    listed, problems = source.cases()
    first = listed[0].id

    def with_first(**different):
        cases = [replace(listed[0], **different), *listed[1:]]
        monkeypatch.setattr(source, "cases", lambda: (cases, problems))
        return again(source, cache).changed

    assert with_first(label=None) == {first: "its label is gone"}
    assert not SliceCache.open(cache).cases[first].labeled
    assert with_first() == {first: "it has a label now"}
    assert SliceCache.open(cache).cases[first].label_pixels["pancreas"].any()
    assert with_first(label=replace(listed[0].label, ids={1: 0})) == {first: "its label changed"}
    assert first not in SliceCache.open(cache).cases  # the label is empty now, and refused


def test_what_fails_now_leaves_nothing_of_the_old(source, cache):
    mirrored = np.ascontiguousarray(miniature(2)[1][::-1])
    write_label(source.root / LABELS / "label0002.nii.gz", mirrored)
    report = again(source, cache)
    assert report.changed == {SECOND: "its label changed"}
    assert [p.case for p in report.failed] == [SECOND]
    assert SECOND not in SliceCache.open(cache).cases
    assert {path.name for path in (cache / "cases").iterdir()} == {"PANCREAS_0001", "PANCREAS_0003"}


def test_killed_while_it_cuts_anew_it_goes_on(source, cache, tmp_path):
    """Whatever moment: each case is the old one or the new one, never a part of either."""
    for number in (1, 2, 3):
        mask = miniature(number)[1]
        mask[:, :, :5] = 0
        write_label(source.root / LABELS / f"label{number:04d}.nii.gz", mask)
    again(source, tmp_path / "fresh")
    cut_short = 0
    for attempt, delay in enumerate((0.0, 0.01, 0.03, 0.06, 0.1)):
        folder = tmp_path / f"cut{attempt}"
        shutil.copytree(cache, folder)
        process = get_context("fork").Process(target=again, args=(source, folder, 2))
        process.start()
        deadline = time.monotonic() + 30
        while read_index(folder)["complete"] and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(delay)
        process.kill()
        process.join()
        cut_short += not read_index(folder)["complete"]
        again(source, folder)
        assert tree(folder, ".lock") == tree(tmp_path / "fresh", ".lock")
    assert cut_short > 0


def test_files_that_change_while_they_are_read_are_refused(source, tmp_path, monkeypatch):
    case, cut = source.cases()[0][0], slicing.cut

    def slow(*asked):
        mask = miniature(1)[1]
        mask[:, :, :5] = 0
        write_label(case.label.files[0], mask)
        return cut(*asked)

    monkeypatch.setattr(fill, "cut", slow)
    monkeypatch.setattr(source, "cases", lambda: ([case], []))
    with pytest.raises(DataError, match="its files changed while they were read; run the same"):
        again(source, tmp_path / "cache")


def test_a_damaged_record_is_cut_anew(source, cache):
    before = tree(cache, ".lock")
    (cache / "cases" / SECOND / "source.json").write_text("{")
    assert again(source, cache).changed == {SECOND: "its source.json is damaged"}
    assert tree(cache, ".lock") == before


def test_every_bit_of_a_record_is_guarded(cache):
    path = cache / "cases" / SECOND / "source.json"
    whole = path.read_bytes()
    known = changes._read(path.parent)
    assert known.keys() == {"image", "label", "stamp"}
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        assert changes._read(path.parent) in ({}, known), bit
    path.write_bytes(whole)


def test_a_case_without_a_record_is_taken_as_it_is(source, cache):
    (cache / "cases" / SECOND / "source.json").unlink()
    assert again(source, cache).done == []


def test_changed_pictures_are_noticed(tmp_path):
    rng = np.random.default_rng(0)
    for part in ("train", "t10k"):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte", rng.integers(0, 255, (20, 12, 12)))
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", np.arange(20) % 10)
    source, cache, settings = Idx(tmp_path), tmp_path / "cache", CacheSettings(size=None)
    prepare(source, cache, settings)
    assert prepare(source, cache, settings).done == []
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.arange(20)[::-1] % 10)
    report = prepare(source, cache, settings)
    assert report.changed == {"train": "its files changed"}
    assert report.done == ["train"]
    assert SliceCache.open(cache).cases["train"].classes.tolist() == [*range(9, -1, -1)] * 2


def test_a_replaced_photograph_is_noticed(tmp_path):
    rng = np.random.default_rng(0)
    for side in ("train", "test"):
        for number in range(4):
            file = tmp_path / "photos" / side / "cat" / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(file)
    cache, settings = tmp_path / "cache", CacheSettings(size=16)
    prepare(open_source(str(tmp_path / "photos")), cache, settings, 0)
    before = SliceCache.open(cache)
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(file)
    report = prepare(open_source(str(tmp_path / "photos")), cache, settings, 0)
    (name,) = report.done
    assert report.changed == {name: "its files changed"}
    after = SliceCache.open(cache)
    assert (after.cases[name].image == 0).all((1, 2, 3)).sum() == 1
    assert after.fingerprint != before.fingerprint


def test_the_command_says_what_was_cut_anew(medaug, collection, tmp_path):
    root = collection(1, 2, 3)
    command = ("prepare", root, "--cache", tmp_path / "cache", "--size", 32, "--json")
    assert medaug(*command).json["changed"] == {}
    mask = miniature(2)[1]
    mask[:, :, :5] = 0
    write_label(root / LABELS / "label0002.nii.gz", mask)
    told = medaug(*command)
    assert told.json["changed"] == {SECOND: "its label changed"}
    assert told.json["done"] == [SECOND]
    assert f"cut anew: {SECOND}: its label changed" in told.err
