"""A judge of pairs of image and code, as in ALI (Dumoulin et al. 2017)."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medaug.networks.blocks import joined, with_condition
from medaug.networks.convolutional import levels, widths
from medaug.networks.sizes import check, halvings
from medaug.tensors import Shape


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

    Args:
        shape: what the data dictate.
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
