"""VAE/GAN of Larsen, Sonderby, Larochelle and Winther 2016, as resolved from their two codes.

Three players step at once from one forward pass.  The encoder minimises the KL and the distance
between x and its reconstruction in the discriminator's features (Eq. 7); the decoder a small share
of that distance and the game (Eq. 10); the discriminator the game alone.  Codes reach the game
without gradient to the encoder because the loop differentiates each player's own terms only.

In the saturating game the decoder maximises all that the discriminator minimises, as in the code of
the authors: what real images cost too, which batch norm makes depend on the fakes.  So one backward
pass through the discriminator serves both (`VAEGAN.shared`).

Deviations from the paper, after the authors' code: a saturating game and a margin gate that rests
the winning side; likelihoods per dimension, so that gamma, on half the summed squared distance,
becomes ``feature_weight`` = gamma n on half the mean over n = 16384 features.

Healthy: ``real`` and ``fake`` stay near 0.68 (the gate's equilibrium), ``distance`` falls, ``kl``
rises and settles.  ``real`` and ``fake`` both near 0 with a closed gate: the discriminator has won.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

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

Slopes = Callable[[], tuple[Sequence[Tensor], Sequence[Tensor]]]
"""Makes tensors inside the graph, and the gradients of a total at them."""


class _FromSlopes(torch.autograd.Function):
    """A loss whose backward pass starts at tensors inside the graph, from slopes known there."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, slopes: Sequence[Tensor], *at: Tensor) -> Tensor:
        ctx.slopes = slopes
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(up * slope for slope in ctx.slopes)


@dataclass(frozen=True, eq=False, kw_only=True)
class SharedMove(Move):
    """A move that takes the start of its backward pass from passes it shares with other moves.

    Attributes:
        slopes: gives the tensors that the backward pass starts at, and the gradients there.
    """

    slopes: Slopes

    def total(self) -> Tensor:
        """The weighted sum of the terms' means, in float32."""
        at, slopes = self.slopes()
        return _FromSlopes.apply(super().total().detach(), slopes, *at)


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
        faced = [on_prior, on_hat] if self.reconstructions_play else [on_prior]
        real = real_loss(on_real)
        fake = torch.stack([fake_loss(logits) for logits in faced]).mean(0)
        divergence = gaussian_kl(mu, logvar)
        dimensions = f_real[0].numel() / mu[0].numel()
        game = self.real_weight * real + (1 - self.real_weight) * fake
        against = -1 / (1 - self.real_weight)
        if self.saturating:
            adversarial = against * game
        else:
            adversarial = torch.stack([real_loss(logits) for logits in faced]).mean(0)
        discriminator_moves, decoder_moves = self.gate(
            collectives.all_mean(real.mean()), collectives.all_mean(fake.mean())
        )
        moves = {
            "encoder": Move({"kl": (1 / dimensions, divergence), "distance": (1.0, distance)}),
            "decoder": Move(
                {"distance": (self.feature_weight, distance), "adversarial": (1.0, adversarial)},
                decoder_moves,
            ),
            "discriminator": Move(
                {"real": (self.real_weight, real), "fake": (1 - self.real_weight, fake)},
                discriminator_moves,
            ),
        }
        if not self.saturating:
            return moves
        return self.shared(moves, fakes, distance, game, divergence / dimensions, against)

    def shared(
        self,
        moves: Mapping[str, Move],
        fakes: Tensor,
        distance: Tensor,
        game: Tensor,
        divergence: Tensor,
        against: float,
    ) -> dict[str, Move]:
        """The same moves, by two backward passes through the discriminator instead of three.

        Encoder and decoder both need the slope of the distance at the decoded images, decoder and
        discriminator both need that of the game, so each is taken once; the chain rule does the
        rest.

        Args:
            moves: by player.
            fakes: decoded images, which distance and game depend on.
            distance: what the encoder minimises beside the divergence, (b,).
            game: what the discriminator minimises, (b,).
            divergence: of the codes, as it weighs for the encoder, (b,).
            against: weight of the game for the decoder.
        """
        discriminator = list(self.discriminator.parameters())

        @cache
        def by_distance() -> Tensor:
            (slope,) = torch.autograd.grad(distance.float().mean(), fakes, retain_graph=True)
            return slope

        @cache
        def by_game() -> tuple[Tensor, ...]:
            at = [fakes, *discriminator]
            loss = game.float().mean()
            return torch.autograd.grad(loss, at, retain_graph=True, materialize_grads=True)

        kl, weight = divergence.float().mean(), self.feature_weight
        slopes: dict[str, Slopes] = {
            "encoder": lambda: ([kl, fakes], [torch.ones_like(kl), by_distance()]),
            "decoder": lambda: ([fakes], [weight * by_distance() + against * by_game()[0]]),
            "discriminator": lambda: (discriminator, by_game()[1:]),
        }
        return {
            player: SharedMove(move.terms, move.when, slopes=slopes[player])
            for player, move in moves.items()
        }

    def gate(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Whether the discriminator and the decoder move; both do where neither would."""
        low, high = EQUILIBRIUM - self.margin, EQUILIBRIUM + self.margin
        discriminator = torch.minimum(real, fake) >= low
        decoder = torch.maximum(real, fake) <= high
        neither = ~(discriminator | decoder)
        return discriminator | neither, decoder | neither
