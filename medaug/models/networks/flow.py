"""The velocity field of a rectified flow on code grids (Liu et al. 2022), and its integration."""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medaug.models.networks.blocks import Attention, ResBlock, group_norm, joined, with_condition

TIMES = 64


class Velocity(nn.Module):
    """v(z_t, t): codes (b, code, g, g) and times (b,) in [0, 1] to velocities of the same shape.

    Six residual blocks, the time embedding added before each; attention after the third and fifth.
    They work on cells of ``patch`` x ``patch`` codes at once.  A condition joins the time, or,
    where it is planes (``spatial``), the codes.
    """

    def __init__(
        self, code: int, grid: int, patch: int, width: int, cond_dim: int, spatial: bool = False
    ) -> None:
        super().__init__()
        self.patch, self.spatial = patch, spatial
        planes, cond_dim = (cond_dim * patch**2, 0) if spatial else (0, cond_dim)
        code, grid = code * patch**2, grid // patch
        self.stem = nn.Conv2d(code + planes, width, 3, padding=1)
        self.position = nn.Parameter(torch.zeros(1, width, grid, grid))
        self.embed = nn.Sequential(
            nn.Linear(TIMES + cond_dim, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)
        )
        self.shifts = nn.ModuleList(nn.Linear(width, width) for _ in range(6))
        self.blocks = nn.ModuleList(ResBlock(width, width) for _ in range(6))
        self.attention = nn.ModuleDict({str(i): Attention(width) for i in (2, 4)})
        self.norm = group_norm(width)
        self.head = nn.Conv2d(width, code, 3, padding=1)

    def forward(self, z: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        seen, row = (with_condition(z, cond), None) if self.spatial else (z, cond)
        h = self.stem(F.pixel_unshuffle(seen, self.patch)) + self.position
        when = self.embed(joined(waves(t), row))
        for i, (shift, block) in enumerate(zip(self.shifts, self.blocks, strict=True)):
            h = block(h + shift(F.silu(when))[:, :, None, None])
            if str(i) in self.attention:
                h = self.attention[str(i)](h)
        return F.pixel_shuffle(self.head(F.silu(self.norm(h))), self.patch).float()


def waves(t: Tensor) -> Tensor:
    """Sines and cosines of times (b,) at geometric frequencies, (b, 64)."""
    rates = torch.exp(torch.linspace(0, math.log(1000), TIMES // 2, device=t.device))
    angles = t[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


def integrate(
    velocity: Callable[[Tensor, Tensor], Tensor], z: Tensor, start: float, steps: int
) -> Tensor:
    """Carry codes from time ``start`` to 1 by ``steps`` Heun steps, the last one Euler."""
    times = torch.linspace(start, 1, steps + 1, dtype=torch.float64).tolist()
    for i, (now, then) in enumerate(pairwise(times)):
        step = then - now
        here = velocity(z, torch.full((len(z),), now, device=z.device))
        z_next = z + step * here
        if i < steps - 1:
            there = velocity(z_next, torch.full((len(z),), then, device=z.device))
            z_next = z + step * (here + there) / 2
        z = z_next
    return z
