"""Find which slices lie near others in a feature space, and how typical they are of them.

``radii`` and ``held`` give precision and recall (Kynkaanniemi et al. 2019) and density and coverage
(Naeem et al. 2020).  ``typical`` gives alpha-precision and beta-recall (Alaa et al. 2022): the
alpha-support of a set is the ball about its mean that holds the share alpha of it.  Their paper
first maps features onto a sphere by a trained network; here the mean of the given features is the
centre, the "naive" form of its authors, so that nothing has to be trained and repeated.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

BLOCK = 500
ROUNDING = 1e-13
"""Squared distances below this share of the rows' squared lengths are rounding."""

SHARES = np.linspace(0, 1, 30)

Row = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Held:
    """Which balls hold which points.

    Attributes:
        around: how many balls hold each point, int64 (m,).
        holds: whether each ball holds a point, bool (n,).
    """

    around: Tensor
    holds: Tensor


@dataclass(frozen=True)
class Typical:
    """How far out fakes lie among reals, and reals among fakes.

    Attributes:
        rank: share of the reals that lie farther in than each fake, (m,); 1 beyond all of them.
        reached: share of the fakes that lie farther in than the one that reaches each real slice,
            (n,); above 1 where none does.
    """

    rank: Row
    reached: Row


def radii(x: Tensor, k: int, scans: Tensor | None = None) -> Tensor:
    """Distance (n,) float64 of each row of features to its k-th nearest other row.

    Args:
        x: features (n, d).
        k: which neighbour, from 1.
        scans: scan and place in it (n, 2), or None.  Other places of the same scan are then no
            neighbours, since a slice's own scan says nothing of other patients; the same place
            again is a copy, and counts.
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
    """Scan and place (n, 2) of slices for ``radii``; None unless each has ``k`` in other scans."""
    _, number, sizes = np.unique(np.asarray(cases), return_inverse=True, return_counts=True)
    if len(sizes) < 3 or len(number) - sizes.max() < k:
        return None
    return torch.from_numpy(np.stack([number, np.asarray(heights)], 1))


def typical(real: Tensor, fake: Tensor, radius: Tensor) -> Typical:
    """Place fake features (m, d) about the middle of real ones (n, d), and the other way round.

    A real slice is reached where its nearest fake lies within its ``radius`` (n,), the distance to
    the nearest other real one.
    """
    real, fake = real.double(), fake.double()
    inner = (real - real.mean(0)).norm(dim=1).sort().values
    rank = torch.searchsorted(inner, (fake - real.mean(0)).norm(dim=1)) / len(inner)
    spread = (fake - fake.mean(0)).norm(dim=1)
    order = torch.searchsorted(spread.sort().values, spread) / len(spread)
    reached = []
    for start in range(0, len(real), BLOCK):
        nearest = distances(real[start : start + BLOCK], fake).min(1)
        out = order[nearest.indices]
        reached.append(torch.where(nearest.values <= radius[start : start + BLOCK], out, 2.0))
    return Typical(rank.double().numpy(), torch.cat(reached).double().numpy())


def curve(places: Row, weights: Row) -> Row:
    """Weighted share of ``rank`` or ``reached`` (n,) up to each of ``SHARES``.

    Of ranks that is the alpha-precision, of ``reached`` the beta-recall.
    """
    return np.asarray(weights @ (places[:, None] <= SHARES) / weights.sum())


def integrated(places: Row, weights: Row) -> float:
    """1 - 2 times the mean distance of their ``curve`` from the diagonal; 1 at best, 0 at worst."""
    return float(1 - np.abs(SHARES - curve(places, weights)).sum() / SHARES.sum())
