"""Compute distances between two sets of features (n, d), in float64 and in blocks of rows.

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
"""Group (n,) of each row, from 0; groups are left out in turn for the standard error."""


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
        kernel: takes two blocks of rows (i, d) and (j, d) to (i, j).
        groups: of ``b``, (m,); None for one group.
        middle: what is subtracted first (d,), which a kernel of distances allows; None for nothing.
    """

    def __init__(
        self, b: Tensor, kernel: Kernel, groups: Groups | None = None, middle: Tensor | None = None
    ) -> None:
        self.kernel, self.middle = kernel, middle
        self.b, self.groups = self._prepared(b, groups)
        self.within = self._within(self.b, self.groups)

    def of(self, a: Tensor, groups: Groups | None = None) -> Estimate:
        """Compare features (n, d) of ``groups`` (n,); the value may be negative where sets agree.

        Its standard error is from leaving out one group of either set at a time.
        """
        rows, groups = self._prepared(a, groups)
        ours, theirs = self._within(rows, groups), self.within
        across = self._between(rows, self.b, groups, self.groups)
        counts_a, counts_b = (
            torch.from_numpy(np.bincount(g)).double() for g in (groups, self.groups)
        )

        def value(kept_a: Tensor, kept_b: Tensor) -> float:
            n, m = kept_a @ counts_a, kept_b @ counts_b
            inside = kept_a @ ours @ kept_a / (n * (n - 1))
            inside_b = kept_b @ theirs @ kept_b / (m * (m - 1))
            return (inside + inside_b - 2 * (kept_a @ across @ kept_b) / (n * m)).item()

        every_a, every_b = (torch.ones_like(counts) for counts in (counts_a, counts_b))
        errors = [
            jackknife([value(kept, every_b) for kept in _leaving_out(counts_a)]),
            jackknife([value(every_a, kept) for kept in _leaving_out(counts_b)]),
        ]
        return Estimate(value(every_a, every_b), math.hypot(*errors))

    def _prepared(self, x: Tensor, groups: Groups | None) -> tuple[Tensor, Groups]:
        x = x.double() if self.middle is None else x.double() - self.middle
        return x, np.zeros(len(x), np.int64) if groups is None else groups

    def _within(self, x: Tensor, groups: Groups) -> Tensor:
        """Kernel sums (g, g) over pairs of different rows of one set."""
        own = torch.cat([self.kernel(rows, rows).diagonal() for rows in x.split(BLOCK)])
        total = self._between(x, x, groups, groups)
        total.diagonal().index_add_(0, torch.from_numpy(groups), -own)
        return total

    def _between(self, a: Tensor, b: Tensor, groups_a: Groups, groups_b: Groups) -> Tensor:
        """Kernel sums (g, h) over the pairs of rows of two groups."""
        columns = torch.nn.functional.one_hot(torch.from_numpy(groups_b)).double()
        total = torch.zeros(int(groups_a.max()) + 1, columns.shape[1], dtype=torch.float64)
        for start in range(0, len(a), BLOCK):
            part = self.kernel(a[start : start + BLOCK], b) @ columns
            total.index_add_(0, torch.from_numpy(groups_a[start : start + BLOCK]), part)
        return total


def _leaving_out(counts: Tensor) -> list[Tensor]:
    """Weights (g,) of the groups without one of them, where two rows and more are left."""
    rest = 1 - torch.eye(len(counts), dtype=torch.float64)
    return [kept for kept, n in zip(rest, counts, strict=True) if n and kept @ counts > 1]


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
