"""Distances between two sets of features (n, d), accumulated in float64."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from medaug.seeds import generator

SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
BLOCK = 1000


def frechet(a: Tensor, b: Tensor) -> float:
    """Squared Frechet distance of the Gaussians with the moments of ``a`` and ``b``.

    Dowson and Landau 1982; as FID, Heusel et al. 2017.  Biased upwards at small n: compare only at
    equal n.
    """
    (mean_a, cov_a), (mean_b, cov_b) = _moments(a), _moments(b)
    values, vectors = torch.linalg.eigh(cov_a)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp_min(0).sqrt().sum()
    distance = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    return max(distance.item(), 0.0)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.double()
    return x.mean(0), x.T.cov()


def bandwidths(real: Tensor, seed: int = 0, count: int = 1000) -> list[float]:
    """Kernel widths: ``SCALES`` times the median distance between ``count`` real features."""
    some = real[torch.randperm(len(real), generator=generator(seed, "median"))[:count]].float()
    return [scale * torch.pdist(some).median().item() for scale in SCALES]


def mmd_rbf(a: Tensor, b: Tensor, widths: Sequence[float]) -> float:
    """Squared MMD under the mean of Gaussian kernels exp(-d^2 / 2 width^2), unbiased.

    Gretton et al. 2012, Eq. 3; it may be negative where the two agree.
    """
    n, m, middle = len(a), len(b), b.double().mean(0)
    a, b = a.double() - middle, b.double() - middle
    within_a = (_kernel_sum(a, a, widths) - n) / (n * (n - 1))
    within_b = (_kernel_sum(b, b, widths) - m) / (m * (m - 1))
    return within_a + within_b - 2 * _kernel_sum(a, b, widths) / (n * m)


def _kernel_sum(a: Tensor, b: Tensor, widths: Sequence[float]) -> float:
    total = 0.0
    for rows in a.float().split(BLOCK):
        square = torch.cdist(rows, b.float()).square()
        for width in widths:
            total += (square / (-2 * width**2)).exp().sum(dtype=torch.float64).item()
    return total / len(widths)


def mmd_linear(a: Tensor, b: Tensor, batch: int) -> float:
    """The squared distance of mini-batch means, averaged over batches: GVAE's lineage's "MMD".

    Linear kernel, biased: a perfect generator scores ``linear_floor``, not 0.
    """
    pairs = list(zip(a.double().split(batch), b.double().split(batch), strict=False))
    gaps = [(x.mean(0) - y.mean(0)).square().sum() for x, y in pairs if len(x) == len(y) == batch]
    return torch.stack(gaps).mean().item()


def linear_floor(real: Tensor, batch: int) -> float:
    """What ``mmd_linear`` is on average for a perfect generator: 2 trace(covariance) / batch."""
    return 2 * real.double().var(0).sum().item() / batch


def kid(a: Tensor, b: Tensor, subsets: int = 100, size: int = 1000, seed: int = 0) -> float:
    """Kernel inception distance (Binkowski et al. 2018): unbiased MMD, kernel (x.y / d + 1)^3."""
    size = min(size, len(a), len(b))
    draws = generator(seed, "kid")
    values = []
    for _ in range(subsets):
        x = a[torch.randperm(len(a), generator=draws)[:size]].double()
        y = b[torch.randperm(len(b), generator=draws)[:size]].double()
        xx, yy, xy = (((u @ v.T) / u.shape[1] + 1) ** 3 for u, v in ((x, x), (y, y), (x, y)))
        within = (xx.sum() - xx.trace() + yy.sum() - yy.trace()) / (size * (size - 1))
        values.append((within - 2 * xy.mean()).item())
    return math.fsum(values) / subsets
