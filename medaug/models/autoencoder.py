"""What the models with an encoder share: a code, its prior, and how samples are drawn.

``Encoding`` is for codes of any shape, ``Autoencoder`` for vectors: a subclass of it names its own
players and turns, and the prior's join them.  A prior that learns plays alone in the last share of
the images, while encoder and decoder rest.
"""

from abc import abstractmethod
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from medaug.core.batch import Shape
from medaug.models.base import Batch, Model, OptimizerSettings, Turn
from medaug.models.networks.build import Network, frozen, make_decoder, make_encoder
from medaug.models.priors import Prior, PriorOptions, make_prior

LOGVAR = (-10.0, 10.0)
PRIOR_LR = 1e-3
LATE_SHARE = 0.25
"""Of the images, in which a prior learns that says no share of its own."""


class Encoding(Model):
    """A model with an encoder and a prior of its codes: how it encodes and draws."""

    encoder: nn.Module
    code: Prior
    posterior: bool
    """Whether variants are drawn of q(z | x)."""
    stochastic = True
    """Whether the encoder gives a distribution; if not, its log-variance is the lower bound."""

    @abstractmethod
    def encode(self, x: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | x) for images (b, c, h, w), each (b, ...)."""

    def codes(self, batch: Batch) -> Tensor:
        """The codes (b, ...) of a batch, without changing the encoder or a gradient to it."""
        with frozen(self.encoder):
            return self.encode(batch.x, batch.cond)[0]

    def fit_prior(self, batches: Iterable[Batch]) -> None:
        if self.code.fits:
            self.code.fit((self.codes(batch), batch.cond) for batch in batches)

    def prior(self, noise: Tensor, cond: Tensor | None) -> Tensor:
        return self.code(noise, cond)

    def vary(
        self, noise: Tensor, z: Tensor, x: Tensor, fresh: Tensor, cond: Tensor | None, how: float
    ) -> Tensor:
        posterior = self.encode(x, cond) if self.posterior else None
        return self.code.vary(noise, z, fresh, cond, how, posterior)

    def near_posterior(self, x: Tensor, fresh: Tensor, cond: Tensor | None, how: float) -> Tensor:
        """Codes near those of real images (b, c, h, w), ``how`` far in (0, 1]."""
        mu, logvar = self.encode(x, cond)
        return self.code.near_posterior(mu, logvar if self.stochastic else None, fresh, cond, how)


class Autoencoder(Encoding):
    """An encoder and a decoder of a vector code, and the prior of the codes between them.

    Args:
        shape: channels, size and conditions of the data.
        latent_dim: length of the code.
        network: architecture of encoder and decoder.
        width: channels of their first level.
        prior: how codes are distributed and drawn.
    """

    def __init__(
        self, shape: Shape, latent_dim: int, network: Network, width: int, prior: PriorOptions
    ) -> None:
        super().__init__()
        outputs = 2 * latent_dim if self.stochastic else latent_dim
        self.encoder = make_encoder(network, shape, outputs, width)
        self.decoder = make_decoder(network, shape, latent_dim, width)
        self.code = make_prior(prior, (latent_dim,), shape)
        share = LATE_SHARE if prior.share is None else prior.share
        self.prior_share = share if self.code.learns else 0.0
        self.shape, self.noise_shape = shape, self.code.noise_shape
        self.posterior = self.stochastic and self.noise_shape[0] >= latent_dim
        self.uncertainty = self.code.redraws(self.posterior)

    @abstractmethod
    def game_players(self) -> dict[str, tuple[nn.Module, ...]]:
        """The players before the prior's."""

    @abstractmethod
    def game(self, progress: float) -> Sequence[Turn]:
        """Their turns; ``progress`` is of their own part of the run."""

    @abstractmethod
    def game_optim(self, progress: float) -> dict[str, OptimizerSettings]:
        """How they step."""

    def players(self) -> dict[str, tuple[nn.Module, ...]]:
        return {**self.game_players(), **self.code.players()}

    def turns(self, progress: float) -> Sequence[Turn]:
        if progress < 1 - self.prior_share:
            return self.game(progress / (1 - self.prior_share))
        return self.code.turns(self.codes)

    def optim(self, progress: float) -> dict[str, OptimizerSettings]:
        own = 1 - self.prior_share
        late = max(progress - own, 0.0) / max(self.prior_share, 1e-9)
        pace = min(1.0, (late + 1e-3) / 0.03) * max(1 - late, 0.0) ** 0.5
        game = self.game_optim(min(progress / own, 1.0) if own else 1.0)
        return {**self.code.optim(PRIOR_LR * pace), **game}

    def encode(self, x: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | x), each (b, latent_dim)."""
        h = self.encoder(x, cond).float()
        if not self.stochastic:
            return h, torch.full_like(h, LOGVAR[0])
        mu, logvar = h.chunk(2, 1)
        return mu, logvar.clamp(*LOGVAR)

    def decode(self, z: Tensor, cond: Tensor | None) -> Tensor:
        return self.decoder(z, cond).float().tanh()
