"""Likelihoods against models whose log p(x) is exact, and against the four-point toy."""

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from medaug.core.batch import Shape
from medaug.core.errors import ConfigError
from medaug.evaluation.latent.ais import ais, reverse, schedule
from medaug.evaluation.latent.decoders import density, sigma_of
from medaug.evaluation.latent.likelihood import Density, bernoulli, elbo, fit_sigma, gaussian, iwae
from medaug.evaluation.latent.report import likelihoods
from medaug.models import build
from medaug.models.base import Batch, Model, Move, OptimizerSettings, Turn
from medaug.models.losses import reparametrise
from medaug.training.step import Players

SIGMA = 0.7
DIM = 3


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Linear:
    """Probabilistic PCA: x = W z + noise, so that p(x) and p(z | x) are Gaussians we know."""

    def __init__(self) -> None:
        self.weight = torch.randn(6, DIM, generator=draws(5))
        self.covariance = torch.linalg.inv(torch.eye(DIM) + self.weight.T @ self.weight / SIGMA**2)

    def decode(self, z: Tensor) -> Tensor:
        return z @ self.weight.T

    def log_p(self, x: Tensor) -> Tensor:
        spread = self.weight @ self.weight.T + SIGMA**2 * torch.eye(6)
        return torch.distributions.MultivariateNormal(torch.zeros(6), spread).log_prob(x).double()

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The exact means, with the deviations of each coordinate alone."""
        mean = x @ self.weight @ self.covariance.T / SIGMA**2
        return mean, self.covariance.diagonal().log().expand_as(mean)


@pytest.fixture
def pca() -> tuple[Linear, Density, Tensor, Tensor]:
    model = Linear()
    density = gaussian(model.decode, SIGMA, DIM, model.posterior)
    z = torch.randn(40, DIM, generator=draws(1))
    assert density.draw is not None
    return model, density, density.draw(z, draws(2)), z


def test_bounds_are_in_their_order(pca: tuple[Linear, Density, Tensor, Tensor]) -> None:
    model, density, _, _ = pca
    assert density.draw is not None
    x = density.draw(torch.randn(500, DIM, generator=draws(1)), draws(2))
    exact = model.log_p(x).mean()
    one = elbo(density, x, draws(), 20).bound.mean()
    several = [iwae(density, x, k, draws()).mean() for k in (5, 40, 400)]
    assert one < several[0] < several[1] < several[2] + 1e-2
    assert several[2] == pytest.approx(exact.item(), abs=0.02)


def test_elbo_under_the_exact_posterior_is_log_p() -> None:
    weight = torch.tensor([[1.5], [-0.5]])
    variance = 1 / (1 + (weight.square().sum() / SIGMA**2))
    density = gaussian(
        lambda z: z @ weight.T,
        SIGMA,
        1,
        lambda x: (x @ weight * variance / SIGMA**2, variance.log().expand(len(x), 1)),
    )
    x = torch.randn(50, 2, generator=draws())
    spread = weight @ weight.T + SIGMA**2 * torch.eye(2)
    exact = torch.distributions.MultivariateNormal(torch.zeros(2), spread).log_prob(x)
    got = elbo(density, x, draws(), 4000).bound
    assert torch.allclose(got.float(), exact, atol=0.15)
    assert got.mean().item() == pytest.approx(exact.mean().item(), abs=0.02)


def test_iwae_does_not_depend_on_how_much_is_held_at_once(
    pca: tuple[Linear, Density, Tensor, Tensor],
) -> None:
    _, density, x, _ = pca
    assert torch.allclose(
        iwae(density, x, 64, draws(), rows=40), iwae(density, x, 64, draws(), rows=40 * 64),
    )  # fmt: skip


@pytest.mark.parametrize("start", ["prior", "posterior"])
def test_ais_finds_log_p(pca: tuple[Linear, Density, Tensor, Tensor], start: str) -> None:
    model, density, x, _ = pca
    walk = ais(density, x, draws(), steps=120, chains=8, leapfrog=5, start=start)
    assert walk.log_p.mean().item() == pytest.approx(model.log_p(x).mean().item(), abs=0.1)
    assert 0.4 < walk.acceptance <= 1


def test_walks_from_both_ends_enclose_log_p(pca: tuple[Linear, Density, Tensor, Tensor]) -> None:
    model, density, x, z = pca
    exact = model.log_p(x).mean()
    gaps = []
    for steps in (12, 120):
        low = ais(density, x, draws(), steps=steps, chains=1, leapfrog=5).log_p.mean()
        high = reverse(density, x, z, draws(), steps=steps, chains=1, leapfrog=5).log_p.mean()
        assert low - 0.1 < exact < high + 0.1
        gaps.append(float(high - low))
    assert gaps[1] < gaps[0]


def test_the_schedule_rises_from_0_to_1() -> None:
    betas = schedule(50)
    assert betas[0] == 0
    assert betas[-1] == pytest.approx(1)
    assert all(a < b for a, b in pairwise(betas))


def test_sigma_is_the_root_of_the_mean_squared_error() -> None:
    assert fit_sigma(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 1.0]])) == pytest.approx(
        math.sqrt(2.5)
    )


def test_without_an_encoder_there_is_no_bound() -> None:
    density = bernoulli(lambda z: z, 2)
    with pytest.raises(ValueError, match="no encoder"):
        elbo(density, torch.zeros(1, 2), draws())
    with pytest.raises(ValueError, match="'posterior' is not prior"):
        ais(density, torch.zeros(1, 2), draws(), start="posterior")


def _net(c_in: int, c_out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in ((c_in, 64), (64, 64), (64, 64)):
        layers += [nn.Linear(a, b), nn.ELU()]
    return nn.Sequential(*layers, nn.Linear(64, c_out))


class Toy(Model):
    """A VAE on four one-hot points with a code of two numbers (Mescheder et al. 2017)."""

    def __init__(self, lr: float) -> None:
        super().__init__()
        self.encoder, self.decoder, self.lr = _net(4, 4), _net(2, 4), lr
        self.noise_shape = (2,)

    def players(self) -> dict[str, tuple[nn.Module, ...]]:
        return {"autoencoder": (self.encoder, self.decoder)}

    def turns(self, progress: float) -> Sequence[Turn]:
        return [Turn(self.explain)]

    def optim(self, progress: float) -> dict[str, OptimizerSettings]:
        return {"autoencoder": OptimizerSettings(self.lr * (1 - progress) ** 0.5)}

    def explain(self, batch: Batch) -> dict[str, Move]:
        mu, logvar = self.posterior(batch.x)
        logits = self.decoder(reparametrise(mu, logvar))
        error = nn.functional.binary_cross_entropy_with_logits(logits, batch.x, reduction="none")
        kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar)
        return {"autoencoder": Move({"error": (1.0, error.sum(1)), "kl": (1.0, kl.sum(1))})}

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mu, logvar = self.encoder(x).chunk(2, 1)
        return mu, logvar

    def prior(self, noise: Tensor, cond: Tensor | None) -> Tensor:
        return noise

    def decode(self, z: Tensor, cond: Tensor | None) -> Tensor:
        return 2 * self.decoder(z).sigmoid() - 1


def trained(steps: int, lr: float, batch: int) -> tuple[float, float, float]:
    """ELBO, log p by importance weights and by annealing, of the toy after training."""
    torch.manual_seed(0)
    toy = Toy(lr)
    game = Players(toy, 0, torch.device("cpu"), "float32")
    points = torch.eye(4)
    for step in range(steps):
        chosen = torch.randint(4, (batch,), generator=draws(step))
        progress = step / steps
        game.turn(toy.turns(progress)[0], Batch(points[chosen]), step, toy.optim(progress))
    density = bernoulli(toy.decoder, 2, toy.posterior)
    bound = elbo(density, points, draws(), 4000).bound.mean().item()
    weighted = iwae(density, points, 20_000, draws()).mean().item()
    annealed = ais(density, points, draws(), steps=200, chains=64, leapfrog=5).log_p.mean().item()
    return bound, weighted, annealed


@pytest.mark.long
def test_the_four_point_toy_comes_near_its_known_optimum() -> None:
    bound, weighted, annealed = trained(steps=2500, lr=2e-3, batch=256)
    assert bound == pytest.approx(-1.698, abs=0.06)
    assert weighted == pytest.approx(-1.57, abs=0.06)
    assert annealed == pytest.approx(weighted, abs=0.05)
    assert bound < weighted < -math.log(4) + 0.01


@pytest.mark.slow
def test_the_four_point_toy_by_the_papers_recipe() -> None:
    bound, weighted, annealed = trained(steps=20_000, lr=1e-4, batch=512)
    assert bound == pytest.approx(-1.698, abs=0.01)
    assert weighted == pytest.approx(-1.57, abs=0.015)
    assert annealed == pytest.approx(weighted, abs=0.03)
    assert bound < weighted < -math.log(4) + 0.01


@pytest.mark.parametrize(
    ("name", "arguments", "has_posterior"),
    [
        ("vae", {"prior": "gaussian"}, True),
        ("vae", {"prior": "gmm"}, False),
        ("wae_mmd", {"prior": "gaussian"}, False),
        ("gan", {}, False),
    ],
)
@pytest.mark.parametrize("classes", [0, 3])
def test_models_are_densities(
    name: str, arguments: dict[str, str], has_posterior: bool, classes: int
) -> None:
    torch.manual_seed(0)
    shape = Shape(1, 1, 16, cond_dim=classes, classes=classes)
    small = {"network": "residual", "width": 8, "latent_dim": 3}
    model = build(name, {**small, **arguments}, shape).eval().requires_grad_(False)
    cond = torch.eye(3)[[0, 1]] if classes else None
    x = torch.rand(2, 1, 16, 16) * 2 - 1
    found = density(model, 0.5, cond)
    assert (found.posterior is not None) == has_posterior
    walk = ais(found, x, draws(), steps=4, chains=2, leapfrog=2)
    assert walk.log_p.isfinite().all()
    if has_posterior:
        mu, _ = model.encode(x, cond)
        z = mu.repeat(3, 1)
        again = density(model, 0.5, cond).log_likelihood(x.repeat(3, 1, 1, 1), z)
        assert torch.allclose(again[:2], again[4:])
        assert iwae(found, x, 20, draws()).isfinite().all()
        assert sigma_of(model, x, cond) > 0


def test_the_table_of_a_model_holds_every_bound() -> None:
    torch.manual_seed(0)
    shape = Shape(1, 1, 16)
    small = {"network": "residual", "width": 8, "latent_dim": 3}
    vae = build("vae", {**small, "prior": "gaussian"}, shape).eval().requires_grad_(False)
    x, other = (torch.rand(6, 1, 16, 16, generator=draws(n)) * 2 - 1 for n in range(2))
    found = likelihoods(vae, (x, None), (other, None), k=32, steps=8, chains=2)
    assert (found.n, found.dimensions, found.latent, found.k) == (6, 256, 3, 32)
    assert found.sigma == pytest.approx(sigma_of(vae, other))
    assert found.elbo is not None
    assert found.iwae is not None
    assert found.reconstruction is not None
    assert found.elbo == pytest.approx(found.reconstruction - (found.kl or 0))
    assert found.elbo < found.iwae
    assert found == likelihoods(vae, (x, None), (other, None), k=32, steps=8, chains=2)
    assert found.ais != likelihoods(vae, (x, None), (other, None), steps=8, chains=2, seed=1).ais
    assert f"AIS               {found.ais:.2f} +- " in str(found)
    wae = build("wae_mmd", small, shape).eval().requires_grad_(False)
    bare = likelihoods(wae, (x, None), (other, None), steps=4, chains=2)
    assert (bare.elbo, bare.iwae) == (None, None)
    assert "IWAE, k = 64      has no q(z | x) over its noise" in str(bare)
    gan = build("gan", small, shape).eval()
    for model, held, more, said in (
        (gan, x, {}, "likelihoods are of pictures under one decoder"),
        (vae, x[:1], {}, "need 2 pictures or more, got 1"),
        (vae, x, {"chains": 0}, "chains must be at least 1, got 0"),
    ):
        with pytest.raises(ConfigError, match=said):
            likelihoods(model, (held, None), (other, None), **more)
