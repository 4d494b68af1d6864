"""Precision, recall, density and coverage against nearest neighbours of another library."""

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from medaug.evaluation.metrics import neighbours
from medaug.evaluation.metrics.neighbours import (
    SHARES,
    Typical,
    curve,
    held,
    integrated,
    radii,
    scans_of,
    typical,
)
from tests.support.script_modules import modules_of

with modules_of("reproducing") as module:
    cover = module("scoreboard").cover


def normal(count: int, dim: int, seed: int) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def expected(real: torch.Tensor, fake: torch.Tensor, k: int) -> tuple[float, ...]:
    """The four figures by their definitions, in float64, all distances at once."""
    a, b = real.double().numpy(), fake.double().numpy()
    real_radius, fake_radius = (
        NearestNeighbors(n_neighbors=k).fit(x).kneighbors()[0][:, -1] for x in (a, b)
    )
    distance = cdist(a, b)
    in_real = distance < real_radius[:, None]
    in_fake = distance < fake_radius[None]
    density = in_real.sum(0).mean() / k
    return in_real.any(0).mean(), in_fake.any(1).mean(), density, in_real.any(1).mean()


@pytest.mark.parametrize("k", [1, 5])
def test_all_four_agree_with_their_definitions(k: int) -> None:
    real, fake = normal(150, 8, 0), normal(110, 8, 1) * 0.8 + 0.3
    found = cover(real, fake, k)
    assert tuple(found.values()) == pytest.approx(expected(real, fake, k))


def test_blocks_do_not_change_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = normal(150, 8, 0), normal(110, 8, 1)
    whole = cover(real, fake)
    monkeypatch.setattr(neighbours, "BLOCK", 32)
    assert cover(real, fake) == whole


def test_features_far_from_the_origin_keep_their_distances() -> None:
    real, fake = normal(300, 64, 0), normal(300, 64, 1)
    far = cover((real + 1000).double(), (fake + 1000).double())
    near = cover(real, fake)
    assert far["precision"] == pytest.approx(near["precision"], abs=0.01)
    assert far["recall"] == pytest.approx(near["recall"], abs=0.01)
    assert far["density"] == pytest.approx(near["density"], abs=0.02)


@pytest.mark.parametrize("k", [2, 5])
def test_all_four_agree_with_prdc(k: int) -> None:
    real, fake = normal(150, 8, 2).double(), normal(110, 8, 3).double() * 0.8 + 0.3
    theirs = compute_prdc(real.numpy(), fake.numpy(), k)
    assert cover(real, fake, k) == pytest.approx(theirs, abs=1e-12)


def test_other_places_of_the_same_scan_are_no_neighbours_and_copies_are() -> None:
    points = torch.tensor([[0.0], [1.0], [10.0], [11.0], [30.0], [30.0]])
    scans = scans_of(["a", "a", "b", "b", "c", "c"], np.array([0, 1, 0, 1, 0, 0]), 1)
    assert radii(points, 1, scans).tolist() == [10, 9, 9, 10, 0, 0]
    assert radii(points, 1).tolist() == [1, 1, 1, 1, 0, 0]


def test_two_scans_are_their_own_neighbours() -> None:
    assert scans_of(["a", "a", "b"], np.arange(3), 1) is None
    assert scans_of(["a"] * 10 + ["b", "c"], np.arange(12), 5) is None


def test_equal_rows_are_no_distance_apart_however_far_out() -> None:
    rows = normal(40, 200, 0).double() * 3 + 7
    assert radii(rows.repeat(2, 1), 1).tolist() == [0] * 80
    assert held(rows, torch.full((40,), 1e-9), rows).around.tolist() == [1] * 40


def alaa(real: np.ndarray, fake: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both curves by their definitions, one share at a time."""
    centre, spread = real.mean(0), fake.mean(0)
    inner = np.linalg.norm(real - centre, axis=1)
    out = np.linalg.norm(fake - centre, axis=1)
    around = np.linalg.norm(fake - spread, axis=1)
    own = NearestNeighbors(n_neighbors=1).fit(real).kneighbors()[0][:, 0]
    gap, which = (x[:, 0] for x in NearestNeighbors(n_neighbors=1).fit(fake).kneighbors(real))
    precision, recall = [], []
    for share in SHARES:
        precision.append(np.mean([(inner < x).mean() <= share for x in out]))
        held_in = np.array([(around < x).mean() <= share for x in around[which]])
        recall.append(((gap <= own) & held_in).mean())
    return np.array(precision), np.array(recall)


def test_alpha_precision_and_beta_recall_agree_with_their_definitions() -> None:
    real, fake = normal(120, 6, 0).double(), normal(90, 6, 1).double() * 0.9 + 0.2
    found = typical(real, fake, radii(real, 1))
    precision, recall = alaa(real.numpy(), fake.numpy())
    assert curve(found.rank, np.ones(90)) == pytest.approx(precision, abs=1e-12)
    assert curve(found.reached, np.ones(120)) == pytest.approx(recall, abs=1e-12)


def scores(found: Typical) -> tuple[float, float]:
    return tuple(integrated(x, np.ones(len(x))) for x in (found.rank, found.reached))


def test_alpha_precision_of_the_same_law_is_near_one_and_of_its_centre_is_not() -> None:
    real, same = normal(2000, 4, 0), normal(2000, 4, 1)
    precision, recall = scores(typical(real, same, radii(real, 1)))
    assert precision > 0.95
    tight_precision, tight_recall = scores(typical(real, same * 0.05, radii(real, 1)))
    assert tight_precision < 0.1
    assert tight_recall < recall / 3
    away = typical(real, same + 50, radii(real, 1))
    assert away.rank.min() == 1
    assert away.reached.min() > 1


def test_cover_of_the_same_distribution_and_of_another_place() -> None:
    real = normal(500, 4, 0)
    good = cover(real, normal(500, 4, 1))
    assert good["precision"] > 0.85
    assert good["recall"] > 0.85
    assert good["density"] == pytest.approx(1, abs=0.15)
    assert good["coverage"] > 0.9
    away = cover(real, normal(500, 4, 1) + 50)
    assert set(away.values()) == {0}


def test_collapse_keeps_precision_and_loses_recall_and_coverage() -> None:
    real = normal(500, 4, 0)
    found = cover(real, normal(500, 4, 1) * 0.05)
    assert found["precision"] == 1
    assert found["recall"] < 0.1
    assert found["coverage"] < 0.3
