"""Images for given masks: what a layout is, where layouts come from, what is drawn for them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from medaug.core.codec import CTCodec
from medaug.core.config import DataConfig, resolve
from medaug.core.errors import ConfigError, DataError, OutputError
from medaug.core.modality import CT
from medaug.data.cache.prepare import SliceCache
from medaug.data.feed.feed import codec_for
from medaug.data.feed.tissues import layout, tissues
from medaug.synthesis.generator import Generator
from medaug.synthesis.masks.deformed import Deformed, deform
from medaug.synthesis.masks.open import real_layouts
from medaug.synthesis.synthesize import plan, synthesize
from medaug.training.loop import fit
from tests.conftest import TINY

AIR, GAS, FAT, SOFT, BONE = 0, *CT.tissues.values()


def maps_of(run: Path, cache: Path) -> torch.Tensor:
    generator = Generator.from_pretrained(run, "cpu")
    assert isinstance(generator.codec, CTCodec)
    return real_layouts(SliceCache.open(cache), generator.settings.data, generator.codec)


def test_tissues_are_read_off_the_hu() -> None:
    image = np.full((1, 40, 40), -1000, np.int16)
    image[0, 4:36, 4:36] = -100
    image[0, 8:32, 8:32] = 40
    image[0, 12:20, 12:20] = 400
    image[0, 22:30, 22:30] = -900
    found = tissues(image)[0]
    points = {(0, 0): AIR, (6, 20): FAT, (10, 28): SOFT, (16, 16): BONE, (26, 26): GAS}
    assert {place: found[place] for place in points} == points


def test_noise_leaves_few_specks_in_the_tissues() -> None:
    rng = np.random.default_rng(0)
    image = np.full((1, 64, 64), -1000, np.int16)
    image[0, 8:56, 8:56] = 60 + rng.normal(0, 40, (48, 48))
    assert (tissues(image)[0, 12:52, 12:52] == SOFT).mean() > 0.99


def test_labels_lie_over_tissues_and_only_those_asked_for() -> None:
    image = np.full((1, 20, 20), 40, np.int16)
    label = np.zeros((1, 20, 20), np.uint8)
    label[0, 5:9, 5:9], label[0, 12:15, 12:15] = 1, 2
    filled = layout(image, label, [1], True)[0]
    assert filled[6, 6] == 1
    assert filled[13, 13] == SOFT
    bare = layout(image, label, [1], False)[0]
    assert bare[13, 13] == bare[0, 0] == AIR


def test_a_deformation_is_smooth_addressed_and_as_strong_as_asked() -> None:
    maps = torch.zeros(3, 64, 64, dtype=torch.uint8)
    maps[:, 20:44, 16:40] = 7
    for strength in (0.5, 1.0, 2.0):
        moved = deform(maps, 3, [4, 5, 6], "x", strength)
        assert set(moved.unique().tolist()) == {0, 7}
        assert torch.equal(moved[1:2], deform(maps[1:2], 3, [5], "x", strength))
    changed = [
        float((deform(maps, 3, range(3), "x", s) != maps).float().mean()) for s in (0.2, 1.0, 3.0)
    ]
    assert changed == sorted(changed)
    assert changed[0] < 0.5 * changed[2]
    still = Deformed(maps, 0.0)
    assert torch.equal(still.maps(0, range(3)), maps)
    assert still.fingerprint != Deformed(maps, 1.0).fingerprint


def test_real_slices_take_turns(layout_run: Path, phantom_cache: Path) -> None:
    real = maps_of(layout_run, phantom_cache)
    source = Deformed(real, 0.0)
    epoch = source.maps(0, range(len(real)))
    assert {m.numpy().tobytes() for m in epoch} == {m.numpy().tobytes() for m in real}
    assert torch.equal(source.maps(0, [3]), source.maps(0, range(8))[3:4])
    assert not torch.equal(source.maps(0, range(8)), source.maps(1, range(8)))
    assert not torch.equal(Deformed(real).maps(0, [3], 0), Deformed(real).maps(0, [3], 1))


def test_the_masks_drawn_are_those_given(layout_run: Path, phantom_cache: Path) -> None:
    generator = Generator.from_pretrained(layout_run, "cpu")
    real = maps_of(layout_run, phantom_cache).numpy()
    given = Generator.from_pretrained(layout_run, "cpu", mask_strength=0.0)
    samples = list(given.generate(16, uncertainty=3))
    bank = {np.where(m == 1, 1, 0).astype(np.uint8).tobytes() for m in real}
    for sample in samples:
        assert sample.label is not None
        assert sample.label.tobytes() in bank
        assert sample.alternative_labels is not None
        assert (sample.alternative_labels == sample.label).all()
        assert sample.std.max() > 0
        assert sample.origin["mask"] == "a real layout deformed at strength 0"
    deformed = list(generator.generate(16, uncertainty=0))
    assert any(s.label.tobytes() not in bank for s in deformed if s.label is not None)


def test_the_image_changes_where_the_mask_does(layout_run: Path, phantom_cache: Path) -> None:
    generator = Generator.from_pretrained(layout_run, "cpu")
    real = maps_of(layout_run, phantom_cache)[:4].numpy()
    marked = real.copy()
    marked[:, 10:16, 12:20] = 1
    change = np.abs(generator.redraw(real) - generator.redraw(marked))
    assert change.shape == (4, 32, 32)
    assert change[:, 10:16, 12:20].mean() > 3 * change[:, 24:, 24:].mean()


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    folder.mkdir()
    marks = np.zeros((64, 64, 5), np.uint8)
    marks[20:30, 30:40, 2], marks[36:50, 20:30, 3] = 1, 1
    affine = np.diag([-6.25, -6.25, 5.0, 1.0])  # stored towards Left and Posterior
    nibabel.save(nibabel.Nifti1Image(marks, affine), folder / "mine.nii.gz")
    return folder


def test_own_masks_are_drawn_in_turn_with_tissues_lent(layout_run: Path, own: Path) -> None:
    generator = Generator.from_pretrained(layout_run, "cpu", masks=own)
    samples = list(generator.generate(4, uncertainty=0))
    areas = [int((s.label == 1).sum()) for s in samples if s.label is not None]
    assert areas == [25, 35, 25, 35]
    assert samples[0].origin["mask"] == "a mask of the user's"
    assert generator.layouts is not None
    filled = generator.layouts.maps(0, [0, 1])
    assert set(filled.unique().tolist()) >= {1, FAT, SOFT}
    first = samples[0].label
    assert first is not None
    rows, columns = np.nonzero(first)
    assert (rows.mean(), columns.mean()) == pytest.approx((14, 19), abs=1)


def test_own_masks_with_tissues_need_no_cache(
    layout_run: Path, phantom_cache: Path, own: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(layout_run, run)
    (run / "run.json").write_text(json.dumps({"_cache": "nowhere"}))
    with pytest.raises(DataError, match=r"hold no tissues .* and the cache that could lend"):
        Generator.from_pretrained(run, "cpu", masks=own)
    whole = maps_of(layout_run, phantom_cache)[:3].numpy()
    image = nibabel.Nifti1Image(whole.transpose(2, 1, 0), np.diag([12.5, 12.5, 1, 1]))
    nibabel.save(image, own / "mine.nii.gz")
    made = Generator.from_pretrained(run, "cpu", masks=own)
    labels = [s.label for s in made.generate(3, uncertainty=0)]
    assert all(np.array_equal(a, b == 1) for a, b in zip(labels, whole, strict=True))
    with pytest.raises(ConfigError, match=r"is not there; name masks with --masks"):
        list(Generator.from_pretrained(run, "cpu").generate(1))


def test_masks_that_do_not_suit_are_refused(
    layout_run: Path, tiny_run: Path, masks_run: Path, own: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        Generator.from_pretrained(tiny_run, "cpu", masks=own)
    assert str(caught.value) == (
        "masks: this run is given none; runs trained with data.masks layout take some"
    )
    with pytest.raises(ConfigError, match="masks: a run of masks alone is wanted"):
        Generator.from_pretrained(layout_run, "cpu", masks=tiny_run)
    with pytest.raises(DataError, match="no such folder; masks are a slice cache"):
        Generator.from_pretrained(layout_run, "cpu", masks=tmp_path / "none")
    with pytest.raises(ConfigError, match="mask_strength must be 0 to 4, got 5"):
        Generator.from_pretrained(layout_run, "cpu", mask_strength=5)
    strange = np.full((8, 8, 1), 9, np.uint8)
    nibabel.save(nibabel.Nifti1Image(strange, np.eye(4)), own / "strange.nii.gz")
    with pytest.raises(DataError) as damaged:
        Generator.from_pretrained(layout_run, "cpu", masks=own)
    assert str(damaged.value) == (
        f"{own / 'strange.nii.gz'}: label id 9 is not known to this run (1 pancreas, 251 gas, "
        "252 fat, 253 soft, 254 bone)"
    )
    with pytest.raises(ConfigError, match="this run draws masks alone; give it as --masks"):
        plan(Generator.from_pretrained(masks_run, "cpu"), 4, tmp_path / "out")


def test_a_run_of_masks_alone_gives_layouts(layout_run: Path, masks_run: Path) -> None:
    drawer = Generator.from_pretrained(masks_run, "cpu")
    generator = Generator.from_pretrained(layout_run, "cpu", masks=masks_run)
    drawn = [s.label for s in drawer.generate(20, seed=2, uncertainty=0)]
    assert generator.layouts is not None
    maps = generator.layouts.maps(2, range(20)).numpy()
    assert all(np.array_equal(a, b) for a, b in zip(drawn, maps, strict=True))
    assert set(np.unique(maps)) <= {0, 1, *CT.tissues.values()}
    other = generator.layouts.maps(2, range(20), attempt=1).numpy()
    assert not np.array_equal(maps, other)


def test_a_folder_is_of_one_source_of_masks(layout_run: Path, own: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    synthesize(Generator.from_pretrained(layout_run, "cpu"), 3, out, uncertainty=0)
    other = Generator.from_pretrained(layout_run, "cpu", masks=own)
    with pytest.raises(OutputError, match="holds samples made with masks"):
        synthesize(other, 3, out, uncertainty=0)


def test_shards_and_orders_give_the_same_bytes(layout_run: Path, tmp_path: Path) -> None:
    def files(folder: Path) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in folder.rglob("*.nii.gz")}

    options: dict[str, Any] = {"uncertainty": 2, "source": "mask", "seed": 5}
    generator = Generator.from_pretrained(layout_run, "cpu")
    synthesize(generator, 40, tmp_path / "whole", **options)
    for number in (2, 0, 1):
        again = Generator.from_pretrained(layout_run, "cpu")
        synthesize(again, 40, tmp_path / "parts", shard=(number, 3), **options)
    assert files(tmp_path / "whole") == files(tmp_path / "parts")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"labels": []}, None),
        ({"labels": [], "tissues": False}, "layout needs labels, and none are chosen"),
        ({"labels": ["liver"]}, "'liver' is not in"),
    ],
)
def test_what_a_layout_can_be_made_of(
    phantom_cache: Path, tmp_path: Path, data: dict[str, Any], message: str | None
) -> None:
    asked = {**data, "masks": "layout", "require_label": False}
    config = resolve(TINY, {"data": asked, "train": {"images": 8}})
    if message is None:
        fit(config, SliceCache.open(phantom_cache), tmp_path / "run", device="cpu")
        (sample,) = Generator.from_pretrained(tmp_path / "run", "cpu").generate(1, uncertainty=0)
        assert sample.label is not None
        assert not sample.label.any()
        return
    with pytest.raises(ConfigError, match=message):
        fit(config, SliceCache.open(phantom_cache), tmp_path / "run", device="cpu")


def test_without_tissues_the_layout_is_the_labels(phantom_cache: Path, tmp_path: Path) -> None:
    asked = {"data": {"masks": "layout", "tissues": False}, "train": {"images": 8}}
    cache = SliceCache.open(phantom_cache)
    fit(resolve(TINY, asked), cache, tmp_path / "run", device="cpu")
    generator = Generator.from_pretrained(tmp_path / "run", "cpu")
    assert generator.layouts is not None
    assert set(generator.layouts.maps(0, range(8)).unique().tolist()) == {0, 1}


def test_pictures_take_no_layout(phantom_cache: Path) -> None:
    pictures = replace(SliceCache.open(phantom_cache), kind="image")
    with pytest.raises(ConfigError, match="layout needs label maps"):
        codec_for(pictures, DataConfig(masks="layout"))
