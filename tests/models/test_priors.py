"""Each prior learns or fits the codes it is shown, and maps noise to codes deterministically."""

import pytest
import torch
from torch import Tensor

from medaug.core.batch import Shape
from medaug.core.errors import ConfigError
from medaug.models.base import Batch
from medaug.models.priors import (
    PRIORS,
    AdversarialPrior,
    FlowPrior,
    GaussianPrior,
    MixturePrior,
    Prior,
    PriorOptions,
    make_prior,
)
from medaug.training.optimizers import PlayerOptimizer

PLAIN = Shape(1, 1, 28)
CLASSES = Shape(1, 1, 28, cond_dim=2, classes=2)


def two_lumps(count: int, seed: int) -> Tensor:
    """Codes (n, 3) around +-2 on the first axis, with a correlation on the others."""
    draws = torch.Generator().manual_seed(seed)
    side = (torch.rand(count, 1, generator=draws) < 0.25).float() * 4 - 2
    noise = torch.randn(count, 3, generator=draws) * 0.3
    noise[:, 2] += noise[:, 1]
    return torch.cat([side, torch.zeros(count, 2)], 1) + noise


def learn(prior: Prior, steps: int) -> None:
    """Play the prior's turns on batches whose images stand for codes themselves."""
    players = prior.players()
    steppers = {
        player: PlayerOptimizer([p for m in modules for p in m.parameters()], "adam")
        for player, modules in players.items()
    }
    turns = prior.turns(lambda batch: batch.x[:, 0, 0])
    for number in range(steps):
        for place, turn in enumerate(turns):
            torch.manual_seed(100 * number + place)
            codes = two_lumps(128, 100 * number + place)
            moves = turn.play(Batch(codes[:, None, None]))
            for player, move in moves.items():
                stepper = steppers[player]
                gradients = torch.autograd.grad(move.total(), stepper.parameters)
                stepper.step(list(gradients), prior.optim(1e-3)[player], None)


def gaps(prior: Prior) -> tuple[float, float, float]:
    """How far samples are from the codes: mean, covariance, share in the smaller lump."""
    with torch.no_grad():
        drawn = prior(torch.randn(4000, *prior.noise_shape), None)
    real = two_lumps(4000, -1)
    share = (drawn[:, 0] > 0).float().mean() - (real[:, 0] > 0).float().mean()
    return (
        float((drawn.mean(0) - real.mean(0)).abs().max()),
        float((drawn.T.cov() - real.T.cov()).abs().max()),
        float(share.abs()),
    )


def test_mixture_has_the_moments_of_the_codes() -> None:
    torch.manual_seed(0)
    prior = make_prior(PriorOptions("gmm", width=64, steps=8), (3,), PLAIN)
    assert isinstance(prior, MixturePrior)
    before = gaps(prior)
    prior.fit((two_lumps(500, k), None) for k in range(8))
    mean, covariance, share = gaps(prior)
    assert mean < 0.1
    assert covariance < 0.15
    assert share < 0.03
    assert before[1] > 1


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "steps", "bound"), [("flow", 600, 0.3), ("adversarial", 300, 0.5)]
)
def test_learned_priors_approach_the_codes(kind: str, steps: int, bound: float) -> None:
    torch.manual_seed(0)
    prior = make_prior(PriorOptions(kind, width=64, steps=12), (3,), PLAIN)
    assert gaps(prior)[0] > 0.6
    assert gaps(prior)[1] > 2
    learn(prior, steps)
    mean, covariance, share = gaps(prior)
    assert mean < bound
    assert covariance < 3 * bound  # games end elsewhere on another processor
    assert share < 0.15


def test_mixture_keeps_classes_apart() -> None:
    prior = make_prior(PriorOptions("gmm", width=64, steps=8), (2,), CLASSES)
    cond = torch.eye(2).repeat_interleave(300, 0)
    codes = torch.randn(600, 2) * 0.1 + cond
    prior.fit([(codes, cond)])
    one = torch.eye(2)[[1]].expand(200, 2)
    drawn = prior(torch.randn(200, *prior.noise_shape), one)
    assert torch.allclose(drawn.mean(0), torch.tensor([0.0, 1.0]), atol=0.05)


def test_mixture_chooses_components_by_their_weight() -> None:
    prior = MixturePrior((1,), PLAIN)
    prior.weights.zero_()
    prior.weights[0, :2] = torch.tensor([0.3, 0.7])
    prior.means[0, 1] = 10.0
    drawn = prior(torch.randn(20_000, 2), None)
    assert abs(float((drawn > 5).float().mean()) - 0.7) < 0.02
    extreme = prior(torch.tensor([[0.0, 9.0], [0.0, -9.0]]), None)
    assert extreme.flatten().tolist() == [10.0, 0.0]


@pytest.mark.parametrize("kind", PRIORS)
def test_grids_are_taken_too(kind: str) -> None:
    prior = make_prior(PriorOptions(kind, width=16, steps=3), (2, 4, 4), CLASSES)
    cond = torch.eye(2)
    noise = torch.randn(2, *prior.noise_shape)
    z = prior(noise, cond)
    assert z.shape == (2, 2, 4, 4)
    assert torch.equal(z, prior(noise, cond))


def test_flow_redraws_more_with_strength() -> None:
    torch.manual_seed(0)
    prior = FlowPrior((3,), PLAIN, 32, 8)
    noise, fresh = torch.randn(64, 3), torch.randn(64, 3)
    with torch.no_grad():
        z = prior(noise, None)
        near, far = (prior.vary(noise, z, fresh, None, how, None) for how in (0.1, 0.9))
    assert (near - z).norm() < (far - z).norm()


def test_vary_draws_the_posterior_where_there_is_one() -> None:
    prior = GaussianPrior((3,))
    mu, logvar = torch.randn(5, 3), torch.zeros(5, 3)
    noise, fresh = torch.randn(2, 5, 3)
    drawn = prior.vary(noise, noise, fresh, None, 0.5, (mu, logvar))
    assert torch.allclose(drawn, mu + fresh)
    shell = prior.vary(noise, noise, fresh, None, 0.6, None)
    assert torch.allclose(shell, 0.8 * noise + 0.6 * fresh)


def test_learned_priors_whiten() -> None:
    prior = AdversarialPrior((3,), PLAIN, 16)
    codes = torch.randn(4096, 3) * torch.tensor([1.0, 5.0, 0.1]) + 3
    white = prior.observe(codes)
    assert torch.allclose(white.mean(0), torch.zeros(3), atol=1e-3)
    assert torch.allclose(white.std(0), torch.ones(3), atol=1e-2)
    assert torch.allclose(prior.unwhiten(white), codes, atol=1e-3)


@pytest.mark.parametrize(
    ("kind", "code", "shape", "message"),
    [
        ("gauss", (3,), PLAIN, "config model.prior: 'gauss' is not known, did you mean 'gaussian'?"
         " (known: gaussian, gmm, adversarial, flow)"),
        ("gmm", (4, 16, 16), PLAIN, "config model.prior: gmm takes codes of up to 512 numbers, "
         "this one has 1024; use flow or adversarial"),
        ("gmm", (3,), Shape(1, 1, 28, cond_dim=1), "config model.prior: gmm is conditioned on "
         "classes alone; use flow or adversarial with attributes or height"),
    ],
)  # fmt: skip
def test_priors_that_cannot_be(
    kind: str, code: tuple[int, ...], shape: Shape, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        make_prior(PriorOptions(kind, width=16, steps=4), code, shape)
    assert str(caught.value) == message
