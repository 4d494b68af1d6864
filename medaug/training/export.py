"""Describe and draw the generator of a snapshot: the header of its weight file, and a picture."""

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
"""Samples in the picture of a snapshot."""


class Exporter:
    """Describe and draw the generators of one run.

    Args:
        config: of the run.
        cache: the slices it is trained on.
        feed: its batches.
    """

    def __init__(self, config: Config, cache: SliceCache, feed: Feed) -> None:
        self.config, self.cache, self.feed = config, cache, feed

    def header(self, images: int, precision: str, privacy: dict[str, Any] | None) -> dict[str, Any]:
        """Return what a reader of the weights needs: config, codec, shape, condition, geometry.

        Args:
            images: seen so far.
            precision: ``float32`` or ``bfloat16``.
            privacy: the guarantee of private training, or None.
        """
        condition = self.feed.condition
        return {
            "kind": self.cache.content,
            "precision": precision,
            "images": images,
            **({} if privacy is None else {"privacy": privacy}),
            "config": self.config.dump(),
            "codec": self.feed.codec.to_dict(),
            "shape": vars(self.feed.shape),
            "classes": list(condition.classes),
            "condition": list(condition.names),
            "conditions": [list(row) for row in condition.rows],
            "affine": typical_affine(self.cache).tolist(),
            "adjoining": self.adjoining,
            "source": self.cache.source,
        }

    @cached_property
    def adjoining(self) -> dict[str, Any] | None:
        """How real neighbouring slices differ, which synthetic stacks are compared with."""
        codec = self.feed.codec
        if not isinstance(codec, CTCodec):
            return None
        return adjoining(self.cache, self.config.data, codec.labels, codec.window_hu)

    @torch.no_grad()
    def draw(self, model: Model, run: Path, images: int) -> None:
        """Write samples as one picture; noise, condition and masks are the same at every snapshot.

        Args:
            model: the averaged generator.
            run: the run folder, which gets ``samples/<images>.png``.
            images: seen so far.
        """
        feed, seed = self.feed, self.config.train.seed
        draws = generator(seed, "grid")
        noise = torch.randn(GRID, *model.noise_shape, generator=draws).to(feed.device)
        codec, label = feed.codec, None
        if isinstance(codec, CTCodec) and codec.layout_labels:
            order = torch.randperm(len(feed), generator=draws).repeat(GRID)[:GRID]
            cond, label = feed.at(order).cond, feed.marks(order)
        else:
            cond = feed.condition.at(seed, range(GRID))
            cond = None if cond is None else cond.to(feed.device)
        image, drawn = codec.decode(model.decode(model.prior(noise, cond), cond))
        label = drawn if label is None else label
        grid(
            image.cpu().numpy(),
            None if label is None else label.cpu().numpy(),
            run / "samples" / f"{images:010d}.png",
            window=codec.window_hu if isinstance(codec, CTCodec) else (0.0, 255.0),
        )


def typical_affine(cache: SliceCache) -> np.ndarray:
    """The affine (4, 4) of a synthetic slice, voxel indices to mm, origin at the slice's centre.

    Pixel size and slice spacing are the medians over the cache's scans; of pictures the identity.
    """
    if cache.kind == "image":
        return np.eye(4)
    spacing = np.median([case.spacing_mm for case in cache.cases.values()], axis=0)
    size = next(iter(cache.cases.values())).image.shape[-1]
    affine = np.diag([*spacing, 1.0])
    affine[:2, 3] = -spacing[:2] * (size - 1) / 2
    return affine
