"""Perceptrons for images: two hidden layers with batch norm, as Larsen et al. used on digits.

Their width of 1024 is that of ``width`` 64.
"""

import math

from torch import Tensor, nn

from medaug.core.batch import Shape
from medaug.models.networks.blocks import check, joined
from medaug.models.networks.larsen import initialise


def _pixels(shape: Shape) -> tuple[int, ...]:
    check(shape, "mlp", (2, 3))
    return (shape.channels, *[shape.size] * shape.spatial_dims)


def _hidden(c_in: int, c_out: int) -> list[nn.Module]:
    return [nn.Linear(c_in, c_out, bias=False), nn.BatchNorm1d(c_out), nn.ReLU()]


class MlpEncoder(nn.Module):
    """Images (b, c, ...) and cond to (b, outputs)."""

    def __init__(self, shape: Shape, outputs: int, width: int) -> None:
        super().__init__()
        wide, pixels = 16 * width, math.prod(_pixels(shape))
        self.layers = nn.Sequential(
            *_hidden(pixels + shape.cond_dim, wide), *_hidden(wide, wide), nn.Linear(wide, outputs)
        )
        self.apply(initialise)

    def forward(self, x: Tensor, cond: Tensor | None) -> Tensor:
        return self.layers(joined(x.flatten(1), cond)).float()


class MlpDecoder(nn.Module):
    """Codes (b, latent) and cond to images (b, c, ...) before tanh."""

    def __init__(self, shape: Shape, latent: int, width: int) -> None:
        super().__init__()
        wide, self.pixels = 16 * width, _pixels(shape)
        self.layers = nn.Sequential(
            *_hidden(latent + shape.cond_dim, wide),
            *_hidden(wide, wide),
            nn.Linear(wide, math.prod(self.pixels)),
        )
        self.apply(initialise)

    def forward(self, z: Tensor, cond: Tensor | None) -> Tensor:
        return self.layers(joined(z, cond)).unflatten(1, self.pixels)


class MlpDiscriminator(nn.Module):
    """Images (b, c, ...) and cond to logits (b,) and [the second layer before its norm]."""

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        wide, pixels = 16 * width, math.prod(_pixels(shape))
        self.body = nn.Sequential(
            *_hidden(pixels + shape.cond_dim, wide), nn.Linear(wide, wide, bias=False)
        )
        self.rest = nn.Sequential(nn.BatchNorm1d(wide), nn.ReLU(), nn.Linear(wide, 1))
        self.apply(initialise)

    def forward(self, x: Tensor, cond: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        features = self.body(joined(x.flatten(1), cond))
        return self.rest(features)[:, 0].float(), [features]
