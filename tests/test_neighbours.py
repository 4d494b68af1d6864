"""Precision, recall, density and coverage against nearest neighbours of another library."""

import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from medaug.evaluate import neighbours
from medaug.evaluate.neighbours import cover


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
    ours = found.precision, found.recall, found.density, found.coverage
    assert ours == pytest.approx(expected(real, fake, k))


def test_blocks_do_not_change_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = normal(150, 8, 0), normal(110, 8, 1)
    whole = cover(real, fake)
    monkeypatch.setattr(neighbours, "BLOCK", 32)
    assert cover(real, fake) == whole


def test_features_far_from_the_origin_keep_their_distances() -> None:
    real, fake = normal(300, 64, 0), normal(300, 64, 1)
    far = cover((real + 1000).double(), (fake + 1000).double())
    near = cover(real, fake)
    assert far.precision == pytest.approx(near.precision, abs=0.01)
    assert far.recall == pytest.approx(near.recall, abs=0.01)
    assert far.density == pytest.approx(near.density, abs=0.02)
