"""Distances and neighbour counts against closed forms and independent libraries."""

import math

import numpy as np
import pytest
import torch
from monai.metrics import MMDMetric
from scipy import linalg
from scipy.stats import sem
from sklearn.metrics.pairwise import polynomial_kernel, rbf_kernel
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from medaug.evaluation.metrics import distances
from medaug.evaluation.metrics.distances import (
    Kernel,
    Mmd,
    bandwidths,
    cubic,
    frechet,
    frechet_estimate,
    gaussian,
    linear_floor,
    linear_gaps,
)
from medaug.evaluation.metrics.intervals import groups_of, jackknife
from medaug.evaluation.metrics.neighbours import radii


def normal(count: int, dim: int, seed: int) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def mmd_rbf(a: torch.Tensor, b: torch.Tensor, widths: list[float]) -> float:
    return Mmd(b, gaussian(widths), middle=b.double().mean(0)).of(a).value


def kid(a: torch.Tensor, b: torch.Tensor) -> float:
    return Mmd(b, cubic).of(a).value


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
    a, b = normal(40, 5, 0).double(), normal(30, 5, 1).double() + 0.5
    widths = [1.0, 3.0]
    expected = 0.0
    for width in widths:
        gamma = 1 / (2 * width**2)
        aa, bb = rbf_kernel(a, a, gamma), rbf_kernel(b, b, gamma)
        expected += (aa.sum() - 40) / (40 * 39) + (bb.sum() - 30) / (30 * 29)
        expected -= 2 * rbf_kernel(a, b, gamma).mean()
    assert mmd_rbf(a, b, widths) == pytest.approx(expected / 2, abs=1e-12)


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
    assert np.mean(linear_gaps(a, b, 16)) == pytest.approx(floor, rel=0.1)


def test_kid_agrees_with_another_librarys_kernel() -> None:
    a, b = normal(30, 4, 0).double(), normal(30, 4, 1).double() + 1
    aa, bb, ab = (polynomial_kernel(x, y, 3, 1 / 4, 1) for x, y in ((a, a), (b, b), (a, b)))
    within = (aa.sum() - np.trace(aa) + bb.sum() - np.trace(bb)) / (30 * 29)
    assert kid(a, b) == pytest.approx(within - 2 * ab.mean(), rel=1e-9)


def test_kid_agrees_with_torchmetrics_over_the_whole_set() -> None:
    a, b = normal(80, 6, 0).double(), normal(80, 6, 1).double() * 1.3 + 0.2
    theirs = poly_mmd(b, a).item()
    assert kid(a, b) == pytest.approx(theirs, rel=1e-9)


def test_frechet_agrees_with_torchmetrics() -> None:
    a, b = normal(200, 6, 1) @ normal(6, 6, 2), normal(150, 6, 3) @ normal(6, 6, 4)
    moments = [(x.double().mean(0), x.double().T.cov()) for x in (a, b)]
    theirs = _compute_fid(*moments[0], *moments[1]).item()
    assert frechet(a, b) == pytest.approx(theirs, rel=1e-6)


def test_the_unbiased_mmd_agrees_with_monais_linear_kernel() -> None:
    a, b = normal(40, 5, 0).double(), normal(30, 5, 1).double() + 0.5
    ours = Mmd(b, lambda x, y: x @ y.T).of(a).value
    expected = sum(
        (x @ x.T).fill_diagonal_(0).sum().item() / (len(x) * (len(x) - 1)) for x in (a, b)
    )
    assert ours == pytest.approx(expected - 2 * (a @ b.T).mean().item(), rel=1e-12)
    same = MMDMetric()(a[:30, :, None, None], b[:, :, None, None]).item()
    assert Mmd(b, lambda x, y: x @ y.T).of(a[:30]).value == pytest.approx(same, rel=1e-6)


def test_blocks_and_groups_do_not_change_the_mmd(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = normal(120, 4, 0), normal(90, 4, 1)
    whole = kid(a, b)
    groups = np.arange(120) % 7, np.arange(90) % 5
    monkeypatch.setattr(distances, "BLOCK", 32)
    assert kid(a, b) == pytest.approx(whole, rel=1e-12)
    assert Mmd(b, cubic, groups[1]).of(a, groups[0]).value == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("kernel", [cubic, gaussian([1.0, 2.0])])
def test_the_error_of_the_mmd_is_the_jackknife_by_its_definition(kernel: Kernel) -> None:
    a, b = normal(60, 4, 0).double(), normal(50, 4, 1).double() + 0.3
    groups_a, groups_b = np.arange(60) % 6, np.arange(50) % 5
    left_a = [Mmd(b, kernel).of(a[groups_a != g]).value for g in range(6)]
    left_b = [Mmd(b[groups_b != g], kernel).of(a).value for g in range(5)]
    found = Mmd(b, kernel, groups_b).of(a, groups_a)
    expected = math.hypot(jackknife(left_a), jackknife(left_b))
    assert found.error == pytest.approx(expected, rel=1e-9)


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = normal(50, 1, 3).double().numpy()[:, 0]
    left_out = [np.delete(values, i).mean() for i in range(50)]
    assert jackknife(left_out) == pytest.approx(sem(values), rel=1e-12)
    assert math.isnan(jackknife([1.0]))


def test_the_interval_of_frechet_holds_its_value_and_narrows_with_n() -> None:
    found = []
    for n in (100, 2000):
        a, b = normal(n, 3, 0), normal(n, 3, 1) + 1
        groups = np.arange(n) % 20
        found.append(frechet_estimate(a, b, groups, groups))
        assert found[-1].value == frechet(a, b)
        assert found[-1].low < 3 < found[-1].high
    assert found[1].error < found[0].error / 2
    assert frechet_estimate(a, a, groups, groups).low == 0


def test_groups_keep_cases_whole() -> None:
    cases = [f"p{i // 3}" for i in range(90)]
    groups = groups_of(cases, 20)
    assert len(np.unique(groups)) == 20
    assert all(len(set(groups[i : i + 3])) == 1 for i in range(0, 90, 3))
    assert len(np.unique(groups_of(cases[:9], 20))) == 3


def test_radii_leave_the_point_itself_out() -> None:
    points = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    assert radii(points, 1).tolist() == [1.0, 1.0, 2.0, 4.0]
