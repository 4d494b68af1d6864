"""The modern family: residual networks for any size and for two or three dimensions.

Group norm in encoder and decoder, no norm in the discriminator; resampling by nearest neighbour or
linearly, never by transposed convolution.  A condition is concatenated (``condition: concat``), or
it scales and shifts the norms and is projected onto the discriminator's features (``projection``:
Dumoulin et al. 2017; Miyato and Koyama 2018).  A layout scales and shifts the decoder's norms at
every position (SPADE, Park et al. 2019) and joins the channels of what the others see.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from medaug.core.batch import Shape
from medaug.core.errors import ConfigError
from medaug.models.networks.blocks import check, feature_level, halvings, joined, with_condition
from medaug.models.networks.convolutional import he, levels, widths
from medaug.models.networks.norms import ConditionalBlock, ConditionalNorm

CONDITIONS = ("concat", "projection")
RESAMPLING = ("nearest", "bilinear")


def _layers(dims: int) -> tuple[Any, nn.Module]:
    """Convolution and halving pool of 2 or 3 dimensions, by MONAI's factories.

    MONAI loads readers of medical images, which runs with other networks need not wait for.
    """
    from monai.networks.layers.factories import Conv, Pool

    return Conv[Conv.CONV, dims], Pool[Pool.AVG, dims](2, ceil_mode=True)


def _one_of(value: str, known: tuple[str, ...], what: str) -> str:
    if value not in known:
        raise ConfigError(
            f"config model.network.{what}: {value!r} is not known (known: {', '.join(known)})"
        )
    return value


def _projects(condition: str, shape: Shape) -> bool:
    """Whether a condition is projected; a layout keeps its place and is always concatenated."""
    return _one_of(condition, CONDITIONS, "condition") == "projection" and not shape.layout


def _he(module: nn.Module) -> None:
    he(module)
    if isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, a=0.2)


class ResidualEncoder(nn.Module):
    """Images (b, c, ...) and cond to (b, outputs)."""

    def __init__(self, shape: Shape, outputs: int, width: int, condition: str = "concat") -> None:
        super().__init__()
        check(shape, "residual", (2, 3))
        self.project = _projects(condition, shape)
        dims, count = shape.spatial_dims, levels(shape.size)
        (conv, self.pool), sizes = _layers(dims), widths(width, count)
        projected = shape.cond_dim if self.project else 0
        self.stem = conv(shape.channels + shape.cond_dim - projected, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            ConditionalBlock(conv, a, b, projected)
            for a, b in zip([width, *sizes], sizes, strict=False)
        )
        self.norm = ConditionalNorm(conv, sizes[-1], projected)
        self.fc = nn.Linear(sizes[-1] * halvings(shape.size, count)[-1] ** dims, outputs)
        self.apply(_he)

    def forward(self, x: Tensor, cond: Tensor | None) -> Tensor:
        h = self.stem(x if self.project else with_condition(x, cond))
        for block in self.blocks:
            h = self.pool(block(h, cond))
        return self.fc(F.silu(self.norm(h, cond)).flatten(1)).float()


class ResidualDecoder(nn.Module):
    """Codes (b, latent) and cond to images (b, c, ...) before tanh."""

    def __init__(
        self,
        shape: Shape,
        latent: int,
        width: int,
        condition: str = "concat",
        resample: str = "nearest",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check(shape, "residual", (2, 3))
        self.project = _projects(condition, shape)
        dims, count = shape.spatial_dims, levels(shape.size)
        linear = "bilinear" if dims == 2 else "trilinear"
        self.mode = linear if _one_of(resample, RESAMPLING, "resample") == "bilinear" else "nearest"
        conv, _ = _layers(dims)
        projected = shape.cond_dim if self.project else 0
        self.sizes = halvings(shape.size, count)[::-1]
        sizes = [*widths(width, count)[::-1], width]
        self.start = (sizes[0], *[self.sizes[0]] * dims)
        drop = nn.Dropout2d if dims == 2 else nn.Dropout3d
        self.dropout = drop(dropout) if dropout else nn.Identity()
        self.fc = nn.Linear(latent + shape.cond_dim - projected, sizes[0] * self.sizes[0] ** dims)
        spatial = shape.cond_dim if shape.layout else 0
        self.blocks = nn.ModuleList(
            ConditionalBlock(conv, a, b, projected, spatial) for a, b in pairwise(sizes)
        )
        self.norm = ConditionalNorm(conv, width, projected, spatial)
        self.head = conv(width, shape.channels, 3, padding=1)
        self.apply(_he)

    def forward(self, z: Tensor, cond: Tensor | None) -> Tensor:
        h = self.fc(z if self.project else joined(z, cond)).unflatten(1, self.start)
        h = self.dropout(h)
        for block, side in zip(self.blocks, self.sizes[1:], strict=True):
            h = block(F.interpolate(h, size=[side] * (h.ndim - 2), mode=self.mode), cond)
        return self.head(F.silu(self.norm(h, cond)))


class _Down(nn.Module):
    """A residual block without norm that halves the side, rounding up."""

    def __init__(self, make: Callable[..., nn.Module], pool: nn.Module, a: int, b: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = make(a, b, 3, padding=1), make(b, b, 3, padding=1)
        self.skip, self.pool = make(a, b, 1), pool

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.leaky_relu(self.conv1(F.leaky_relu(x, 0.2)), 0.2))
        return self.pool(h + self.skip(x))


class ResidualDiscriminator(nn.Module):
    """Images (b, c, ...) and cond to logits (b,) and [the level's output nearest 8 x 8]; no norm.

    Args:
        shape: channels, size and conditions of the data.
        width: channels at the image's end.
        condition: ``concat`` or ``projection``.
        spectral: whether every layer is divided by its spectral norm (Miyato et al. 2018).
    """

    def __init__(
        self, shape: Shape, width: int, condition: str = "concat", spectral: bool = False
    ) -> None:
        super().__init__()
        check(shape, "residual", (2, 3))
        self.project = _projects(condition, shape)
        dims, count = shape.spatial_dims, levels(shape.size)
        (conv, pool), sizes = _layers(dims), widths(width, count)
        projected = shape.cond_dim if self.project else 0
        self.stem = conv(shape.channels + shape.cond_dim - projected, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            _Down(conv, pool, a, b) for a, b in zip([width, *sizes], sizes, strict=False)
        )
        sides = halvings(shape.size, count)
        self.fc = nn.Linear(sizes[-1] * sides[-1] ** dims, 1)
        self.embed = nn.Linear(projected, sizes[-1], bias=False) if projected else None
        self.layer = feature_level(sides[1:])
        self.apply(_he)
        if spectral:
            for module in list(self.modules()):
                if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear):
                    spectral_norm(module)

    def forward(self, x: Tensor, cond: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        h = self.stem(x if self.project else with_condition(x, cond))
        outputs = []
        for block in self.blocks:
            h = block(h)
            outputs.append(h)
        h = F.leaky_relu(h, 0.2)
        score = self.fc(h.flatten(1))[:, 0]
        if self.embed is not None and cond is not None:
            pooled = h.flatten(2).mean(2)
            score = score + torch.sum(self.embed(cond.to(pooled.dtype)) * pooled, 1)
        return score.float(), [outputs[self.layer]]
