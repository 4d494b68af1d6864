"""Annealed importance sampling of log p(x) under a decoder (Neal 2001; Wu et al. 2017).

Chains walk from the prior, or from q(z | x), to the posterior through intermediate densities, by
Hamiltonian Monte Carlo whose step is adapted to an acceptance of 0.65.  The estimate is a
stochastic lower bound; on simulated data a reverse walk from the true code gives an upper bound
as well (Grosse et al. 2015), and their gap says how far either can be off.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from medaug.evaluation.latent.likelihood import LOG_2PI, Density
from medaug.runtime.progress import progress

FASTER, SLOWER = 1.02, 0.98
STEP_RANGE = (1e-4, 2.0)
SHARPNESS = 4.0


@dataclass(frozen=True)
class Walk:
    """What a walk found.

    Attributes:
        log_p: the estimate of log p(x), nats, (b,).
        acceptance: mean share of accepted moves.
    """

    log_p: Tensor
    acceptance: float


def schedule(steps: int) -> list[float]:
    """Inverse temperatures from 0 to 1, slow at both ends (sigmoidal; Grosse et al. 2015)."""
    at = torch.linspace(-1, 1, steps + 1, dtype=torch.float64) * SHARPNESS
    curve = at.sigmoid()
    return ((curve - curve[0]) / (curve[-1] - curve[0])).tolist()


def ais(
    density: Density,
    x: Tensor,
    draws: torch.Generator,
    *,
    steps: int = 1000,
    chains: int = 8,
    leapfrog: int = 10,
    start: str = "prior",
) -> Walk:
    """Estimate log p(x) from below.

    Args:
        density: the model.
        x: pictures (b, ...).
        draws: of all randomness.
        steps: intermediate densities.
        chains: walks a picture, averaged in the linear domain.
        leapfrog: steps of one Hamiltonian move.
        start: ``prior`` or ``posterior``, which needs an encoder.
    """
    return _walk(density, x, draws, steps, chains, leapfrog, start, None)


def reverse(
    density: Density,
    x: Tensor,
    z: Tensor,
    draws: torch.Generator,
    *,
    steps: int = 1000,
    chains: int = 8,
    leapfrog: int = 10,
    start: str = "prior",
) -> Walk:
    """Estimate log p(x) from above, for pictures x that were drawn from p(x | z)."""
    return _walk(density, x, draws, steps, chains, leapfrog, start, z)


def _walk(
    density: Density,
    x: Tensor,
    draws: torch.Generator,
    steps: int,
    chains: int,
    leapfrog: int,
    start: str,
    exact: Tensor | None,
) -> Walk:
    pictures = x.repeat(chains, *[1] * (x.ndim - 1))
    mu, logvar = _start(density, pictures, start)

    def ends(z: Tensor) -> tuple[Tensor, Tensor]:
        """Log densities at temperature 0 (normalised) and 1 (joint with x), each (b,)."""
        first = -0.5 * ((z - mu).square() / logvar.exp() + logvar + LOG_2PI).sum(1)
        joint = density.log_likelihood(pictures, z) - 0.5 * (z.square() + LOG_2PI).sum(1)
        return first.double(), joint.double()

    def between(beta: float, z: Tensor) -> Tensor:
        first, joint = ends(z)
        return (1 - beta) * first + beta * joint

    if exact is None:
        z = mu + (0.5 * logvar).exp() * torch.randn(mu.shape, generator=draws)
        betas, sign = schedule(steps), 1.0
    else:
        z = exact.repeat(chains, 1)
        betas, sign = schedule(steps)[::-1], -1.0
    weight = torch.zeros(len(z), dtype=torch.float64)
    step = torch.full((len(z), 1), 0.1)
    accepted = 0.0
    with progress("anneal", steps, "densities") as bar:
        for before, now in pairwise(betas):
            with torch.no_grad():
                first, joint = ends(z)
            weight += (now - before) * (joint - first)
            z, moved = _move(z, partial(between, now), step, leapfrog, draws)
            step = (step * torch.where(moved[:, None], FASTER, SLOWER)).clamp(*STEP_RANGE)
            accepted += moved.double().mean().item() / steps
            bar.advance()
    several = weight.unflatten(0, (chains, len(x)))
    log_p = sign * (several.logsumexp(0) - math.log(chains))
    return Walk(log_p, accepted)


def _start(density: Density, x: Tensor, start: str) -> tuple[Tensor, Tensor]:
    if start == "prior":
        zeros = torch.zeros(len(x), density.dim)
        return zeros, zeros
    if start != "posterior" or density.posterior is None:
        raise ValueError(f"start: {start!r} is not prior, or posterior with an encoder")
    with torch.no_grad():
        return density.posterior(x)


def _move(
    z: Tensor,
    log_density: Callable[[Tensor], Tensor],
    step: Tensor,
    leapfrog: int,
    draws: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """One Hamiltonian move of z (b, d) with steps (b, 1); the new z and which of them moved."""

    def slope(at: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            u = at.detach().requires_grad_()
            value = log_density(u)
            (gradient,) = torch.autograd.grad(value.sum(), u)
        return value.detach(), gradient

    momentum = torch.randn(z.shape, generator=draws)
    value, gradient = slope(z)
    energy = value - 0.5 * momentum.double().square().sum(1)
    u, p = z, momentum + 0.5 * step * gradient
    for number in range(leapfrog):
        u = u + step * p
        value, gradient = slope(u)
        p = p + (1.0 if number < leapfrog - 1 else 0.5) * step * gradient
    gain = value - 0.5 * p.double().square().sum(1) - energy
    moved = torch.rand(len(z), generator=draws, dtype=torch.float64).log() < gain
    return torch.where(moved[:, None], u, z).detach(), moved
