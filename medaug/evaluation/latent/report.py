"""How probable real pictures are under a trained decoder, as one small table.

The observation model is N(decode(z), sigma^2 I) on pictures in [-1, 1], sigma fitted on training
pictures; values of two models compare where the pictures and their scale are the same.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from medaug.core.errors import ConfigError
from medaug.core.seeds import generator
from medaug.evaluation.latent.ais import ais
from medaug.evaluation.latent.decoders import density, sigma_of
from medaug.evaluation.latent.likelihood import elbo, iwae
from medaug.models.autoencoder import Autoencoder
from medaug.models.base import Model

SIGMA_FROM = 256
"""Training pictures that sigma is fitted on."""


@dataclass(frozen=True)
class Likelihoods:
    """Means over pictures, nats a picture; None where the model has no q(z | x) over its noise.

    Attributes:
        n: pictures.
        dimensions: numbers in a picture.
        latent: dimensions of the latent variable.
        sigma: deviation of a number of a picture.
        reconstruction: E_q log p(x | z).
        kl: KL(q || p).
        elbo: the evidence lower bound, reconstruction minus KL.
        iwae: the importance-weighted bound.
        k: draws of the importance-weighted bound.
        ais: log p(x) by annealed importance sampling from the prior, a stochastic lower bound.
        ais_error: standard error of its mean over pictures.
        acceptance: of its moves; near 0 the walk got stuck, and its bound is loose.
    """

    n: int
    dimensions: int
    latent: int
    sigma: float
    reconstruction: float | None
    kl: float | None
    elbo: float | None
    iwae: float | None
    k: int
    ais: float
    ais_error: float
    acceptance: float

    def __str__(self) -> str:
        told = {
            "ELBO": self.elbo,
            "  reconstruction": self.reconstruction,
            "  KL": self.kl,
            f"IWAE, k = {self.k}": self.iwae,
            "AIS": self.ais,
        }
        lines = [
            f"log p(x) of {self.n} pictures of {self.dimensions} numbers, "
            f"{self.latent} latent dimensions, sigma {self.sigma:.4g}, nats a picture:"
        ]
        for name, value in told.items():
            said = "has no q(z | x) over its noise" if value is None else f"{value:.2f}"
            lines.append(f"{name:<18}{said}")
        return "\n".join(lines) + f" +- {self.ais_error:.2f}, {self.acceptance:.0%} accepted"


def likelihoods(
    model: Model,
    held: tuple[Tensor, Tensor | None],
    fitting: tuple[Tensor, Tensor | None],
    *,
    k: int = 64,
    steps: int = 200,
    chains: int = 4,
    seed: int = 0,
) -> Likelihoods:
    """Every likelihood of an autoencoder on pictures it has not seen.

    Args:
        model: in evaluation mode, on the CPU.
        held: pictures (n, c, h, w) in [-1, 1], and what they are conditioned on, or None.
        fitting: pictures that sigma is fitted on, likewise.
        k: draws of the importance-weighted bound.
        steps: intermediate densities of the annealed walks, ``--anneal`` of the command.
        chains: walks a picture.
        seed: of all draws.

    Raises:
        ConfigError: a GAN or spatial_vaegan, fewer than two pictures, or a number below 1.
    """
    x, cond = held
    if not isinstance(model, Autoencoder):
        raise ConfigError(
            "likelihoods are of pictures under one decoder: of every model with an encoder but "
            "spatial_vaegan, whose masks are no Gaussian"
        )
    if len(x) < 2:
        raise ConfigError(f"likelihoods need 2 pictures or more, got {len(x)}")
    for name, value in (("k", k), ("anneal", steps), ("chains", chains)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")
    sigma = sigma_of(model, *fitting)
    judged = density(model, sigma, cond)
    draws = generator(seed, "likelihoods")
    bound = important = None
    if judged.posterior is not None:
        bound = elbo(judged, x, draws, count=8)
        important = float(iwae(judged, x, k, draws).mean())
    walk = ais(judged, x, draws, steps=steps, chains=chains)
    return Likelihoods(
        n=len(x),
        dimensions=x[0].numel(),
        latent=judged.dim,
        sigma=sigma,
        reconstruction=None if bound is None else float(bound.reconstruction.mean()),
        kl=None if bound is None else float(bound.kl.mean()),
        elbo=None if bound is None else float(bound.bound.mean()),
        iwae=important,
        k=k,
        ais=float(walk.log_p.mean()),
        ais_error=float(walk.log_p.std()) / math.sqrt(len(x)),
        acceptance=walk.acceptance,
    )
