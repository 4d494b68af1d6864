"""Gradients of a VAE/GAN's three players by two backward passes through the discriminator.

Encoder and decoder both need the slope of the distance at the decoded images, and decoder and
discriminator both need that of the game, so each is taken once; the chain rule does the rest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

Way = Callable[[Sequence[nn.Parameter]], Sequence[Tensor]]
"""Gradients with respect to given parameters."""


@dataclass(frozen=True)
class Ways:
    """How each player's gradients are taken; None: by a backward pass of its own."""

    encoder: Way | None = None
    decoder: Way | None = None
    discriminator: Way | None = None


def shared(
    fakes: Tensor,
    distance: Tensor,
    game: Tensor,
    divergence: Tensor,
    share: float,
    against: float,
    judge: Sequence[nn.Parameter],
) -> Ways:
    """Ways to the gradients of each player's mean.

    Args:
        fakes: decoded images, which distance and game depend on.
        distance: what the encoder minimises beside the divergence.
        game: what the discriminator minimises.
        divergence: of the codes.
        share: weight of the distance for the decoder.
        against: weight of the game for the decoder.
        judge: the discriminator's parameters.
    """

    @cache
    def by_distance() -> Tensor:
        (slope,) = torch.autograd.grad(distance.float().mean(), fakes, retain_graph=True)
        return slope

    @cache
    def by_game() -> tuple[Tensor, ...]:
        return torch.autograd.grad(
            game.float().mean(), [fakes, *judge], retain_graph=True, materialize_grads=True
        )

    def encoder(parameters: Sequence[nn.Parameter]) -> Sequence[Tensor]:
        loss = divergence.float().mean()
        return _chained([loss, fakes], parameters, [torch.ones_like(loss), by_distance()])

    def decoder(parameters: Sequence[nn.Parameter]) -> Sequence[Tensor]:
        return _chained([fakes], parameters, [share * by_distance() + against * by_game()[0]])

    def discriminator(parameters: Sequence[nn.Parameter]) -> Sequence[Tensor]:
        places = {id(parameter): place for place, parameter in enumerate(judge, 1)}
        return [by_game()[places[id(parameter)]] for parameter in parameters]

    return Ways(encoder, decoder, discriminator)


def _chained(
    ends: Sequence[Tensor], parameters: Sequence[nn.Parameter], slopes: Sequence[Tensor]
) -> Sequence[Tensor]:
    return torch.autograd.grad(ends, parameters, slopes, retain_graph=True, materialize_grads=True)
