"""How probable real pictures are under a decoder: ELBO, importance-weighted bound, their parts.

All values are in nats per picture, (b,).  A likelihood is of an observation model: say which, and
whether pictures were binarised, wherever a figure is quoted.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Decode = Callable[[Tensor], Tensor]
Posterior = Callable[[Tensor], tuple[Tensor, Tensor]]
LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class Density:
    """A latent-variable model: prior N(0, I), p(x | z), and perhaps q(z | x).

    Attributes:
        dim: dimensions of z.
        log_likelihood: x (b, ...) and z (b, dim) to log p(x | z), summed over x, (b,).
        posterior: x to mean and log-variance of q(z | x), each (b, dim).
        draw: codes to pictures of p(x | z), with a generator; needed for simulated data alone.
    """

    dim: int
    log_likelihood: Callable[[Tensor, Tensor], Tensor]
    posterior: Posterior | None = None
    draw: Callable[[Tensor, torch.Generator], Tensor] | None = None


def gaussian(decode: Decode, sigma: float, dim: int, posterior: Posterior | None = None) -> Density:
    """p(x | z) = N(decode(z), sigma^2 I)."""

    def log_likelihood(x: Tensor, z: Tensor) -> Tensor:
        error = (x - decode(z)).flatten(1)
        each = error.square() / sigma**2 + 2 * math.log(sigma) + LOG_2PI
        return -0.5 * each.sum(1, dtype=torch.float64)

    def draw(z: Tensor, draws: torch.Generator) -> Tensor:
        mean = decode(z)
        return mean + sigma * torch.randn(mean.shape, generator=draws)

    return Density(dim, log_likelihood, posterior, draw)


def bernoulli(decode_logits: Decode, dim: int, posterior: Posterior | None = None) -> Density:
    """p(x | z) of binary x in {0, 1}; on grey pixels the value is no log probability."""

    def log_likelihood(x: Tensor, z: Tensor) -> Tensor:
        error = F.binary_cross_entropy_with_logits(decode_logits(z), x, reduction="none")
        return -error.flatten(1).sum(1, dtype=torch.float64)

    def draw(z: Tensor, draws: torch.Generator) -> Tensor:
        return torch.bernoulli(decode_logits(z).sigmoid(), generator=draws)

    return Density(dim, log_likelihood, posterior, draw)


def fit_sigma(x: Tensor, x_hat: Tensor) -> float:
    """The one deviation of a Gaussian around ``x_hat`` under which ``x`` is most probable."""
    return (x.double() - x_hat.double()).square().mean().sqrt().item()


@dataclass(frozen=True)
class Elbo:
    """The evidence lower bound and its parts, nats per picture, each (b,)."""

    reconstruction: Tensor
    kl: Tensor

    @property
    def bound(self) -> Tensor:
        """E_q log p(x | z) - KL(q || p)."""
        return self.reconstruction - self.kl


@torch.no_grad()
def elbo(density: Density, x: Tensor, draws: torch.Generator, count: int = 1) -> Elbo:
    """The bound of Kingma and Welling 2014: the KL exactly, the rest from ``count`` draws of q."""
    mu, logvar = _posterior(density, x)
    kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(1, dtype=torch.float64)
    total = torch.zeros(len(x), dtype=torch.float64)
    for _ in range(count):
        z = mu + (0.5 * logvar).exp() * torch.randn(mu.shape, generator=draws).to(mu.device)
        total += density.log_likelihood(x, z).cpu()
    return Elbo(total / count, kl.cpu())


@torch.no_grad()
def iwae(density: Density, x: Tensor, k: int, draws: torch.Generator, rows: int = 20_000) -> Tensor:
    """The importance-weighted bound with ``k`` draws of q (Burda et al. 2016, Eq. 8), (b,).

    At most ``rows`` decodings are held at once, so that k may be large.
    """
    mu, logvar = _posterior(density, x)
    step = max(1, rows // len(x))
    weights = []
    for start in range(0, k, step):
        several = min(step, k - start)
        noise = torch.stack([torch.randn(mu.shape, generator=draws) for _ in range(several)])
        z = mu + (0.5 * logvar).exp() * noise
        pictures = x.expand(several, *x.shape).flatten(0, 1)
        log_x = density.log_likelihood(pictures, z.flatten(0, 1)).unflatten(0, (several, len(x)))
        log_z = -0.5 * (z.double().square() + LOG_2PI).sum(2)
        log_q = -0.5 * (noise.double().square() + logvar.double() + LOG_2PI).sum(2)
        weights.append(log_x + log_z - log_q)
    return torch.cat(weights).logsumexp(0) - math.log(k)


def _posterior(density: Density, x: Tensor) -> tuple[Tensor, Tensor]:
    if density.posterior is None:
        raise ValueError(
            "this model has no encoder, so no q(z | x): use annealed importance sampling"
        )
    return density.posterior(x)
