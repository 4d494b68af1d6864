"""Residual networks of Sagar 2020 (GVAE): two blocks at each of three sides.

Encoder and discriminator have one body, each its own weights; batch norm and dropout are in encoder
and decoder alone, since the critic is penalised per sample.
"""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from medaug.core.batch import Shape
from medaug.models.networks.blocks import check, halvings, joined, with_condition

LEVELS = 2
DROPOUT = 0.3


class _Block(nn.Module):
    """conv3, norm, leaky ReLU, dropout, conv3, norm, plus the identity or a 1 x 1 skip."""

    def __init__(self, c_in: int, c_out: int, plain: bool) -> None:
        super().__init__()

        def norm() -> nn.Module:
            return nn.Identity() if plain else nn.BatchNorm2d(c_out)

        self.body = nn.Sequential(
            nn.Conv2d(c_in, c_out, 3, padding=1),
            norm(),
            nn.LeakyReLU(0.2),
            nn.Dropout2d(0.0 if plain else DROPOUT),
            nn.Conv2d(c_out, c_out, 3, padding=1),
            norm(),
        )
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.skip(x) + self.body(x), 0.2)


class _Body(nn.Module):
    """Images to (b, 4 width, s/4, s/4)."""

    def __init__(self, shape: Shape, width: int, plain: bool) -> None:
        super().__init__()
        check(shape, "gvae")
        self.stem = nn.Conv2d(shape.channels + shape.cond_dim, width, 3, padding=1)
        widths = [width, width, 2 * width, 4 * width]
        self.levels = nn.ModuleList(
            nn.Sequential(_Block(c_in, c_out, plain), _Block(c_out, c_out, plain))
            for c_in, c_out in pairwise(widths)
        )
        self.flat = widths[-1] * halvings(shape.size, LEVELS)[-1] ** 2

    def forward(self, x: Tensor, cond: Tensor | None) -> Tensor:
        h = self.stem(with_condition(x, cond))
        for number, level in enumerate(self.levels):
            h = level(F.avg_pool2d(h, 2, ceil_mode=True) if number else h)
        return h


class GVAEEncoder(nn.Module):
    """Images (b, c, s, s) and cond to (b, outputs)."""

    def __init__(self, shape: Shape, outputs: int, width: int) -> None:
        super().__init__()
        self.body = _Body(shape, width, plain=False)
        self.fc = nn.Linear(self.body.flat, outputs)

    def forward(self, x: Tensor, cond: Tensor | None) -> Tensor:
        return self.fc(self.body(x, cond).flatten(1)).float()


class GVAEDecoder(nn.Module):
    """Codes (b, latent) and cond to images (b, c, s, s) before tanh."""

    def __init__(self, shape: Shape, latent: int, width: int) -> None:
        super().__init__()
        check(shape, "gvae")
        self.sizes = halvings(shape.size, LEVELS)[::-1]
        widths = [4 * width, 4 * width, 2 * width, width]
        self.start = (widths[0], self.sizes[0], self.sizes[0])
        self.fc = nn.Linear(latent + shape.cond_dim, widths[0] * self.sizes[0] ** 2)
        self.levels = nn.ModuleList(
            nn.Sequential(_Block(c_in, c_out, False), _Block(c_out, c_out, False))
            for c_in, c_out in pairwise(widths)
        )
        self.head = nn.Conv2d(width, shape.channels, 3, padding=1)

    def forward(self, z: Tensor, cond: Tensor | None) -> Tensor:
        h = self.fc(joined(z, cond)).unflatten(1, self.start)
        for level, side in zip(self.levels, self.sizes, strict=True):
            h = level(F.interpolate(h, size=(side, side), mode="nearest"))
        return self.head(h)


class GVAEDiscriminator(nn.Module):
    """Images (b, c, s, s) and cond to scores (b,) and [the body's output]; no norm, no dropout."""

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        self.body = _Body(shape, width, plain=True)
        self.fc = nn.Linear(self.body.flat, 1)

    def forward(self, x: Tensor, cond: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        h = self.body(x, cond)
        return self.fc(h.flatten(1))[:, 0].float(), [h]
