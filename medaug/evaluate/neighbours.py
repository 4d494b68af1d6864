"""Precision, recall, density and coverage from nearest neighbours in a feature space."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BLOCK = 500
ROUNDING = 1e-13
"""Squared distances below this share of the rows' squared lengths are rounding."""


@dataclass(frozen=True)
class Cover:
    """How two sets of features lie in each other.

    Attributes:
        precision: share of fakes inside the ball of some real one (Kynkaanniemi et al. 2019).
        recall: share of reals inside the ball of some fake.
        density: real balls around a fake, over k; may exceed 1 (Naeem et al. 2020).
        coverage: share of reals whose ball holds a fake.
    """

    precision: float
    recall: float
    density: float
    coverage: float


@dataclass(frozen=True)
class Held:
    """Which balls hold which points.

    Attributes:
        around: how many balls hold each point, int64 (m,).
        holds: whether each ball holds a point, bool (n,).
    """

    around: Tensor
    holds: Tensor


def cover(real: Tensor, fake: Tensor, k: int = 5) -> Cover:
    """Compare features (n, d) and (m, d); a ball reaches to the k-th neighbour, itself excluded."""
    by_real = held(real, radii(real, k), fake)
    by_fake = held(fake, radii(fake, k), real)
    return Cover(
        precision=(by_real.around > 0).double().mean().item(),
        recall=(by_fake.around > 0).double().mean().item(),
        density=by_real.around.double().mean().item() / k,
        coverage=by_real.holds.double().mean().item(),
    )


def radii(x: Tensor, k: int, scans: Tensor | None = None) -> Tensor:
    """Distance of each of ``x`` (n, d) to its k-th nearest other, (n,) float64.

    Args:
        x: features.
        k: which neighbour.
        scans: rows (n, 2) of scan and place in it, from ``scans_of``: other places of the same
            scan are no neighbours, since a slice's own scan says nothing of other patients; the
            same place again is a copy, and counts.
    """
    middle, found = x.double().mean(0), []
    rows = x.double() - middle
    for start in range(0, len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        apart = distances(rows[part], rows)
        apart[torch.arange(len(apart)), torch.arange(start, start + len(apart))] = torch.inf
        if scans is not None:
            same = scans[part, None, 0] == scans[None, :, 0]
            apart[same & (scans[part, None, 1] != scans[None, :, 1])] = torch.inf
        found.append(apart.topk(k, largest=False).values[:, -1])
    return torch.cat(found)


def held(centres: Tensor, radius: Tensor, points: Tensor) -> Held:
    """Which open balls (n, d), (n,) hold which of the points (m, d)."""
    middle = centres.double().mean(0)
    balls, around = centres.double() - middle, []
    holds = torch.zeros(len(balls), dtype=torch.bool)
    for block in (points.double() - middle).split(BLOCK):
        within = distances(block, balls) < radius
        around.append(within.sum(1))
        holds |= within.any(0)
    return Held(torch.cat(around), holds)


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances (i, j) of rows (i, d) and (j, d) in float64; 0 between equal rows."""
    size_a, size_b = a.square().sum(1)[:, None], b.square().sum(1)
    square = size_a + size_b - 2 * a @ b.T
    return square.masked_fill_(square < ROUNDING * (size_a + size_b), 0).sqrt_()


def scans_of(cases: Sequence[str], heights: np.ndarray, k: int) -> Tensor | None:
    """Scan and place (n, 2) of slices, for ``radii``.

    None where some slice has fewer than ``k`` others outside its scan: then its own scan counts.
    """
    _, number, sizes = np.unique(np.asarray(cases), return_inverse=True, return_counts=True)
    if len(sizes) < 3 or len(number) - sizes.max() < k:
        return None
    return torch.from_numpy(np.stack([number, np.asarray(heights)], 1))
