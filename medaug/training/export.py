"""What a snapshot tells besides weights: the header that readers of them need, and a picture."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medaug.core.codec import CTCodec
from medaug.core.config import Config
from medaug.core.seeds import generator
from medaug.data.cache.prepare import SliceCache
from medaug.data.feed.continuity import adjoining
from medaug.data.feed.feed import Feed
from medaug.models.base import Model
from medaug.runtime.pictures import grid

GRID = 16


class Exporter:
    """Describes and draws the generators of one run.

    Args:
        config: of the run.
        cache: what it learns from.
        feed: its batches.
    """

    def __init__(self, config: Config, cache: SliceCache, feed: Feed) -> None:
        self.config, self.cache, self.feed = config, cache, feed

    def header(self, images: int, precision: str, privacy: dict[str, Any] | None) -> dict[str, Any]:
        """What a reader of the weights needs to know: config, codec, shape and geometry."""
        shape, condition = self.feed.shape, self.feed.condition
        return {
            "kind": self.cache.content,
            "precision": precision,
            "images": images,
            **({} if privacy is None else {"privacy": privacy}),
            "config": self.config.dump(),
            "codec": self.feed.codec.to_dict(),
            "shape": vars(shape),
            "classes": list(condition.classes),
            "condition": list(condition.names),
            "conditions": [list(row) for row in condition.rows],
            "affine": typical_affine(self.cache).tolist(),
            "adjoining": self.adjoining,
            "source": self.cache.source,
        }

    @cached_property
    def adjoining(self) -> dict[str, Any] | None:
        """How real slices follow each other, for stacks to be held against."""
        codec = self.feed.codec
        if not isinstance(codec, CTCodec):
            return None
        return adjoining(self.cache, self.config.data, codec.labels, codec.window_hu)

    @torch.no_grad()
    def draw(self, model: Model, run: Path, images: int) -> None:
        """Samples of the same noise, and for the same masks, at every snapshot, as one picture."""
        draws = generator(self.config.train.seed, "grid")
        noise = torch.randn(GRID, *model.noise_shape, generator=draws).to(self.feed.device)
        codec, label = self.feed.codec, None
        if isinstance(codec, CTCodec) and codec.told:
            order = torch.randperm(len(self.feed), generator=draws).repeat(GRID)[:GRID]
            cond, label = self.feed.at(order).cond, self.feed.marks(order)
        else:
            cond = self.feed.condition.at(self.config.train.seed, range(GRID))
            cond = None if cond is None else cond.to(self.feed.device)
        image, drawn = codec.decode(model.decode(model.prior(noise, cond), cond))
        label = drawn if label is None else label
        path = run / "samples" / f"{images:010d}.png"
        window = (0.0, 255.0)
        if isinstance(codec, CTCodec):
            window = codec.window_hu
        masks = None if label is None else label.cpu().numpy()
        grid(image.cpu().numpy(), masks, path, window=window)


def typical_affine(cache: SliceCache) -> np.ndarray:
    """The affine of a synthetic slice: the cache's pixel and median step, origin at its centre."""
    if cache.kind == "image":
        return np.eye(4)
    spacing = np.median([case.spacing_mm for case in cache.cases.values()], axis=0)
    size = next(iter(cache.cases.values())).image.shape[-1]
    affine = np.diag([*spacing, 1.0])
    affine[:2, 3] = -spacing[:2] * (size - 1) / 2
    return affine
