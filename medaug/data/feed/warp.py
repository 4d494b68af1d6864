"""Warp training slices at random: small affine motions and a smooth elastic field, no flips."""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

ELASTIC_GRID = 6


def field(
    b: int,
    sides: tuple[int, int],
    generator: torch.Generator,
    *,
    rotate: float,
    scale: float,
    shift: float,
    elastic: float,
) -> Tensor:
    """Draw where ``b`` images take their pixels from: a field (b, h, w, 2) in [-1, 1].

    Args:
        b: how many images, each moved on its own.
        sides: height and width.
        generator: a CPU generator; all draws come from it.
        rotate: largest rotation, radians.
        scale: largest relative change of size.
        shift: largest shift, share of the field of view.
        elastic: standard deviation of the displacements on a 6 x 6 grid, half fields.
    """
    draws, bumps = motions(b, generator, elastic)
    return moved(draws, bumps, sides, rotate=rotate, scale=scale, shift=shift)


def motions(b: int, generator: torch.Generator, elastic: float) -> tuple[Tensor, Tensor | None]:
    """Draw all that is random of a ``field``.

    Args:
        b: how many images.
        generator: a CPU generator; all draws come from it.
        elastic: standard deviation of the displacements on a 6 x 6 grid, half fields.

    Returns:
        four numbers in [-1, 1] an image (4, b), and its displacements (b, 2, 6, 6), or None if
        ``elastic`` is 0.
    """
    draws = torch.rand(4, b, generator=generator) * 2 - 1
    if not elastic:
        return draws, None
    return draws, torch.randn(b, 2, ELASTIC_GRID, ELASTIC_GRID, generator=generator) * elastic


def moved(
    draws: Tensor,
    bumps: Tensor | None,
    sides: tuple[int, int],
    *,
    rotate: float,
    scale: float,
    shift: float,
) -> Tensor:
    """Compute the ``field`` (b, h, w, 2) of some ``motions``, on the device where they are.

    Args:
        draws: numbers in [-1, 1], (4, b).
        bumps: displacements (b, 2, 6, 6), half fields, or None.
        sides: height and width.
        rotate: largest rotation, radians.
        scale: largest relative change of size.
        shift: largest shift, share of the field of view.
    """
    b, (h, w) = draws.shape[1], sides
    angle, zoom = draws[0] * rotate, 1 + draws[1] * scale
    dx, dy = draws[2] * 2 * shift, draws[3] * 2 * shift
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    theta = torch.stack([cos, -sin, dx, sin, cos, dy], 1).reshape(2 * b, 3)
    grid = (theta @ _pixels(h, w, draws.device)).reshape(b, 2, h, w)
    if bumps is not None:
        grid += F.interpolate(bumps, sides, mode="bicubic", align_corners=True)
    return grid.permute(0, 2, 3, 1)


def warp(x: Tensor, grid: Tensor) -> Tensor:
    """Warp images (b, c, h, w) in [-1, 1] by a ``field``; what comes in is -1 (air, no mask).

    Bicubic, since bilinear sampling takes up to a tenth off the contrast of small organs, which a
    generator would then learn.
    """
    grid = grid.to(x.device, non_blocking=True)
    moved = F.grid_sample(x + 1, grid, mode="bicubic", align_corners=False)
    return moved.clamp_(0, 2).sub_(1)


def warp_ids(ids: Tensor, grid: Tensor, known: Tensor) -> Tensor:
    """Warp label maps (b, h, w) of the ids ``known`` by a ``field``; what comes in is 0.

    A pixel takes the id with the largest share of it, as when scans are cut, so that edges stay as
    smooth as they were.
    """
    grid = grid.to(ids.device, non_blocking=True)
    known = known.to(ids.device, non_blocking=True)
    planes = (ids[:, None] == known[:, None, None]).float()
    inside = F.grid_sample(planes, grid, align_corners=False)
    outside = 1 - inside.sum(1, keepdim=True)
    which = torch.cat([outside, inside], 1).argmax(1)
    return torch.cat([known.new_zeros(1), known])[which].to(ids.dtype)


@lru_cache(maxsize=16)
def _pixels(h: int, w: int, device: torch.device) -> Tensor:
    """Homogeneous pixel centres (3, h * w): across and down in [-1, 1], and ones."""
    across = ((torch.arange(w) * 2 + 1) / w - 1).expand(h, w)
    down = ((torch.arange(h) * 2 + 1) / h - 1)[:, None].expand(h, w)
    return torch.stack([across, down, torch.ones(h, w)]).flatten(1).to(device)


def is_still(rotate: float, scale: float, shift: float, elastic: float) -> bool:
    """Whether these amounts leave every image as it is."""
    return math.isclose(max(rotate, scale, shift, elastic), 0)
