"""Batches by position, the slices they are drawn from, and their warps."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from medaug.core.config import DataConfig
from medaug.core.errors import ConfigError
from medaug.core.seeds import generator
from medaug.data.cache.arrays import Stack
from medaug.data.cache.prepare import SliceCache
from medaug.data.feed.feed import Feed, codec_for, sent
from medaug.data.feed.warp import field, warp

CPU = torch.device("cpu")
STILL: dict[str, Any] = {"rotate": 0.0, "scale": 0.0, "shift": 0.0, "elastic": 0.0}


@pytest.fixture(scope="module")
def cache(phantom_cache: Path) -> SliceCache:
    return SliceCache.open(phantom_cache)


def feed(cache: SliceCache, split: str = "train", seed: int = 0, **data: Any) -> Feed:
    config = DataConfig(size=32, **data)
    return Feed(cache, config, codec_for(cache, config), seed=seed, device=CPU, split=split)


def test_batches_do_not_depend_on_history_and_differ_by_seed(cache: SliceCache) -> None:
    one, other = feed(cache), feed(cache)
    for position in (0, 8, 64):
        one.batch(position, 8)
    assert torch.equal(one.batch(16, 8).x, other.batch(16, 8).x)
    assert not torch.equal(one.batch(16, 8).x, feed(cache, seed=1).batch(16, 8).x)


def test_an_epoch_shows_every_slice_once(cache: SliceCache) -> None:
    still = feed(cache, augment=None)
    n = len(still)
    rows = torch.cat([still.batch(p, 1).x for p in range(n)]).flatten(1)
    assert len(torch.unique(rows, dim=0)) == n
    whole = still.batch(0, n).x.flatten(1)
    assert torch.equal(whole, rows)
    across = still.batch(n - 2, 5).x.flatten(1)
    assert torch.equal(across[:2], rows[-2:])
    assert torch.equal(across[2:], still.batch(n, 3).x.flatten(1))


def test_only_training_slices_must_show_the_label(cache: SliceCache) -> None:
    train, everything = feed(cache), feed(cache, require_label=False)
    heldout = feed(cache, "heldout")
    assert len(train) < len(everything)
    masks = train.at(torch.arange(len(train))).x[:, 1] > 0
    assert int(masks.flatten(1).sum(1).min()) >= 5
    patient = cache.cases[cache.split["heldout"][0]]
    assert len(heldout) == len(patient.image)
    assert heldout.augment is None


def test_values_are_the_windowed_hu(cache: SliceCache) -> None:
    heldout = feed(cache, "heldout")
    case = cache.cases[cache.split["heldout"][0]]
    seen = heldout.at(torch.arange(len(heldout)))
    x = seen.x
    assert seen.cond is None
    assert x.shape[1:] == (2, 32, 32)
    expected = (np.clip(case.image, -160, 240) + 160) / 200 - 1
    assert torch.allclose(x[:, 0], torch.from_numpy(expected).float(), atol=1e-6)
    assert torch.equal(x[:, 1] > 0, torch.from_numpy(np.array(case.label)) == 1)


def moved_by(x: torch.Tensor, seed: int, **amounts: float) -> torch.Tensor:
    sides = (x.shape[-2], x.shape[-1])
    return warp(x, field(len(x), sides, generator(seed), **{**STILL, **amounts}))


def test_a_still_warp_changes_nothing_and_each_amount_changes_something() -> None:
    x = torch.rand(2, 2, 16, 16) * 2 - 1
    assert torch.allclose(moved_by(x, 0), x, atol=1e-5)
    for name in STILL:
        assert not torch.allclose(moved_by(x, 0, **{name: 0.1}), x, atol=1e-2)


def test_image_and_mask_are_warped_together() -> None:
    x = torch.full((4, 2, 32, 32), -1.0)
    x[:, :, 10:20, 8:22] = 1.0
    moved = moved_by(x, 3, rotate=0.2, scale=0.1, shift=0.1, elastic=0.03)
    assert torch.equal(moved[:, 0], moved[:, 1])
    assert moved.min() >= -1
    assert not torch.allclose(moved[0], moved[1])


def test_a_shift_moves_by_what_it_says() -> None:
    x = torch.full((1, 1, 64, 64), -1.0)
    x[:, :, 28:36, 28:36] = 1.0
    for seed in range(8):
        moved = moved_by(x, seed, shift=0.1) + 1
        weight = moved[0, 0] / moved.sum()
        centre = torch.stack([(weight.sum(a) * torch.arange(64)).sum() for a in (0, 1)])
        assert bool(((centre - 31.5).abs() <= 6.5).all())


def test_labels_that_are_not_there_are_refused(cache: SliceCache) -> None:
    with pytest.raises(ConfigError) as caught:
        feed(cache, labels=["spleen"])
    assert str(caught.value) == (
        f"config data.labels: 'spleen' is not in {cache.path} (there: pancreas)"
    )


def test_a_condition_is_attributes_and_height_and_no_warp_changes_it(cache: SliceCache) -> None:
    asked: dict[str, Any] = {"attributes": ["pancreas"], "height": True, "require_label": False}
    warped, still = feed(cache, **asked), feed(cache, **asked, augment=None)
    assert warped.shape.cond_dim == 2
    assert warped.shape.classes == 0
    batch, plain = warped.batch(5, 8), still.batch(5, 8)
    assert batch.cond is not None
    assert plain.cond is not None
    assert torch.equal(batch.cond, plain.cond)
    assert not torch.allclose(batch.x, plain.x)
    shown = (plain.x[:, 1] > 0).flatten(1).sum(1) >= 5
    assert torch.equal(plain.cond[:, 0] == 1, shown)
    cond = still.at(torch.arange(len(still))).cond
    assert cond is not None
    first = cache.cases[cache.split["train"][0]]
    expected = torch.linspace(-1, 1, len(first.image))
    assert torch.allclose(cond[: len(expected), 1], expected, atol=1e-6)


def test_with_require_label_height_is_a_place_in_the_labelled_extent(cache: SliceCache) -> None:
    train, heldout = feed(cache, height=True), feed(cache, "heldout", height=True)
    cond = train.at(torch.arange(len(train))).cond
    assert cond is not None
    case = cache.cases[cache.split["train"][0]]
    z = np.flatnonzero(case.label_pixels["pancreas"] >= 5)
    expected = np.interp(z, [z[0], z[-1]], [-1, 1])
    assert cond[: len(z), 0].numpy() == pytest.approx(expected, abs=1e-6)
    cond = heldout.at(torch.arange(len(heldout))).cond
    assert cond is not None
    heights = cond[:, 0]
    assert bool((heights.diff() >= 0).all())
    assert (heights == -1).sum() > 1
    assert (heights == 1).sum() > 1


def test_the_rows_are_the_training_slices_and_the_same_each_time(cache: SliceCache) -> None:
    asked: dict[str, Any] = {"attributes": ["pancreas"], "height": True, "require_label": False}
    one = feed(cache, **asked)
    assert one.condition == feed(cache, **asked).condition
    assert one.condition.names == ("pancreas", "height")
    cond = one.at(torch.arange(len(one))).cond
    assert cond is not None
    assert torch.allclose(torch.tensor(one.condition.rows), cond, atol=1e-4)


def test_conditions_that_are_not_there_are_refused(cache: SliceCache) -> None:
    with pytest.raises(ConfigError) as caught:
        feed(cache, attributes=["liver"])
    assert str(caught.value) == (
        f"config data.attributes: 'liver' is not in {cache.path} (there: pancreas)"
    )
    with pytest.raises(ConfigError) as caught:
        feed(cache, attributes=["pancreas"])
    assert str(caught.value) == (
        f"config data.attributes: 'pancreas' is present in all {len(feed(cache))} training slices, "
        "so it tells nothing; leave it out or see data.require_label"
    )
    pictures = replace(cache, kind="image", labels={})
    with pytest.raises(ConfigError) as caught:
        feed(pictures, height=True)
    assert str(caught.value) == "config data.height: pictures have no height; false is accepted"
    with pytest.raises(ConfigError) as caught:
        feed(pictures, attributes=["smile"])
    assert str(caught.value) == (
        f"config data.attributes: 'smile' is not in {cache.path} (there: none)"
    )


@pytest.mark.parametrize(("target", "waits"), [("cpu", True), ("cuda", False)])
def test_what_comes_to_the_cpu_is_waited_for(target: str, waits: bool) -> None:
    there = Mock(device=torch.device("cuda", 0))
    sent(there, torch.device(target))
    there.to.assert_called_once_with(torch.device(target), non_blocking=not waits)


def test_maps_that_layouts_were_made_of_stay_where_they_are(cache: SliceCache) -> None:
    told, shown = feed(cache, masks="layout"), feed(cache)
    for made, resident in ((told, True), (shown, False)):
        made._images = made.images
        assert isinstance(made._label_maps, Stack)
        assert made.resident == resident
    assert told.label_maps is not None
    assert told.marks(torch.arange(2)) is not None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_layouts_on_the_cpu_make_the_batch_that_they_make_on_the_gpu(cache: SliceCache) -> None:
    config = DataConfig(size=32, masks="layout")
    made = Feed(cache, config, codec_for(cache, config), seed=0, device=torch.device("cuda"))
    there = made.batch(0, 8).cond
    assert made.layouts is not None
    made.layouts = made.layouts.cpu()
    for _ in range(20):
        here = made.batch(0, 8).cond
        assert here is not None
        assert there is not None
        assert torch.equal(here, there)
