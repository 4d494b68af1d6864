"""An autoencoder whose code is a small grid, and a patch discriminator.

At 64 pixels, stride 4 and width 24 the code is 16 x 16 x 4 and the two networks together have about
half a million weights.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from medaug.models.networks.blocks import ResBlock, group_norm, with_condition
from medaug.models.networks.norms import ConditionalBlock


def _widths(width: int, stride: int) -> list[int]:
    """Channels at each level: one level a halving, doubling up to four times the first."""
    return [width * min(2**level, 4) for level in range(int(math.log2(stride)))]


class SpatialEncoder(nn.Module):
    """Images (b, c, s, s) to mean and log-variance, each (b, code, s/stride, s/stride)."""

    def __init__(self, channels: int, code: int, width: int, stride: int, cond_dim: int) -> None:
        super().__init__()
        widths = _widths(width, stride)
        self.stem = nn.Conv2d(channels + cond_dim, width, 4, 2, 1)
        self.levels = nn.ModuleList(ResBlock(c_in, c_out) for c_in, c_out in pairwise(widths))
        self.body = ResBlock(widths[-1], 4 * width)
        self.norm = group_norm(4 * width)
        self.head = nn.Conv2d(4 * width, 2 * code, 3, padding=1)

    def forward(self, x: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        h = self.stem(with_condition(x, cond))
        for level in self.levels:
            h = F.avg_pool2d(level(h), 2)
        mu, logvar = self.head(F.silu(self.norm(self.body(h)))).float().chunk(2, 1)
        return mu, logvar.clamp(-10, 2)


class SpatialDecoder(nn.Module):
    """Codes (b, code, s/stride, s/stride) to raw outputs (b, c, s, s), before any squashing.

    Where the condition is planes (``spatial``) they enter every level by SPADE, and two layers at
    the image's own side see them as they are, so that no pixel of a mask is averaged away.
    """

    def __init__(
        self,
        channels: int,
        code: int,
        width: int,
        stride: int,
        cond_dim: int,
        spatial: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        widths = _widths(width, stride)[::-1]
        self.spatial = spatial
        layout = cond_dim if spatial else 0
        self.stem = nn.Conv2d(code + cond_dim, 4 * width, 3, padding=1)
        self.body = self.block(4 * width, widths[0], layout)
        self.levels = nn.ModuleList(
            self.block(c_in, c_out, layout) for c_in, c_out in pairwise(widths)
        )
        self.dropout = nn.Dropout2d(dropout) if dropout else nn.Identity()
        self.norm = group_norm(width)
        fine = width // 2 if spatial else channels
        self.head = nn.Conv2d(width, 4 * fine, 3, padding=1)
        self.edges = nn.Conv2d(fine + layout, width, 3, padding=1) if spatial else None
        self.last = nn.Conv2d(width, channels, 3, padding=1) if spatial else None

    @staticmethod
    def block(c_in: int, c_out: int, layout: int) -> nn.Module:
        return (
            ConditionalBlock(nn.Conv2d, c_in, c_out, 0, layout) if layout else ResBlock(c_in, c_out)
        )

    def forward(self, z: Tensor, cond: Tensor | None) -> Tensor:
        planes = (cond,) if self.spatial else ()
        h = self.dropout(self.body(self.stem(with_condition(z, cond)), *planes))
        for level in self.levels:
            h = F.interpolate(level(h, *planes), scale_factor=2.0, mode="nearest")
        h = F.pixel_shuffle(self.head(F.silu(self.norm(h))), 2)
        if self.edges is None or self.last is None or cond is None:
            return h
        return self.last(F.silu(self.edges(torch.cat([h, cond.to(h.dtype)], 1))))


class PatchDiscriminator(nn.Module):
    """Images (b, c, s, s) to patch logits (b, 1, s/4, s/4) and two feature maps, 1-Lipschitz-ish.

    Spectral norm on every layer (Miyato et al. 2018); no batch statistics.
    """

    def __init__(self, channels: int, width: int, cond_dim: int) -> None:
        super().__init__()
        sizes = [(channels + cond_dim, width, 3, 1), (width, 2 * width, 4, 2)]
        sizes += [(2 * width, 4 * width, 4, 2), (4 * width, 4 * width, 3, 1), (4 * width, 1, 3, 1)]
        self.layers = nn.ModuleList(
            spectral_norm(nn.Conv2d(c_in, c_out, kernel, stride, 1))
            for c_in, c_out, kernel, stride in sizes
        )

    def forward(self, x: Tensor, cond: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        h = with_condition(x, cond)
        features: list[Tensor] = []
        for layer in self.layers[:-1]:
            h = F.leaky_relu(layer(h), 0.2)
            features.append(h)
        return self.layers[-1](h), features[1:3]


def squash(raw: Tensor, images: int) -> Tensor:
    """Raw outputs to [-1, 1]: tanh for intensities; 2 sigmoid - 1 for mask logits."""
    return torch.cat([raw[:, :images].tanh(), (raw[:, images:] / 2).tanh()], 1)
