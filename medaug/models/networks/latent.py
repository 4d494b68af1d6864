"""Networks of codes: a perceptron, a flow's velocity, discriminators of codes and of pairs."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medaug.core.batch import Shape
from medaug.models.networks.blocks import check, halvings, joined, with_condition
from medaug.models.networks.convolutional import levels, widths
from medaug.models.networks.flow import TIMES, waves


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


class CodeDiscriminator(nn.Module):
    """Codes (b, d) and cond to logits (b,), large for draws of the prior; no batch statistics.

    Args:
        latent: dimensions of the code.
        width: of each hidden layer.
        depth: how many hidden layers.
        cond_dim: numbers of the condition.
        log_prior: whether the logit starts from the log density of N(0, I) up to a constant
            (Tolstikhin et al. 2018, in their code).
    """

    def __init__(
        self, latent: int, width: int, depth: int, cond_dim: int, log_prior: bool = False
    ) -> None:
        super().__init__()
        self.layers = Mlp((latent + cond_dim, *[width] * depth, 1), 0.2)
        self.log_prior = log_prior

    def forward(self, z: Tensor, cond: Tensor | None) -> Tensor:
        logits = self.layers(joined(z, cond))[:, 0].float()
        return logits - z.float().square().sum(1) / 2 if self.log_prior else logits


class _Layer(nn.Module):
    """A layer with maxout of two and dropout before it, or with leaky ReLU."""

    def __init__(self, layer: nn.Module, dropout: float, maxout: bool) -> None:
        super().__init__()
        self.layer, self.dropout, self.maxout = layer, dropout, maxout

    def forward(self, x: Tensor) -> Tensor:
        if not self.maxout:
            return F.leaky_relu(self.layer(x), 0.2)
        h = self.layer(F.dropout(x, self.dropout, self.training))
        return torch.maximum(*h.chunk(2, 1))


class JointDiscriminator(nn.Module):
    """Images (b, c, s, s), codes (b, latent) and cond to logits (b,); no batch statistics.

    That of ALI (Dumoulin et al. 2017), for pairs of image and code.

    Args:
        shape: channels, size and conditions of the data.
        latent: dimensions of the code.
        width: channels at the image's end.
        maxout: maxout and dropout, 0.2 at first and 0.5 later, as the authors; else leaky ReLU.
    """

    def __init__(self, shape: Shape, latent: int, width: int, maxout: bool) -> None:
        super().__init__()
        check(shape, "joint")
        count, pieces = levels(shape.size), 2 if maxout else 1
        sizes = [shape.channels + shape.cond_dim, *widths(width, count)]
        wide = 8 * width
        flat = sizes[-1] * halvings(shape.size, count)[-1] ** 2

        def row(c_in: int, c_out: int, dropout: float) -> _Layer:
            return _Layer(nn.Linear(c_in, pieces * c_out), dropout, maxout)

        self.on_x = nn.Sequential(
            *(
                _Layer(nn.Conv2d(a, pieces * b, 5, 2, 2), 0.5 if level else 0.2, maxout)
                for level, (a, b) in enumerate(pairwise(sizes))
            ),
            nn.Flatten(),
        )
        self.on_z = nn.Sequential(row(latent + shape.cond_dim, wide, 0.2), row(wide, wide, 0.5))
        self.on_both = nn.Sequential(row(flat + wide, wide, 0.5), row(wide, wide, 0.5))
        self.fc = nn.Linear(wide, 1)

    def forward(self, x: Tensor, z: Tensor, cond: Tensor | None) -> Tensor:
        seen = torch.cat([self.on_x(with_condition(x, cond)), self.on_z(joined(z, cond))], 1)
        return self.fc(self.on_both(seen))[:, 0].float()
