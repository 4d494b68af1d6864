"""Group norms whose scale and shift come from the condition, and a residual block of them."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from medaug.models.networks.blocks import group_norm, numbers, planes

HIDDEN = 32


class Spade(nn.Module):
    """Spatially adaptive normalisation (Park et al. 2019) of features (b, c, ...) by planes.

    MONAI's block of this name puts an instance norm on scale and shift, which takes from a label
    its absolute meaning; here they are what the convolutions give.
    """

    def __init__(self, make: Callable[..., nn.Module], channels: int, layout: int) -> None:
        super().__init__()
        groups = group_norm(channels).num_groups
        self.norm = nn.GroupNorm(groups, channels, affine=False)
        self.shared = make(layout, HIDDEN, 3, padding=1)
        self.change = make(HIDDEN, 2 * channels, 3, padding=1)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        scale, shift = self.change(F.silu(self.shared(planes(cond, x).to(x.dtype)))).chunk(2, 1)
        return self.norm(x) * (1 + scale) + shift


class ConditionalNorm(nn.Module):
    """Group norm, scaled and shifted by the condition where there is one.

    Args:
        make: a convolution of as many dimensions as the features have.
        channels: of the features.
        cond_dim: numbers of the condition, which give one scale and shift for a whole image; 0
            for none.
        layout: planes of the condition, which give a scale and shift for every position; where
            there are any, ``cond_dim`` is ignored.
    """

    def __init__(
        self, make: Callable[..., nn.Module], channels: int, cond_dim: int = 0, layout: int = 0
    ) -> None:
        super().__init__()
        self.spatial, self.change = layout > 0, None
        self.norm = Spade(make, channels, layout) if self.spatial else group_norm(channels)
        if cond_dim and not self.spatial:
            self.change = nn.Linear(cond_dim, 2 * channels, bias=False)
            nn.init.normal_(self.change.weight, 0.0, 0.1)

    def forward(self, x: Tensor, cond: Tensor | None) -> Tensor:
        if self.spatial:
            return self.norm(x, cond)
        h = self.norm(x)
        if self.change is None or cond is None:
            return h
        change = self.change(numbers(cond).to(h.dtype)).view(len(h), -1, *[1] * (h.ndim - 2))
        scale, shift = change.chunk(2, 1)
        return h * (1 + scale) + shift


class ConditionalBlock(nn.Module):
    """norm, SiLU, conv3, norm, SiLU, conv3, plus the identity or a 1-pixel skip."""

    def __init__(
        self, make: Any, c_in: int, c_out: int, cond_dim: int = 0, layout: int = 0
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = (ConditionalNorm(make, c, cond_dim, layout) for c in (c_in, c_out))
        self.conv1 = make(c_in, c_out, 3, padding=1)
        self.conv2 = make(c_out, c_out, 3, padding=1)
        self.skip = make(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor, cond: Tensor | None) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x, cond)))
        return self.skip(x) + self.conv2(F.silu(self.norm2(h, cond)))
