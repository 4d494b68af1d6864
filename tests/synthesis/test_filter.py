"""The filter: each reason, each switch, its file, and that every slice is judged on its own."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from medaug.core.config import DataConfig
from medaug.core.errors import ConfigError, DataError, WeightsError
from medaug.data import open_source
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
from medaug.data.feed.feed import Feed
from medaug.data.sources.phantom.source import Organ, draw_organs
from medaug.data.sources.unlabeled import Unlabeled
from medaug.synthesis.filter import REASONS, Filter, open_filter
from medaug.synthesis.filter.reference import build
from medaug.synthesis.filter.settings import FilterConfig
from medaug.training.checkpoint import write_tensors

QUICK = {"segmenter_images": 320, "folds": 2}
ORGANS = {"pancreas": Organ.PANCREAS, "liver": Organ.LIVER, "spleen": Organ.SPLEEN}
DATA = DataConfig(size=32)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> SliceCache:
    """Eight coarse phantom patients with three labels at 32 pixels, two of them held out."""
    root = tmp_path_factory.mktemp("organs")
    for folder in ("imagesTr", "labelsTr"):
        (root / "scans" / folder).mkdir(parents=True)
    labels = {"background": 0, **{name: n for n, name in enumerate(ORGANS, 1)}}
    (root / "scans" / "dataset.json").write_text(json.dumps({"labels": labels}))
    for number in range(8):
        hu, organs, affine = draw_organs(number, (64, 64, 20), (6.0, 6.0, 9.5))
        found = sum((organs == o) * n for n, o in enumerate(ORGANS.values(), 1))
        for name, array in (("imagesTr", hu), ("labelsTr", found.astype(np.uint8))):
            nibabel.save(
                nibabel.Nifti1Image(array, affine), root / "scans" / name / f"p{number}.nii.gz"
            )
    settings = CacheSettings(size=32, holdout=0.25)
    prepare(open_source(str(root / "scans")), root / "cache", settings, 0)
    return SliceCache.open(root / "cache")


@pytest.fixture(scope="module")
def kept(cache: SliceCache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a filter built on that cache."""
    path = tmp_path_factory.mktemp("filter") / "filter.safetensors"
    open_filter(path, FilterConfig(**QUICK), cache=cache, data=DATA)
    return path


def opened(kept: Path, **changes: object) -> Filter:
    return open_filter(kept, FilterConfig(**{**QUICK, **changes}))


@pytest.fixture
def filter(kept: Path) -> Filter:
    return opened(kept)


def slices(cache: SliceCache, filter: Filter, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The split's slices with a mask of at least 30 pixels, HU clipped as a generator draws it."""
    feed = Feed(cache, DATA, filter.codec, seed=0, device=torch.device("cpu"), split=split)
    assert feed.label_maps is not None
    shown = (feed.label_maps > 0).flatten(1).sum(1) >= 30
    return feed.images[shown].numpy().clip(-160, 240), feed.label_maps[shown].numpy()


@pytest.fixture
def unseen(cache: SliceCache, filter: Filter) -> tuple[np.ndarray, np.ndarray]:
    """Good slices: of patients that were held out, and kept by the filter."""
    image, label = slices(cache, filter, "heldout")
    good = [i for i, why in enumerate(filter.judge(image, label)) if not why]
    assert len(good) >= 0.8 * len(image)
    return image[good], label[good]


@pytest.fixture
def train(cache: SliceCache, filter: Filter) -> tuple[np.ndarray, np.ndarray]:
    return slices(cache, filter, "train")


def share(filter: Filter, image: np.ndarray, label: np.ndarray, reason: str) -> float:
    found = filter.judge(image, label)
    assert set(found) <= {"", *REASONS}
    return found.count(reason) / len(found)


def grainy(image: np.ndarray) -> np.ndarray:
    """The slices with noise of 200 HU; at 12 mm a pixel, real edges look like noise of 60."""
    return image + np.random.default_rng(0).normal(0, 200, image.shape)


def outside(label: np.ndarray) -> np.ndarray:
    """Masks of four pixels a side in the corner, of the first label each slice shows."""
    moved = np.zeros_like(label)
    for k, one in enumerate(label):
        moved[k, :5, :5] = one.max()
    return moved


def speckled(label: np.ndarray) -> np.ndarray:
    """The masks with every second pixel of a chequerboard of 2 x 2 squares taken out of them."""
    y, x = np.mgrid[: label.shape[1], : label.shape[2]]
    return np.where((y % 2 == 0) & (x % 2 == 0), label, 0).astype(np.uint8)


def test_each_reason_is_found(filter: Filter, unseen, train) -> None:
    image, label = unseen
    assert share(filter, image, label * 0, "empty") == 1
    assert share(filter, grainy(image), label, "noise") == 1
    assert share(filter, image, outside(label), "outside_body") == 1
    assert share(filter, (image + 100).clip(-160, 240), label, "hu") == 1
    assert share(filter, image - 100, label, "hu") > 0.9
    assert share(filter, *train, "copy") > 0.9


def test_area_components_and_disagreement_are_found(kept: Path, unseen) -> None:
    image, label = unseen
    liver = np.where(label == 2, 2, 0).astype(np.uint8)
    shown = liver.any((1, 2))
    alone = opened(kept, hu_margin=None, hu_spread=None, body_share=None)
    assert share(alone, image[shown], np.full_like(liver[shown], 2), "area") == 1
    assert share(alone, image[shown], speckled(liver[shown]), "components") > 0.8
    strict = opened(kept, hu_margin=None, hu_spread=None, body_share=None, agreement=0.3)
    assert share(strict, image, label, "disagreement") < 0.3
    assert share(strict, image, label[:, :, ::-1], "disagreement") > 0.6


def test_a_mirrored_shifted_or_grainy_copy_is_a_copy(kept: Path, train) -> None:
    image, label = train
    lenient = opened(kept, hu_margin=None, hu_spread=None, agreement_margin=None)
    grain = np.random.default_rng(0).normal(0, 5, image.shape)
    assert share(lenient, image + grain, label, "copy") > 0.9
    assert share(lenient, image[..., ::-1], label[..., ::-1], "copy") > 0.9
    moved = [np.roll(x, (1, -1), (1, 2)) for x in (image, label)]
    assert share(lenient, moved[0], moved[1], "copy") > 0.9


def test_a_copy_is_found_before_and_after_the_window(kept: Path, cache: SliceCache) -> None:
    filter = opened(kept)
    feed = Feed(cache, DATA, filter.codec, seed=0, device=torch.device("cpu"))
    image, label = feed.images.numpy(), feed.label_maps.numpy()
    assert image.min() < -160
    assert filter.judge(image, label) == filter.judge(image.clip(-160, 240), label)


@pytest.mark.parametrize(
    ("reason", "off"),
    [
        ("empty", {"empty": "allow"}),
        ("noise", {"noise_above": None}),
        ("noise", {"noise_above": 100.0}),
        ("outside_body", {"body_share": None}),
        ("outside_body", {"body_share": 0.0}),
        ("hu", {"hu_margin": None, "hu_spread": None}),
        ("hu", {"hu_margin": 1000.0, "hu_spread": 1000.0}),
        ("copy", {"copy_share": None}),
    ],
)
def test_a_check_that_is_off_refuses_nothing(reason, off, kept: Path, unseen, train) -> None:
    image, label = unseen
    bad = {
        "empty": (image, label * 0),
        "noise": (grainy(image), label),
        "outside_body": (image, outside(label)),
        "hu": ((image + 100).clip(-160, 240), label),
        "copy": train,
    }[reason]
    assert share(opened(kept), *bad, reason) > 0.9
    assert share(opened(kept, **off), *bad, reason) == 0


def test_every_other_threshold_changes_what_it_promises(kept: Path, unseen, train) -> None:
    image, label = unseen
    off = {"hu_margin": None, "hu_spread": None, "body_share": None}
    larger = np.full_like(label, 2)
    assert share(opened(kept, **off, area_factor=None), image, larger, "area") == 0
    assert share(opened(kept, **off, area_factor=50.0), image, larger, "area") == 0
    dots = speckled(np.where(label == 2, 2, 0).astype(np.uint8))
    assert share(opened(kept, **off, components_more=0), image, dots, "components") > 0
    assert share(opened(kept, **off, components_more=None), image, dots, "components") == 0
    assert share(opened(kept, **off, components_more=1000), image, dots, "components") == 0
    wrong = image, label[:, :, ::-1]
    assert share(opened(kept, **off, agreement_margin=None), *wrong, "disagreement") == 0
    assert share(opened(kept, **off, agreement_margin=1.0), *wrong, "disagreement") == 0
    strict = share(opened(kept, **off, agreement_margin=1.0, agreement=1.0), *wrong, "disagreement")
    assert strict == 1
    bright = image + 60 * (label > 0)
    margins = [
        share(opened(kept, hu_margin=m, hu_spread=None), bright, label, "hu") for m in (0, 60)
    ]
    assert margins[0] > margins[1] + 0.2
    moved = np.where(np.roll(label, 4, 1) == 2, 2, np.where(label == 2, 0, label))
    mixed = image, moved.astype(np.uint8)
    spreads = [share(opened(kept, **{**off, "hu_spread": s}), *mixed, "hu") for s in (1.0, 5.0)]
    assert spreads[0] > spreads[1]
    smooth = np.stack([np.full_like(x, 40) for x in image])
    below = opened(kept, **off, noise_below=1.0), opened(kept, **off)
    assert [share(f, smooth, label, "noise") for f in below] == [1, 0]
    near = (train[0] + 0.75 * opened(kept).nearest).clip(-160, 240), train[1]
    shares = [share(opened(kept, **off, copy_share=s), *near, "copy") for s in (0.0, 0.5, 1.0)]
    assert shares[:2] == [0, 0]
    assert shares[2] > 0.9
    assert share(opened(kept, **off, copy_share=0.0), *train, "copy") > 0.9


def test_tails_move_the_bounds(kept: Path) -> None:
    narrow, wide = opened(kept, tail=0.2), opened(kept, tail=0.0)
    assert narrow.noise[1] < wide.noise[1]
    assert narrow.nearest > wide.nearest
    loose, tight = opened(kept, agreement_tail=0.0), opened(kept, agreement_tail=0.4)
    assert all(
        a.at(size)[0] <= b.at(size)[0]
        for a, b in zip(loose.agreement, tight.agreement, strict=True)
        for size in (0, 10, 100)
    )


def test_each_slice_is_judged_on_its_own(filter: Filter, unseen, train) -> None:
    image = np.concatenate([unseen[0][:4], train[0][:4], unseen[0][:4] + 100])
    label = np.concatenate([unseen[1][:4], train[1][:4], unseen[1][:4]])
    together = filter.judge(image, label)
    assert len(set(together)) >= 3
    assert together == [filter.judge(image[i : i + 1], label[i : i + 1])[0] for i in range(12)]
    assert together[::-1] == filter.judge(image[::-1], label[::-1])
    assert filter.judge(image[:0], label[:0]) == []


def test_the_file_gives_the_same_verdicts_without_the_cache(
    cache: SliceCache, kept: Path, unseen, train
) -> None:
    fresh = Filter(build(cache, DATA, FilterConfig(**QUICK), torch.device("cpu")), FilterConfig())
    loaded = opened(kept)
    assert list(loaded.labels) == list(ORGANS)
    for name, values in fresh.reference.columns.items():
        assert np.array_equal(values, loaded.reference.columns[name], equal_nan=True), name
    for image, label in (unseen, train, (unseen[0], outside(unseen[1]))):
        assert fresh.judge(image, label) == loaded.judge(image, label)


def test_the_fingerprint_tells_filters_apart(kept: Path) -> None:
    assert opened(kept).fingerprint == opened(kept).fingerprint
    assert opened(kept).fingerprint != opened(kept, hu_margin=11.0).fingerprint


def test_it_is_built_once_and_anew_for_other_settings(cache: SliceCache, tmp_path: Path) -> None:
    path = tmp_path / "run" / "filter.safetensors"
    little = FilterConfig(segmenter_images=8, folds=2)
    first = open_filter(path, little, cache=cache, data=DATA)
    written = path.stat().st_mtime_ns
    assert open_filter(path, little, cache=cache, data=DATA).fingerprint == first.fingerprint
    assert path.stat().st_mtime_ns == written
    narrower = DATA.model_copy(update={"window_hu": (-100.0, 240.0)})
    other = open_filter(path, little, cache=cache, data=narrower)
    assert other.reference.checksum != first.reference.checksum
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_who_comes_second_waits_for_the_first(
    cache: SliceCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, little = tmp_path / "filter.safetensors", FilterConfig(segmenter_images=8, folds=2)
    with ThreadPoolExecutor(2) as pool:
        both = pool.map(lambda _: open_filter(path, little, cache=cache, data=DATA), range(2))
        assert len({filter.fingerprint for filter in both}) == 1
    assert capsys.readouterr().err.count("filter: ") == 1
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_empty_masks_pass_where_real_slices_are_empty(cache: SliceCache, tmp_path: Path) -> None:
    rare = DATA.model_copy(update={"require_label": False, "labels": ["spleen"]})
    little = FilterConfig(segmenter_images=8, folds=2)
    filter = open_filter(tmp_path / "f.safetensors", little, cache=cache, data=rare)
    assert filter.allows_empty
    feed = Feed(cache, rare, filter.codec, seed=0, device=torch.device("cpu"), split="heldout")
    image = feed.images.numpy()
    blank = np.zeros(image.shape, np.uint8)
    assert share(filter, image, blank, "empty") == 0
    strict = open_filter(tmp_path / "f.safetensors", little.model_copy(update={"empty": "refuse"}))
    assert share(strict, image, blank, "empty") == 1
    never = open_filter(tmp_path / "f.safetensors", little.model_copy(update={"empty_share": 0.99}))
    assert not never.allows_empty


def test_one_patient_and_no_masks_are_enough(cache: SliceCache, tmp_path: Path) -> None:
    name = cache.split["train"][0]
    cases, split = {name: cache.cases[name]}, {"train": [name], "heldout": []}
    alone = replace(cache, cases=cases, split=split)
    bare = DATA.model_copy(update={"masks": "none"})
    filter = open_filter(tmp_path / "f.safetensors", FilterConfig(), cache=alone, data=bare)
    image = np.asarray(cache.cases[name].image)
    assert set(filter.judge(image, None)) == {"copy"}
    assert set(filter.judge(np.random.default_rng(0).uniform(-160, 240, (3, 32, 32)), None)) == {
        "noise"
    }


def test_mistakes_are_named(cache: SliceCache, kept: Path, tmp_path: Path) -> None:
    filter = opened(kept)
    image, label = np.zeros((2, 32, 32), np.int16), np.zeros((2, 32, 32), np.uint8)
    with pytest.raises(DataError, match=r"shape \(2, 32, 16\); this filter takes \(n, 32, 32\)"):
        filter.judge(image[..., :16], label)
    with pytest.raises(DataError, match=r"label maps of shape \(1, 32, 32\) for images"):
        filter.judge(image, label[:1])
    with pytest.raises(DataError, match="no label maps; this filter takes them of pancreas, liver"):
        filter.judge(image, None)
    with pytest.raises(DataError, match=r"label id 9 is not known .*1 pancreas, 2 liver, 3 spleen"):
        filter.judge(image, label + 9)
    with pytest.raises(DataError, match="not finite"):
        filter.judge(np.full(image.shape, np.nan), label)
    with pytest.raises(ConfigError, match="no filter there; it is built from"):
        open_filter(tmp_path / "none.safetensors")
    with pytest.raises(ConfigError, match="segmenter_images 320, asked for 99"):
        opened(kept, segmenter_images=99)
    odd = DATA.model_copy(update={"labels": ["kidney"]})
    with pytest.raises(ConfigError, match="'kidney' is not in"):
        open_filter(tmp_path / "none.safetensors", cache=cache, data=odd)
    write_tensors(tmp_path / "w.safetensors", {"a": torch.zeros(1)}, {"kind": "ct"})
    with pytest.raises(WeightsError, match="holds no filter"):
        open_filter(tmp_path / "w.safetensors")
    assert not (tmp_path / "none.safetensors").exists()


def test_scans_without_a_label_are_not_copied_either(cache: SliceCache, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    hu, _, affine = draw_organs(99, (64, 64, 20), (6.0, 6.0, 9.5))
    nibabel.save(nibabel.Nifti1Image(hu, affine), tmp_path / "bare" / "scan.nii.gz")
    prepare(Unlabeled(tmp_path / "bare"), tmp_path / "cache", cache.settings, 0)
    bare = SliceCache.open(tmp_path / "cache")
    image = np.asarray(next(iter(bare.cases.values())).image)
    little = FilterConfig(segmenter_images=8, folds=2, empty="allow", hu_margin=None,
                          noise_above=None, agreement_margin=None)  # fmt: skip
    every = DATA.model_copy(update={"require_label": False})
    blank = np.zeros(image.shape, np.uint8)
    alone = open_filter(tmp_path / "a.safetensors", little, cache=cache, data=every)
    both = open_filter(tmp_path / "b.safetensors", little, cache=cache, data=every, unlabeled=bare)
    assert share(alone, image, blank, "copy") == 0
    assert share(both, image, blank, "copy") == 1
    assert len(both.reference.columns["group"]) == len(alone.reference.columns["group"])


@pytest.mark.parametrize("masks", ["layout", "joint"])
def test_it_knows_the_labels_however_a_model_takes_them(cache, tmp_path: Path, masks: str) -> None:
    given = DATA.model_copy(update={"masks": masks})
    little = FilterConfig(segmenter_images=8, folds=2)
    filter = open_filter(tmp_path / "f.safetensors", little, cache=cache, data=given)
    assert filter.labels == {"pancreas": 1, "liver": 2, "spleen": 3}


def test_masks_alone_have_nothing_to_judge(cache: SliceCache, tmp_path: Path) -> None:
    given = DATA.model_copy(update={"masks": "alone"})
    with pytest.raises(ConfigError, match="judges slices of scans; these are masks alone"):
        open_filter(tmp_path / "f.safetensors", cache=cache, data=given)
