"""Slices to codes and back: reconstruct, walk between two, find what an attribute adds.

A slice's code is the mean of q(z | x), which has less noise than a draw of it.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from medaug.core.errors import ConfigError
from medaug.synthesis.generator import Generator


class Slices(NamedTuple):
    """Slices in stored units (n, y, x[, 3]), label maps or None, and rows (n, dim) or None."""

    images: np.ndarray
    labels: np.ndarray | None = None
    cond: Tensor | None = None

    def part(self, which: slice) -> "Slices":
        """Some of them."""
        labels = None if self.labels is None else self.labels[which]
        return Slices(self.images[which], labels, None if self.cond is None else self.cond[which])


def reconstruct(generator: Generator, slices: Slices) -> Slices:
    """Each slice encoded and decoded again, with the label map that it was given, if it was.

    Raises:
        ConfigError: the model has no encoder, or the slices do not fit it.
    """
    images, labels = generator.decode(generator.encode(*slices), slices.cond)
    return Slices(images, slices.labels if labels is None else labels, slices.cond)


def walk(a: Tensor, b: Tensor, steps: int, spherical: bool = False) -> Tensor:
    """Points (n, steps, ...) from ``a`` to ``b`` (n, ...), both included.

    Args:
        a: where each walk starts.
        b: where it ends.
        steps: points on it, at least 2.
        spherical: along the great arc, for noise, whose mass lies on a shell; else straight.

    Raises:
        ConfigError: fewer than 2 steps.
    """
    if steps < 2:
        raise ConfigError(f"steps must be at least 2, got {steps}")
    t = torch.linspace(0, 1, steps, device=a.device)[:, None]
    start, end = a.flatten(1)[:, None], b.flatten(1)[:, None]
    share_a, share_b = 1 - t, t
    if spherical:
        cosine = torch.cosine_similarity(start, end, dim=-1)[..., None].clamp(-1, 1)
        angle = cosine.acos()
        apart = angle.sin() > 1e-4  # else the arc is straight, or not defined
        sine = torch.where(apart, angle.sin(), 1.0)
        share_a = torch.where(apart, ((1 - t) * angle).sin() / sine, 1 - t)
        share_b = torch.where(apart, (t * angle).sin() / sine, t)
    return (share_a * start + share_b * end).reshape(len(a), steps, *a.shape[1:])


def interpolate(
    generator: Generator,
    a: Tensor,
    b: Tensor,
    steps: int = 9,
    *,
    conds: tuple[Tensor | None, Tensor | None] = (None, None),
    spherical: bool = False,
    noise: bool = False,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Slices decoded along walks between codes.

    Args:
        generator: the model.
        a: codes (n, ...) where the walks start, or noise.
        b: codes where they end.
        steps: slices on a walk, both ends included.
        conds: rows (n, dim) of both ends; conditions go along in a straight line.
        spherical: whether to walk on great circles, as between two noises, not on lines.
        noise: whether ``a`` and ``b`` are noise, which the prior makes codes of.

    Returns:
        Images (n, steps, y, x) in stored units, and label maps or None.
    """
    points = walk(a, b, steps, spherical).flatten(0, 1)
    cond = None
    if conds[0] is not None and conds[1] is not None:
        cond = walk(conds[0], conds[1], steps).flatten(0, 1)
    codes = generator.prior(points, cond) if noise else points
    images, labels = generator.decode(codes, cond)
    shape = (len(a), steps, *images.shape[1:])
    return images.reshape(shape), None if labels is None else labels.reshape(shape)


def attribute_vector(codes: Tensor, present: Tensor) -> Tensor:
    """Mean code of the slices that have an attribute, less that of those that have not.

    Args:
        codes: posterior means (n, ...).
        present: bool (n,).

    Raises:
        ConfigError: all slices have it, or none.
    """
    present = present.to(codes.device)
    have = int(present.sum())
    if have in (0, len(present)):
        raise ConfigError(
            f"an attribute's vector needs slices with and without it, got {have} with and "
            f"{len(present) - have} without"
        )
    return codes[present].mean(0) - codes[~present].mean(0)
