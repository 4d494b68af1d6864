"""What several networks share: conditions beside features, blocks, the sides of layers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medaug.core.batch import Shape
from medaug.core.errors import ConfigError

SMALLEST = 8
"""Pixels a side of the smallest images that networks take."""


def with_condition(x: Tensor, cond: Tensor | None) -> Tensor:
    """``x`` (b, c, ...) with ``cond`` as k planes behind its channels: (b, k) as constant ones."""
    return x if cond is None else torch.cat([x, planes(cond, x).to(x.dtype)], 1)


def planes(cond: Tensor, x: Tensor) -> Tensor:
    """A condition as planes (b, k, ...) of the size of ``x``, averaged over areas where larger."""
    if cond.ndim == 2:
        return cond.view(*cond.shape, *[1] * (x.ndim - 2)).expand(-1, -1, *x.shape[2:])
    if cond.shape[2:] == x.shape[2:]:
        return cond
    return F.interpolate(cond, x.shape[2:], mode="area")


def joined(h: Tensor, cond: Tensor | None) -> Tensor:
    """Rows (b, d) with the condition behind them: numbers, or the means of planes."""
    if cond is None:
        return h
    return torch.cat([h, numbers(cond).to(h.dtype)], 1)


def numbers(cond: Tensor) -> Tensor:
    """A condition as numbers (b, k): planes become their means."""
    return cond if cond.ndim == 2 else cond.flatten(2).mean(2)


def repeated(cond: Tensor | None, times: int) -> Tensor | None:
    """The condition of a batch that holds ``times`` draws for each sample."""
    return None if cond is None else torch.cat([cond] * times)


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm with 8 groups, or fewer where 8 do not divide the channels."""
    return nn.GroupNorm(next(g for g in (8, 4, 2, 1) if channels % g == 0), channels)


class ResBlock(nn.Module):
    """norm, SiLU, conv3, norm, SiLU, conv3, plus the identity or a 1 x 1 skip; (b, c, h, w)."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = group_norm(c_in), nn.Conv2d(c_in, c_out, 3, padding=1)
        self.norm2, self.conv2 = group_norm(c_out), nn.Conv2d(c_out, c_out, 3, padding=1)
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


class Attention(nn.Module):
    """Self-attention over positions with a residual; (b, c, h, w) to the same."""

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, h * w)
        q, k, v = qkv.transpose(-1, -2).unbind(1)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(mixed.transpose(-1, -2).reshape(b, c, h, w))


def halvings(size: int, levels: int) -> list[int]:
    """``size`` and what stride-2 convolutions make of it: 28 gives [28, 14, 7, 4]."""
    sizes = [size]
    for _ in range(levels):
        sizes.append((sizes[-1] + 1) // 2)
    return sizes


def feature_level(sides: Sequence[int]) -> int:
    """Which of ``sides`` is nearest the 8 pixels of Larsen's layer l: of [14, 7, 4] number 1."""
    return min(range(len(sides)), key=lambda level: abs(sides[level] - 8))


def check(shape: Shape, family: str, dims: tuple[int, ...] = (2,)) -> None:
    """Refuse data that a family of networks cannot take.

    Args:
        shape: channels, size and conditions of the data.
        family: its name, for the message.
        dims: numbers of spatial dimensions that it takes.

    Raises:
        ConfigError: names the size or dimensions seen and those that are accepted.
    """
    if shape.size < SMALLEST:
        raise ConfigError(
            f"config data.size: {shape.size} is too small for {family} networks, which take "
            f"{SMALLEST} pixels and more"
        )
    if shape.spatial_dims not in dims:
        raise ConfigError(
            f"config model.network: {family} networks are two-dimensional, the data have "
            f"{shape.spatial_dims} dimensions; use residual"
        )
