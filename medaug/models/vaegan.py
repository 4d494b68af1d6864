"""VAE/GAN of Larsen, Sonderby, Larochelle and Winther 2016, as resolved from their two codes.

Three players step at once from one forward pass.  The encoder minimises the KL and the distance
between x and its reconstruction in the discriminator's features (Eq. 7); the decoder a small share
of that distance and the game (Eq. 10); the discriminator the game alone.  Codes reach the game
without gradient to the encoder because the loop differentiates each player's own terms only.

Deviations from the paper, after the authors' code: a saturating game and a margin gate that rests
the winning side; likelihoods per dimension, so that gamma, on half the summed squared distance,
becomes ``feature_weight`` = gamma n on half the mean over n = 16384 features.

Healthy: ``real`` and ``fake`` stay near 0.68 (the gate's equilibrium), ``distance`` falls, ``kl``
rises and settles.  ``real`` and ``fake`` both near 0 with a closed gate: the discriminator has won.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medaug.losses import fake_loss, gaussian_kl, half_squared_error, real_loss, reparametrise
from medaug.models.base import Batch, Model, Move, Optim, Shape, Turn
from medaug.networks.larsen import LarsenDecoder, LarsenDiscriminator, LarsenEncoder

EQUILIBRIUM = 0.68


class VAEGAN(Model):
    """See the module's docstring.

    Args:
        shape: what the data dictate.
        latent_dim: dimensions of the code.
        feature_weight: weight of the feature distance in the decoder's move.
        real_weight: share of the real images in the discriminator's move.
        margin: half-width of the gate around the equilibrium.
        reconstructions_play: whether reconstructions face the discriminator beside samples.
        saturating: whether the decoder maximises the discriminator's loss, as the authors did.
        lr: RMSProp rate at the start, decaying to lr / 2000.
    """

    def __init__(
        self,
        shape: Shape,
        latent_dim: int = 128,
        feature_weight: float = 0.164,
        real_weight: float = 0.66,
        margin: float = 0.35,
        reconstructions_play: bool = True,
        saturating: bool = True,
        lr: float = 3.1e-4,
    ) -> None:
        super().__init__()
        channels, size, cond_dim = shape.channels, shape.size, shape.cond_dim
        self.encoder = LarsenEncoder(channels, size, latent_dim, cond_dim)
        self.decoder = LarsenDecoder(channels, size, latent_dim, cond_dim)
        self.discriminator = LarsenDiscriminator(channels, size, cond_dim)
        self.noise_shape = (latent_dim,)
        self.feature_weight, self.real_weight, self.margin = feature_weight, real_weight, margin
        self.reconstructions_play, self.saturating = reconstructions_play, saturating
        self.lr = lr

    uncertainty = "a draw of q(z | x)"

    def players(self) -> dict[str, tuple[nn.Module, ...]]:
        return {
            "encoder": (self.encoder,),
            "decoder": (self.decoder,),
            "discriminator": (self.discriminator,),
        }

    def turns(self, progress: float) -> Sequence[Turn]:
        return [Turn(self.play)]

    def optim(self, progress: float) -> dict[str, Optim]:
        rate = self.lr * (1 - progress**0.75 * (1 - 1 / 2000))
        step = Optim(rate, "rmsprop", weight_decay=1e-5)
        return dict.fromkeys(self.players(), step)

    def play(self, batch: Batch) -> dict[str, Move]:
        x, cond = batch.x, batch.cond
        mu, logvar = self.encoder(x, cond)
        z = reparametrise(mu, logvar)
        codes = torch.cat([z, torch.randn_like(z)])
        fakes = self.decoder(codes, None if cond is None else cond.repeat(2, 1))
        logits, features = self.discriminator(
            torch.cat([x, fakes]), None if cond is None else cond.repeat(3, 1)
        )
        on_real, on_hat, on_prior = logits.chunk(3)
        f_real, f_hat, _ = features.chunk(3)
        distance = half_squared_error(f_hat, f_real.detach())
        real, fake = real_loss(on_real), fake_loss(on_prior)
        escape = -fake if self.saturating else real_loss(on_prior)
        if self.reconstructions_play:
            fake = (fake + fake_loss(on_hat)) / 2
            escape = (escape + (-fake_loss(on_hat) if self.saturating else real_loss(on_hat))) / 2
        dimensions = f_real[0].numel() / mu[0].numel()
        discriminator_moves, decoder_moves = self.gate(real.mean(), fake.mean())
        return {
            "encoder": Move(
                {"kl": (1 / dimensions, gaussian_kl(mu, logvar)), "distance": (1.0, distance)}
            ),
            "decoder": Move(
                {"distance": (self.feature_weight, distance), "adversarial": (1.0, escape)},
                decoder_moves,
            ),
            "discriminator": Move(
                {"real": (self.real_weight, real), "fake": (1 - self.real_weight, fake)},
                discriminator_moves,
            ),
        }

    def gate(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Whether the discriminator and the decoder move; both do where neither would."""
        low, high = EQUILIBRIUM - self.margin, EQUILIBRIUM + self.margin
        discriminator = torch.minimum(real, fake) >= low
        decoder = torch.maximum(real, fake) <= high
        neither = ~(discriminator | decoder)
        return discriminator | neither, decoder | neither

    def encode(self, x: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | x), each (b, latent_dim)."""
        return self.encoder(x, cond)

    def prior(self, noise: Tensor, cond: Tensor | None) -> Tensor:
        return noise

    def decode(self, z: Tensor, cond: Tensor | None) -> Tensor:
        return self.decoder(z, cond).float()

    def vary(
        self, noise: Tensor, z: Tensor, x: Tensor, fresh: Tensor, cond: Tensor | None, how: float
    ) -> Tensor:
        """A draw of q(z | x) with its deviation scaled by 2 ``how``, so 0.5 is the posterior."""
        mu, logvar = self.encode(x, cond)
        return mu + 2 * how * (0.5 * logvar).exp() * fresh
