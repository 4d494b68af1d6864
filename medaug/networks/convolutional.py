"""Generators and critics for WGAN-GP: the plain ones of the paper's code, and residual ones.

Both families go through the sides that stride-2 convolutions make of the image's, so 28 pixels
are as good as 64 or 128; neither has batch statistics.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medaug.networks.blocks import ResBlock, group_norm, with_condition
from medaug.networks.larsen import halvings


def _levels(size: int) -> int:
    return max(1, (size - 1).bit_length() - 2)


def _widths(width: int, levels: int) -> list[int]:
    return [width * 2 ** min(level, 2) for level in range(levels)]


class PlainGenerator(nn.Module):
    """Codes (b, latent) to images (b, c, s, s) in [-1, 1] by 5 x 5 transposed convolutions."""

    def __init__(self, channels: int, size: int, latent: int, width: int, cond_dim: int) -> None:
        super().__init__()
        self.sizes = halvings(size, _levels(size))[::-1]
        widths = [*_widths(width, _levels(size))[::-1], channels]
        self.start = (widths[0], self.sizes[0], self.sizes[0])
        self.fc = nn.Linear(latent + cond_dim, widths[0] * self.sizes[0] ** 2)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(c_in, c_out, 5, 2, 2) for c_in, c_out in pairwise(widths)
        )

    def forward(self, z: Tensor, cond: Tensor | None) -> Tensor:
        h = self.fc(z if cond is None else torch.cat([z, cond.to(z.dtype)], 1))
        h = h.unflatten(1, self.start)
        for up, side in zip(self.up, self.sizes[1:], strict=True):
            h = up(h.relu(), output_size=[side, side])
        return h.tanh()


class PlainCritic(nn.Module):
    """Images (b, c, s, s) to scores (b,) by 5 x 5 strided convolutions and leaky ReLU."""

    def __init__(self, channels: int, size: int, width: int, cond_dim: int) -> None:
        super().__init__()
        widths = [channels + cond_dim, *_widths(width, _levels(size))]
        self.down = nn.ModuleList(
            nn.Conv2d(c_in, c_out, 5, 2, 2) for c_in, c_out in pairwise(widths)
        )
        self.fc = nn.Linear(widths[-1] * halvings(size, _levels(size))[-1] ** 2, 1)

    def forward(self, x: Tensor, cond: Tensor | None) -> Tensor:
        h = with_condition(x, cond)
        for down in self.down:
            h = F.leaky_relu(down(h), 0.2)
        return self.fc(h.flatten(1))[:, 0].float()


class ResidualGenerator(nn.Module):
    """Codes (b, latent) to images (b, c, s, s) in [-1, 1]: residual blocks, nearest upsampling."""

    def __init__(self, channels: int, size: int, latent: int, width: int, cond_dim: int) -> None:
        super().__init__()
        self.sizes = halvings(size, _levels(size))[::-1]
        widths = [*_widths(width, _levels(size))[::-1], width]
        self.start = (widths[0], self.sizes[0], self.sizes[0])
        self.fc = nn.Linear(latent + cond_dim, widths[0] * self.sizes[0] ** 2)
        self.blocks = nn.ModuleList(ResBlock(c_in, c_out) for c_in, c_out in pairwise(widths))
        self.norm = group_norm(width)
        self.head = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, z: Tensor, cond: Tensor | None) -> Tensor:
        h = self.fc(z if cond is None else torch.cat([z, cond.to(z.dtype)], 1))
        h = h.unflatten(1, self.start)
        for block, side in zip(self.blocks, self.sizes[1:], strict=True):
            h = block(F.interpolate(h, size=(side, side), mode="nearest"))
        return self.head(F.silu(self.norm(h))).tanh()


class _Downward(nn.Module):
    """A residual block without norm that halves the side; (b, c_in, s, s) to (b, c_out, s/2)."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.skip = nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.leaky_relu(self.conv1(F.leaky_relu(x, 0.2)), 0.2))
        return F.avg_pool2d(h + self.skip(x), 2, ceil_mode=True)


class ResidualCritic(nn.Module):
    """Images (b, c, s, s) to scores (b,): residual blocks without any normalisation."""

    def __init__(self, channels: int, size: int, width: int, cond_dim: int) -> None:
        super().__init__()
        widths = _widths(width, _levels(size))
        self.stem = nn.Conv2d(channels + cond_dim, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            _Downward(c_in, c_out) for c_in, c_out in zip([width, *widths], widths, strict=False)
        )
        self.fc = nn.Linear(widths[-1] * halvings(size, _levels(size))[-1] ** 2, 1)

    def forward(self, x: Tensor, cond: Tensor | None) -> Tensor:
        h = self.stem(with_condition(x, cond))
        for block in self.blocks:
            h = block(h)
        return self.fc(F.leaky_relu(h, 0.2).flatten(1))[:, 0].float()
