"""VAE/GAN of Larsen, Sonderby, Larochelle and Winther 2016, as resolved from their two codes.

Three players step at once from one forward pass.  The encoder minimises the KL and the distance
between x and its reconstruction in the discriminator's features (Eq. 7); the decoder a small share
of that distance and the game (Eq. 10); the discriminator the game alone.  Codes reach the game
without gradient to the encoder because the loop differentiates each player's own terms only.

In the saturating game the decoder maximises all that the discriminator minimises, as in the code of
the authors: what real images cost too, which batch norm makes depend on the fakes.  So one backward
pass through the discriminator serves both (`VAEGAN.surrogates`).

Deviations from the paper, after the authors' code: a saturating game and a margin gate that rests
the winning side; likelihoods per dimension, so that gamma, on half the summed squared distance,
becomes ``feature_weight`` = gamma n on half the mean over n = 16384 features.

Healthy: ``real`` and ``fake`` stay near 0.68 (the gate's equilibrium), ``distance`` falls, ``kl``
rises and settles.  ``real`` and ``fake`` both near 0 with a closed gate: the discriminator has won.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medaug.core.batch import Shape
from medaug.core.errors import ConfigError
from medaug.models.autoencoder import Autoencoder
from medaug.models.base import Batch, Move, OptimizerSettings, Turn
from medaug.models.losses import (
    fake_loss,
    gaussian_kl,
    half_squared_error,
    real_loss,
    reparametrise,
)
from medaug.models.networks.blocks import repeated
from medaug.models.networks.build import Network, make_discriminator
from medaug.models.priors import GAUSSIAN, PriorOptions
from medaug.runtime import collectives

EQUILIBRIUM = 0.68


class VAEGAN(Autoencoder):
    """Encoder, decoder and discriminator, which step at once.

    Args:
        shape: channels, size and conditions of the data.
        latent_dim: length of the code.
        network: architecture of all three networks.
        width: channels of their first level.
        feature_weight: weight of the feature distance in the decoder's move.
        real_weight: share of the real images in the discriminator's move.
        margin: half-width of the gate around the equilibrium.
        reconstructions_play: whether reconstructions face the discriminator beside samples.
        saturating: whether the decoder maximises the discriminator's loss, as the authors did.
        lr: RMSProp rate at the start, decaying to lr / 2000.
        prior: how codes are distributed and drawn.

    Raises:
        ConfigError: a share of the real images that leaves real ones or fakes out.
    """

    def __init__(
        self,
        shape: Shape,
        latent_dim: int = 128,
        network: Network = "larsen",
        width: int = 64,
        feature_weight: float = 0.164,
        real_weight: float = 0.66,
        margin: float = 0.35,
        reconstructions_play: bool = True,
        saturating: bool = True,
        lr: float = 3.1e-4,
        prior: PriorOptions = GAUSSIAN,
    ) -> None:
        super().__init__(shape, latent_dim, network, width, prior)
        if not 0 < real_weight < 1:
            raise ConfigError(
                f"config model.real_weight: a share above 0 and below 1, got {real_weight:g}"
            )
        self.discriminator = make_discriminator(network, shape, width)
        self.feature_weight, self.real_weight, self.margin = feature_weight, real_weight, margin
        self.reconstructions_play, self.saturating = reconstructions_play, saturating
        self.lr = lr

    def game_players(self) -> dict[str, tuple[nn.Module, ...]]:
        return {
            "encoder": (self.encoder,),
            "decoder": (self.decoder,),
            "discriminator": (self.discriminator,),
        }

    def game(self, progress: float) -> Sequence[Turn]:
        return [Turn(self.play)]

    def game_optim(self, progress: float) -> dict[str, OptimizerSettings]:
        rate = self.lr * (1 - progress**0.75 * (1 - 1 / 2000))
        step = OptimizerSettings(rate, "rmsprop", weight_decay=1e-5)
        return dict.fromkeys(self.game_players(), step)

    def play(self, batch: Batch) -> dict[str, Move]:
        x, cond = batch.x, batch.cond
        mu, logvar = self.encode(x, cond)
        z = reparametrise(mu, logvar)
        codes = torch.cat([z, torch.randn_like(z)])
        fakes = batch.seen(self.decode(codes, repeated(cond, 2)).to(x.dtype))
        logits, features = self.discriminator(torch.cat([x, fakes]), repeated(cond, 3))
        on_real, on_hat, on_prior = logits.chunk(3)
        f_real, f_hat, _ = features[-1].chunk(3)
        distance = half_squared_error(f_hat, f_real.detach())
        judged = [on_prior, on_hat] if self.reconstructions_play else [on_prior]
        real = real_loss(on_real)
        fake = torch.stack([fake_loss(logits) for logits in judged]).mean(0)
        divergence = gaussian_kl(mu, logvar)
        dimensions = f_real[0].numel() / mu[0].numel()
        surrogates: dict[str, Tensor] = {}
        if self.saturating:
            game = self.real_weight * real + (1 - self.real_weight) * fake
            against = -1 / (1 - self.real_weight)
            adversarial = against * game
            surrogates = self.surrogates(fakes, distance, game, divergence / dimensions, against)
        else:
            adversarial = torch.stack([real_loss(logits) for logits in judged]).mean(0)
        discriminator_moves, decoder_moves = self.gate(
            collectives.all_mean(real.mean()), collectives.all_mean(fake.mean())
        )
        return {
            "encoder": Move(
                {"kl": (1 / dimensions, divergence), "distance": (1.0, distance)},
                surrogate=surrogates.get("encoder"),
            ),
            "decoder": Move(
                {"distance": (self.feature_weight, distance), "adversarial": (1.0, adversarial)},
                decoder_moves,
                surrogates.get("decoder"),
            ),
            "discriminator": Move(
                {"real": (self.real_weight, real), "fake": (1 - self.real_weight, fake)},
                discriminator_moves,
                surrogates.get("discriminator"),
            ),
        }

    def surrogates(
        self, fakes: Tensor, distance: Tensor, game: Tensor, divergence: Tensor, against: float
    ) -> dict[str, Tensor]:
        """Each player's surrogate, by two backward passes through the discriminator, not three.

        Encoder and decoder both need the slope of the distance at the decoded images, decoder and
        discriminator both need that of the game, so each is taken once; the chain rule does the
        rest.

        Args:
            fakes: decoded images, which distance and game depend on.
            distance: what the encoder minimises beside the divergence.
            game: what the discriminator minimises.
            divergence: of the codes.
            against: weight of the game for the decoder.
        """
        judge = list(self.discriminator.parameters())
        (by_distance,) = torch.autograd.grad(distance.float().mean(), fakes, retain_graph=True)
        by_game, *slopes = torch.autograd.grad(
            game.float().mean(), [fakes, *judge], retain_graph=True, materialize_grads=True
        )
        pull = self.feature_weight * by_distance + against * by_game
        own = [(p.float() * slope).sum() for p, slope in zip(judge, slopes, strict=True)]
        return {
            "encoder": divergence.float().mean() + (fakes * by_distance).sum(),
            "decoder": (fakes * pull).sum(),
            "discriminator": torch.stack(own).sum(),
        }

    def gate(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Whether the discriminator and the decoder move; both do where neither would."""
        low, high = EQUILIBRIUM - self.margin, EQUILIBRIUM + self.margin
        discriminator = torch.minimum(real, fake) >= low
        decoder = torch.maximum(real, fake) <= high
        neither = ~(discriminator | decoder)
        return discriminator | neither, decoder | neither
