"""Perceptrons on codes: a plain stack, and the velocity field of a flow on vectors."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from medaug.networks.blocks import joined
from medaug.networks.flow import TIMES, waves


class Mlp(nn.Sequential):
    """Linear layers of ``sizes`` with leaky ReLU or ELU between; (b, first) to (b, last).

    ``norm`` puts batch norm before each of them.
    """

    def __init__(
        self, sizes: Sequence[int], slope: float, norm: bool = False, elu: bool = False
    ) -> None:
        layers: list[nn.Module] = []
        for c_in, c_out in pairwise(sizes[:-1]):
            layers.append(nn.Linear(c_in, c_out))
            if norm:
                layers.append(nn.BatchNorm1d(c_out))
            layers.append(nn.ELU() if elu else nn.LeakyReLU(slope))
        super().__init__(*layers, nn.Linear(sizes[-2], sizes[-1]))


class VelocityMlp(nn.Module):
    """v(z_t, t): codes (b, d) and times (b,) in [0, 1] to velocities (b, d).

    Three residual blocks, the time and condition added before each.
    """

    BLOCKS = 3

    def __init__(self, dim: int, width: int, cond_dim: int) -> None:
        super().__init__()
        self.stem = nn.Linear(dim, width)
        self.embed = nn.Sequential(
            nn.Linear(TIMES + cond_dim, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
                nn.Linear(width, width),
            )
            for _ in range(self.BLOCKS)
        )  # fmt: skip
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, dim)

    def forward(self, z: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        when = self.embed(joined(waves(t), cond))
        h = self.stem(z)
        for block in self.blocks:
            h = h + block(h + when)
        return self.head(F.silu(self.norm(h))).float()
