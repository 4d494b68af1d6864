"""Distances and neighbour counts against closed forms and independent libraries."""

import math

import numpy as np
import pytest
import torch
from scipy import linalg
from sklearn.metrics.pairwise import polynomial_kernel, rbf_kernel

from medaug.evaluate.distances import (
    bandwidths,
    frechet,
    kid,
    linear_floor,
    mmd_linear,
    mmd_rbf,
)
from medaug.evaluate.neighbours import cover, radii


def normal(count: int, dim: int, seed: int) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def test_frechet_of_exact_gaussians_is_its_closed_form() -> None:
    base = normal(400, 3, 0).double()
    base = (base - base.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(base.T.cov()).T)
    scale, shift = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([3.0, 0.0, 4.0])
    assert frechet(base, base * scale + shift) == pytest.approx(25 + 0 + 1 + 0.25)
    assert frechet(base, base) == pytest.approx(0, abs=1e-9)


def test_frechet_agrees_with_scipys_matrix_root() -> None:
    a, b = normal(200, 6, 1) @ normal(6, 6, 2), normal(150, 6, 3) @ normal(6, 6, 4)
    cov_a, cov_b = np.cov(a.double().T.numpy()), np.cov(b.double().T.numpy())
    root = linalg.sqrtm(cov_a @ cov_b).real
    gap = np.square(a.double().mean(0).numpy() - b.double().mean(0).numpy()).sum()
    assert frechet(a, b) == pytest.approx(gap + np.trace(cov_a + cov_b - 2 * root), rel=1e-6)


def test_frechet_takes_fewer_samples_than_dimensions() -> None:
    assert math.isfinite(frechet(normal(10, 30, 0), normal(10, 30, 1)))


def test_rbf_mmd_agrees_with_another_librarys_kernel() -> None:
    a, b = normal(40, 5, 0), normal(30, 5, 1) + 0.5
    widths = [1.0, 3.0]
    expected = 0.0
    for width in widths:
        gamma = 1 / (2 * width**2)
        aa, bb = rbf_kernel(a, a, gamma), rbf_kernel(b, b, gamma)
        expected += (aa.sum() - 40) / (40 * 39) + (bb.sum() - 30) / (30 * 29)
        expected -= 2 * rbf_kernel(a, b, gamma).mean()
    assert mmd_rbf(a, b, widths) == pytest.approx(expected / 2, abs=1e-5)


def test_rbf_mmd_is_unbiased_and_sees_a_shift() -> None:
    widths = bandwidths(normal(200, 4, 9))
    same = [mmd_rbf(normal(60, 4, s), normal(60, 4, s + 500), widths) for s in range(80)]
    assert abs(np.mean(same)) < 3 * np.std(same) / math.sqrt(len(same))
    assert min(same) < 0
    assert mmd_rbf(normal(60, 4, 1), normal(60, 4, 2) + 1, widths) > max(same)


def test_rbf_mmd_does_not_depend_on_where_the_features_lie() -> None:
    a, b = normal(60, 64, 1), normal(60, 64, 2) + 0.3
    near, far = (mmd_rbf(a.double() + at, b.double() + at, [8.0]) for at in (0, 1000))
    assert far == pytest.approx(near, rel=1e-4)


def test_bandwidths_scale_the_median_distance() -> None:
    points = torch.tensor([[0.0], [3.0], [6.0]])
    assert bandwidths(points) == pytest.approx([0.75, 1.5, 3.0, 6.0, 12.0])


def test_linear_mmd_of_a_perfect_generator_is_its_floor() -> None:
    scale = torch.tensor([1.0, 2.0, 3.0])
    a, b = normal(20_000, 3, 0) * scale, normal(20_000, 3, 1) * scale
    floor = linear_floor(a, 16)
    assert floor == pytest.approx(2 * 14 / 16, rel=0.05)
    assert mmd_linear(a, b, 16) == pytest.approx(floor, rel=0.1)


def test_kid_agrees_with_another_librarys_kernel() -> None:
    a, b = normal(30, 4, 0), normal(30, 4, 1) + 1
    aa, bb, ab = (polynomial_kernel(x, y, 3, 1 / 4, 1) for x, y in ((a, a), (b, b), (a, b)))
    within = (aa.sum() - np.trace(aa) + bb.sum() - np.trace(bb)) / (30 * 29)
    assert kid(a, b, subsets=3, size=30) == pytest.approx(within - 2 * ab.mean(), rel=1e-4)


def test_radii_leave_the_point_itself_out() -> None:
    points = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    assert radii(points, 1).tolist() == [1.0, 1.0, 2.0, 4.0]


def test_cover_of_the_same_distribution_and_of_another_place() -> None:
    real = normal(500, 4, 0)
    good = cover(real, normal(500, 4, 1))
    assert good.precision > 0.85
    assert good.recall > 0.85
    assert good.density == pytest.approx(1, abs=0.15)
    assert good.coverage > 0.9
    away = cover(real, normal(500, 4, 1) + 50)
    assert (away.precision, away.recall, away.density, away.coverage) == (0, 0, 0, 0)


def test_collapse_keeps_precision_and_loses_recall_and_coverage() -> None:
    real = normal(500, 4, 0)
    found = cover(real, normal(500, 4, 1) * 0.05)
    assert found.precision == 1
    assert found.recall < 0.1
    assert found.coverage < 0.3
