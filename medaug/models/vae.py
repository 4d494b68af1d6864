"""Variational autoencoder of Kingma and Welling 2014.

One player minimises reconstruction error and KL, both per pixel, so that their sum is the negative
ELBO divided by the pixels.  The observation model is a Gaussian of unit or of learned variance
(the latter at its optimum, the running mean squared error: Rybkin et al. 2021), or a Bernoulli on
[0, 1]; on grey pixels the last is a useful loss but no density.

Healthy: ``reconstruction`` falls throughout, ``kl`` rises from 0 and settles at some tens of nats
over the pixels' number.  ``kl`` near 0 for long: the code has collapsed; lower ``beta`` or choose
``likelihood: learned``.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from medaug.core.batch import Shape
from medaug.core.errors import ConfigError
from medaug.models.autoencoder import Autoencoder
from medaug.models.base import Batch, Move, OptimizerSettings, Turn
from medaug.models.losses import gaussian_kl, half_squared_error, mask_error, reparametrise
from medaug.models.networks.build import Network
from medaug.models.priors import GAUSSIAN, PriorOptions
from medaug.runtime import collectives

LIKELIHOODS = ("gaussian", "learned", "bernoulli")


class VAE(Autoencoder):
    """A variational autoencoder.

    Args:
        shape: channels, size and conditions of the data.
        latent_dim: length of the code.
        network: architecture of encoder and decoder.
        width: channels of their first level.
        likelihood: ``gaussian`` (unit variance), ``learned`` or ``bernoulli``.
        beta: weight of the KL.
        rule: ``adam`` or ``rmsprop``.
        lr: rate at the start, decaying to a hundredth.
        prior: how codes are distributed and drawn.
    """

    error: Tensor

    def __init__(
        self,
        shape: Shape,
        latent_dim: int = 64,
        network: Network = "residual",
        width: int = 32,
        likelihood: str = "learned",
        beta: float = 1.0,
        rule: str = "adam",
        lr: float = 1e-3,
        prior: PriorOptions = GAUSSIAN,
    ) -> None:
        super().__init__(shape, latent_dim, network, width, prior)
        if likelihood not in LIKELIHOODS:
            raise ConfigError(
                f"config model.likelihood: {likelihood!r} is not known "
                f"(known: {', '.join(LIKELIHOODS)})"
            )
        if rule not in ("adam", "rmsprop"):
            raise ConfigError(f"config model.rule: {rule!r} is not known (known: adam, rmsprop)")
        self.rule: Literal["adam", "rmsprop"] = "rmsprop" if rule == "rmsprop" else "adam"
        self.likelihood, self.beta, self.lr = likelihood, beta, lr
        self.share = latent_dim / (shape.channels * shape.size**shape.spatial_dims)
        self.register_buffer("error", torch.ones(()))

    def per_sample_gradients_obstacle(self) -> str | None:
        if self.likelihood == "learned":
            return (
                "model.likelihood learned keeps a mean over slices in the weights, so choose "
                "gaussian or bernoulli"
            )
        if self.code.learns or self.code.fits:
            return "model.prior learns from the codes of slices, so choose gaussian"
        return None

    def game_players(self) -> dict[str, tuple[nn.Module, ...]]:
        return {"autoencoder": (self.encoder, self.decoder)}

    def game(self, progress: float) -> Sequence[Turn]:
        return [Turn(self.train_autoencoder)]

    def game_optim(self, progress: float) -> dict[str, OptimizerSettings]:
        rate = self.lr * (1 - progress**0.75 * 0.99)
        return {"autoencoder": OptimizerSettings(rate, self.rule)}

    def train_autoencoder(self, batch: Batch) -> dict[str, Move]:
        mu, logvar = self.encode(batch.x, batch.cond)
        raw = batch.seen(self.decoder(reparametrise(mu, logvar), batch.cond))
        terms = {
            "reconstruction": (1.0, self.surprise(raw, batch.x)),
            "kl": (self.beta * self.share, gaussian_kl(mu, logvar)),
        }
        return {"autoencoder": Move(terms)}

    def surprise(self, raw: Tensor, x: Tensor) -> Tensor:
        """-log p(x | z) per pixel up to a constant, (b,)."""
        if self.likelihood == "bernoulli":
            return mask_error(2 * raw, x)
        half = half_squared_error(raw.tanh(), x)
        if self.likelihood == "gaussian":
            return half
        with torch.no_grad():
            self.error.lerp_(2 * collectives.all_mean(half.mean()), 0.01)
        return half / self.error.clamp_min(1e-6)
