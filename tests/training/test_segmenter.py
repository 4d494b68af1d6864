"""The small segmenter finds real masks, in the same way each time, and survives its file."""

from pathlib import Path

import numpy as np
import pytest
import torch

from medaug.core.codec import CTCodec
from medaug.core.config import DataConfig
from medaug.core.errors import ConfigError, WeightsError
from medaug.data.cache.prepare import SliceCache
from medaug.data.feed.feed import Feed, codec_for
from medaug.training.checkpoint import write_tensors
from medaug.training.segmenter import Segmenter, dice, load, save, train_on, train_segmenter

CODEC = CTCodec((-160.0, 240.0), {"tumour": 7, "organ": 3})
"""Ids out of order, and names whose order JSON changes."""


def scene(n: int, seed: int, side: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Slices with a bright disc, id 3, and a dark square, id 7."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    images, labels = [], []
    for _ in range(n):
        cy, cx = rng.uniform(8, 24, 2)
        disc = (y - cy) ** 2 + (x - cx) ** 2 < 36
        square = (np.abs(y - 32 + cy) < 4) & (np.abs(x - 32 + cx) < 4) & ~disc
        image = 20 + 130 * disc - 120 * square + rng.normal(0, 15, (side, side))
        images.append(image.round().astype(np.int16))
        labels.append((3 * disc + 7 * square).astype(np.uint8))
    return np.stack(images), np.stack(labels)


@pytest.fixture(scope="module")
def network() -> Segmenter:
    return train_segmenter(*scene(60, 0), CODEC, count=800)


def test_it_finds_unseen_masks_by_their_ids(network: Segmenter) -> None:
    images, labels = scene(20, 1)
    found = network.predict(images)
    assert found.dtype == np.uint8
    assert found.shape == images.shape
    assert np.nanmean(dice(found, labels, [7, 3]), 0) == pytest.approx([1, 1], abs=0.2)


def test_it_learns_the_pancreas_of_phantoms(phantom_cache: Path) -> None:
    cache = SliceCache.open(phantom_cache)
    data = DataConfig(size=32, augment=None)
    codec = codec_for(cache, data)
    feeds = {s: Feed(cache, data, codec, seed=0, device=torch.device("cpu"), split=s)
             for s in ("train", "heldout")}  # fmt: skip
    network = train_on(feeds["train"], count=1600)
    unseen = feeds["heldout"]
    assert unseen.label_maps is not None
    shown = unseen.label_maps.flatten(1).sum(1) >= 8
    images, labels = unseen.images[shown].numpy(), unseen.label_maps[shown].numpy()
    assert np.mean(dice(network.predict(images), labels, [1])) > 0.4


def test_the_same_seed_gives_the_same_weights_and_another_gives_others() -> None:
    data = scene(8, 0)
    one, same, other = (train_segmenter(*data, CODEC, count=24, seed=s) for s in (4, 4, 5))
    pairs = list(zip(one.state_dict().values(), same.state_dict().values(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(next(iter(one.parameters())), next(iter(other.parameters())))


def test_training_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    train_segmenter(*scene(4, 0), CODEC, count=8)
    assert torch.equal(torch.rand(2), expected)


def test_a_slice_does_not_depend_on_its_neighbours(network: Segmenter) -> None:
    images, _ = scene(9, 2)
    together = network.probabilities(images)
    alone = torch.cat([network.probabilities(image[None]) for image in images])
    assert torch.equal(together, alone)
    assert torch.allclose(network.probabilities(images, batch=4), alone, atol=1e-5)


@pytest.mark.parametrize("side", [8, 20, 33])
def test_any_side_is_taken(side: int) -> None:
    images, labels = scene(4, 0, side)
    network = train_segmenter(images, labels, CODEC, count=8)
    assert network.predict(images).shape == labels.shape


def test_a_file_gives_back_the_same_segmenter(network: Segmenter, tmp_path: Path) -> None:
    save(tmp_path / "s.safetensors", network, {"dice": 0.9})
    again, facts = load(tmp_path / "s.safetensors")
    images, _ = scene(5, 3)
    assert facts == {"dice": 0.9}
    assert list(again.codec.labels.items()) == [("tumour", 7), ("organ", 3)]
    assert torch.equal(again.probabilities(images), network.probabilities(images))
    assert np.array_equal(again.predict(images), network.predict(images))


def test_another_file_is_refused(tmp_path: Path) -> None:
    write_tensors(tmp_path / "w.safetensors", {"a": torch.zeros(1)}, {"kind": "ct"})
    with pytest.raises(WeightsError, match="holds no segmenter"):
        load(tmp_path / "w.safetensors")


def test_mistakes_are_named() -> None:
    images, labels = scene(2, 0)
    with pytest.raises(ConfigError, match="needs labels, and this codec has none"):
        train_segmenter(images, labels, CTCodec((-160, 240), {}))
    with pytest.raises(ConfigError, match="at least 1 slice, asked for 0"):
        train_segmenter(images, labels, CODEC, count=0)
    with pytest.raises(ConfigError, match=r"alike, got \(2, 32, 32\), \(1, 32, 32\)"):
        train_segmenter(images, labels[:1], CODEC)


def test_dice_is_that_of_the_textbook() -> None:
    a = np.array([[[1, 1, 0, 2]], [[0, 0, 0, 2]]], np.uint8)
    b = np.array([[[1, 0, 0, 2]], [[0, 0, 2, 0]]], np.uint8)
    found = dice(a, b, [1, 2])
    assert found[0].tolist() == pytest.approx([2 / 3, 1])
    assert np.isnan(found[1, 0])
    assert found[1, 1] == 0
