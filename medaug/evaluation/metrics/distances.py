"""Distances between two sets of features (n, d), computed in float64, in blocks of rows.

MONAI has two of them.  Its Frechet distance calls ``scipy.linalg.sqrtm`` with an argument that
SciPy 1.18 drops, so the trace of the root is taken here from eigenvalues; its MMD has the linear
kernel alone and whole kernel matrices in memory.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor

from medaug.core.seeds import generator
from medaug.evaluation.metrics.intervals import Estimate, jackknife

SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
BLOCK = 500

Kernel = Callable[[Tensor, Tensor], Tensor]
Groups = np.ndarray[tuple[int], np.dtype[np.int64]]
"""Which group (n,) each row is of, from 0; groups are left out in turn for the standard error."""


def frechet(a: Tensor, b: Tensor) -> float:
    """Squared Frechet distance of the Gaussians with the moments of ``a`` and ``b``.

    Dowson and Landau 1982; as FID, Heusel et al. 2017.  Biased upwards at small n: compare only at
    equal n.
    """
    return _gaussians(_moments(a), _moments(b))


def frechet_estimate(a: Tensor, b: Tensor, groups_a: Groups, groups_b: Groups) -> Estimate:
    """``frechet`` with its standard error, from leaving out one group of either at a time."""
    whole_a, whole_b = _moments(a), _moments(b)
    errors = [
        jackknife([_gaussians(part, whole_b) for part in _without(a, groups_a)]),
        jackknife([_gaussians(whole_a, part) for part in _without(b, groups_b)]),
    ]
    return Estimate(_gaussians(whole_a, whole_b), math.hypot(*errors), 0.0)


def _gaussians(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> float:
    (mean_a, cov_a), (mean_b, cov_b) = a, b
    values, vectors = torch.linalg.eigh(cov_a)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp_min(0).sqrt().sum()
    distance = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    return max(distance.item(), 0.0)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.double()
    return x.mean(0), x.T.cov()


def _without(x: Tensor, groups: Groups) -> list[tuple[Tensor, Tensor]]:
    """Moments of the rows without each group, where two rows and more are left."""
    rest = [x[torch.from_numpy(groups != g)] for g in np.unique(groups)]
    return [_moments(rows) for rows in rest if len(rows) > 1]


def bandwidths(real: Tensor, seed: int = 0, count: int = 1000) -> list[float]:
    """Kernel widths: ``SCALES`` times the median distance between ``count`` real features."""
    some = real[torch.randperm(len(real), generator=generator(seed, "median"))[:count]].float()
    return [scale * torch.pdist(some).median().item() for scale in SCALES]


def gaussian(widths: Sequence[float]) -> Kernel:
    """The mean of exp(-|x - y|^2 / 2 width^2) over the widths."""

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        square = (x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T).clamp_min(0)
        total = torch.zeros_like(square)
        for width in widths:
            total += (square / (-2 * width**2)).exp_()
        return total.div_(len(widths))

    return kernel


def cubic(x: Tensor, y: Tensor) -> Tensor:
    """(x.y / d + 1)^3, the kernel of KID (Binkowski et al. 2018)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


class Mmd:
    """Unbiased squared MMD of other sets from one (Gretton et al. 2012, Eq. 3).

    Kernel sums are kept by pairs of groups, from which every value with a group left out follows.

    Args:
        b: features (m, d) that all are compared with.
        kernel: of two blocks of rows, (i, d) and (j, d), to (i, j).
        groups: of ``b``.
        middle: what is subtracted first, which a kernel of distances allows; None for nothing.
    """

    def __init__(
        self, b: Tensor, kernel: Kernel, groups: Groups | None = None, middle: Tensor | None = None
    ) -> None:
        self.kernel, self.middle = kernel, middle
        self.b, self.groups = self._placed(b), _grouped(len(b), groups)
        self.within, self.each = self._inside(self.b, self.groups)

    def of(self, a: Tensor, groups: Groups | None = None) -> Estimate:
        """Of features (n, d), with its standard error; it may be negative where the two agree."""
        rows, groups = self._placed(a), _grouped(len(a), groups)
        within, each = self._inside(rows, groups)
        across = self._sums(rows, self.b, groups, self.groups)
        mine, theirs = _Set(within, each, groups), _Set(self.within, self.each, self.groups)
        cross = across.sum().item() / (mine.size * theirs.size)
        errors = [
            jackknife(
                [
                    mine.mean(g) + theirs.mean() - 2 * _mean_without(across, mine, theirs, g)
                    for g in mine.removable
                ]
            ),
            jackknife(
                [
                    mine.mean() + theirs.mean(g) - 2 * _mean_without(across.T, theirs, mine, g)
                    for g in theirs.removable
                ]
            ),
        ]
        return Estimate(mine.mean() + theirs.mean() - 2 * cross, math.hypot(*errors))

    def _placed(self, x: Tensor) -> Tensor:
        return x.double() if self.middle is None else x.double() - self.middle

    def _inside(self, x: Tensor, groups: Groups) -> tuple[Tensor, Tensor]:
        """Kernel sums between groups, and of each group's rows with themselves."""
        own = torch.cat([self.kernel(rows, rows).diagonal() for rows in x.split(BLOCK)])
        each = torch.zeros(int(groups.max()) + 1, dtype=torch.float64)
        return self._sums(x, x, groups, groups), each.index_add(0, torch.from_numpy(groups), own)

    def _sums(self, a: Tensor, b: Tensor, groups_a: Groups, groups_b: Groups) -> Tensor:
        columns = torch.nn.functional.one_hot(torch.from_numpy(groups_b)).double()
        total = torch.zeros(int(groups_a.max()) + 1, columns.shape[1], dtype=torch.float64)
        for start in range(0, len(a), BLOCK):
            part = self.kernel(a[start : start + BLOCK], b) @ columns
            total.index_add_(0, torch.from_numpy(groups_a[start : start + BLOCK]), part)
        return total


class _Set:
    """Mean of the kernel over pairs of different rows, whole or with a group left out."""

    def __init__(self, within: Tensor, each: Tensor, groups: Groups) -> None:
        self.within, self.each = within, each
        self.counts = np.bincount(groups, minlength=len(each))
        self.size = len(groups)

    @property
    def removable(self) -> list[int]:
        """Groups without which two rows and more are left."""
        return [g for g, count in enumerate(self.counts) if count and self.size - count > 1]

    def mean(self, left_out: int | None = None) -> float:
        total, n = (self.within.sum() - self.each.sum()).item(), self.size
        if left_out is not None:
            row, column = self.within[left_out].sum(), self.within[:, left_out].sum()
            gone = row + column - self.within[left_out, left_out] - self.each[left_out]
            total, n = total - gone.item(), n - int(self.counts[left_out])
        return total / (n * (n - 1))


def _mean_without(across: Tensor, mine: _Set, theirs: _Set, group: int) -> float:
    left = (across.sum() - across[group].sum()).item()
    return left / ((mine.size - int(mine.counts[group])) * theirs.size)


def _grouped(n: int, groups: Groups | None) -> Groups:
    return np.zeros(n, np.int64) if groups is None else groups


def linear_gaps(a: Tensor, b: Tensor, batch: int) -> list[Tensor]:
    """The squared distance of the means of each pair of whole mini-batches.

    Its mean over the batches is the "MMD" of the GVAE papers: of a linear kernel and biased, so a
    perfect generator scores ``linear_floor``, not 0.
    """
    pairs = list(zip(a.double().split(batch), b.double().split(batch), strict=False))
    return [(x.mean(0) - y.mean(0)).square().sum() for x, y in pairs if len(x) == len(y) == batch]


def histogram_distance(
    a: np.ndarray[Any, np.dtype[np.float64]], b: np.ndarray[Any, np.dtype[np.float64]]
) -> float:
    """1-Wasserstein distance, in bins, of counts (bins,); not a number where one is empty."""
    if not a.sum() or not b.sum():
        return math.nan
    bins = np.arange(len(a))
    return float(wasserstein_distance(bins, bins, a, b))


def linear_floor(real: Tensor, batch: int) -> float:
    """What ``linear_gaps`` are on average for a perfect generator: 2 trace(covariance) / batch."""
    return 2 * real.double().var(0).sum().item() / batch
