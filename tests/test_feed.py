"""Batches by position, the slices they are drawn from, and their warps."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medaug.config import DataConfig
from medaug.data.cache import SliceCache
from medaug.data.feed import Feed, codec_for
from medaug.data.warp import warp
from medaug.errors import ConfigError
from medaug.seeds import generator

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
    masks = train.at(torch.arange(len(train)))[0][:, 1] > 0
    assert int(masks.flatten(1).sum(1).min()) >= 5
    patient = cache.cases[cache.split["heldout"][0]]
    assert len(heldout) == len(patient.image)
    assert heldout.augment is None


def test_values_are_the_windowed_hu(cache: SliceCache) -> None:
    heldout = feed(cache, "heldout")
    case = cache.cases[cache.split["heldout"][0]]
    x, cond = heldout.at(torch.arange(len(heldout)))
    assert cond is None
    assert x.shape[1:] == (2, 32, 32)
    expected = (np.clip(case.image, -160, 240) + 160) / 200 - 1
    assert torch.allclose(x[:, 0], torch.from_numpy(expected).float(), atol=1e-6)
    assert torch.equal(x[:, 1] > 0, torch.from_numpy(np.array(case.label)) == 1)


def test_a_still_warp_changes_nothing_and_each_amount_changes_something() -> None:
    x = torch.rand(2, 2, 16, 16) * 2 - 1
    assert torch.allclose(warp(x, generator(0), **STILL), x, atol=1e-5)
    for name in STILL:
        assert not torch.allclose(warp(x, generator(0), **{**STILL, name: 0.1}), x, atol=1e-2)


def test_image_and_mask_are_warped_together() -> None:
    x = torch.full((4, 2, 32, 32), -1.0)
    x[:, :, 10:20, 8:22] = 1.0
    moved = warp(x, generator(3), rotate=0.2, scale=0.1, shift=0.1, elastic=0.03)
    assert torch.equal(moved[:, 0], moved[:, 1])
    assert moved.min() >= -1
    assert not torch.allclose(moved[0], moved[1])


def test_a_shift_moves_by_what_it_says() -> None:
    x = torch.full((1, 1, 64, 64), -1.0)
    x[:, :, 28:36, 28:36] = 1.0
    for seed in range(8):
        moved = warp(x, generator(seed), **{**STILL, "shift": 0.1}) + 1
        weight = moved[0, 0] / moved.sum()
        centre = torch.stack([(weight.sum(a) * torch.arange(64)).sum() for a in (0, 1)])
        assert bool(((centre - 31.5).abs() <= 6.5).all())


def test_labels_that_are_not_there_are_refused(cache: SliceCache) -> None:
    with pytest.raises(ConfigError) as caught:
        feed(cache, labels=["spleen"])
    assert str(caught.value) == (
        f"config data.labels: 'spleen' is not in {cache.path} (there: pancreas)"
    )
