"""Real slices of a cache for a trained model: checked to fit it, and chosen by address."""

import numpy as np
import torch
from torch import Tensor

from medaug.core.errors import ConfigError
from medaug.core.seeds import generator as address
from medaug.data.cache.prepare import SliceCache
from medaug.data.feed.condition import declared
from medaug.data.feed.feed import Feed
from medaug.evaluation.latent.codes import Slices
from medaug.synthesis.generator import Generator


def open_feed(generator: Generator, cache: SliceCache, split: str = "heldout") -> Feed:
    """The slices of a cache as the model's training saw them, unwarped, on the CPU.

    Raises:
        ConfigError: the cache does not fit the model.
        DataError: no slice of the split qualifies.
    """
    check_fit(generator, cache)
    if not cache.split[split]:
        split = "train"
    data = generator.settings.data.model_copy(update={"augment": None})
    return Feed(cache, data, generator.codec, seed=0, device=torch.device("cpu"), split=split)


def check_fit(generator: Generator, cache: SliceCache) -> None:
    """Refuse a cache whose slices the model cannot read.

    Raises:
        ConfigError: naming what differs.
    """
    condition = declared(cache, generator.settings.data)
    there = {name: cache.labels.get(name) for name in generator.labels}
    for what, found, wanted in (
        ("kind", cache.content, generator.kind),
        ("size", cache.size, generator.size),
        ("channels", cache.channels, generator.channels),
        ("labels", there, generator.labels),
        ("classes", condition.classes, generator.classes),
    ):
        if found != wanted:
            raise ConfigError(
                f"{cache.path}: its {what} {found} differ from the model's {wanted}; "
                "name the cache it was trained on"
            )


def pick(feed: Feed, index: Tensor) -> Slices:
    """The slices at ``index``; label maps hold the labels that the model draws."""
    labels = None
    marks = feed.marks(index)
    if marks is not None:
        maps = marks.numpy()
        labels = np.where(np.isin(maps, list(feed.labels.values())), maps, 0).astype(np.uint8)
    return Slices(feed.stored(index).numpy(), labels, feed.at(index).cond)


def show(feed: Feed, count: int, seed: int) -> Slices:
    """``count`` slices by an addressed draw, of those like the training's.

    Raises:
        ConfigError: there are not as many.
    """
    able = torch.ones(len(feed), dtype=torch.bool)
    if feed.labels and feed.data.require_label:
        able = torch.stack([feed.shows(name) for name in feed.labels]).any(0)
    places = able.nonzero()[:, 0]
    if len(places) < count:
        raise ConfigError(
            f"rows: {count} slices are needed, {feed.cache.path} has {len(places)} to show; "
            "ask for fewer"
        )
    order = torch.randperm(len(places), generator=address(seed, "explore"))
    return pick(feed, places[order[:count]])
