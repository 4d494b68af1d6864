"""What travels between the data and the models, as tensors.

One-letter names everywhere: b batch, c channels, h and w pixels, k conditions.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """What a turn sees: ``x`` (b, c, h, w) in [-1, 1] and ``cond`` (b, k), or None without."""

    x: Tensor
    cond: Tensor | None = None


@dataclass(frozen=True)
class Shape:
    """What the data dictate: channels in all, how many are intensities, pixels a side, condition.

    Channels from ``images`` on are masks, -1 outside and +1 inside.  A condition is ``cond_dim``
    numbers, of which the first ``classes`` are the class, one-hot.
    """

    channels: int
    images: int
    size: int
    cond_dim: int = 0
    classes: int = 0
    spatial_dims: int = 2
