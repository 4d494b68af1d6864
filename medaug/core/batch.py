"""What travels between the data and the models, as tensors.

One-letter names everywhere: b batch, c channels, h and w pixels, k conditions.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """What a turn sees.

    Attributes:
        x: (b, c, h, w) in [-1, 1]; where a mask is not known its channels are 0.
        cond: k numbers a sample (b, k), k planes (b, k, h, w) where a layout is among them, or
            None without a condition.
        known: (b, c, 1, 1), 0 for the channels of a sample that are not known, else 1; None where
            all are.
    """

    x: Tensor
    cond: Tensor | None = None
    known: Tensor | None = None

    def seen(self, drawn: Tensor) -> Tensor:
        """``drawn`` (b, c, h, w) with 0 where ``x`` is not known, so that no loss compares there.

        Several draws for each sample may be stacked, (n * b, c, h, w).
        """
        if self.known is None:
            return drawn
        return drawn * self.known.repeat(len(drawn) // len(self.known), 1, 1, 1).to(drawn.dtype)


@dataclass(frozen=True)
class Shape:
    """What the data dictate: channels in all, how many are intensities, pixels a side, condition.

    Channels from ``images`` on are masks, -1 outside and +1 inside; where some slices lack theirs
    (``unlabeled``) no encoder sees them.  A condition is ``cond_dim`` numbers, of which the first
    ``classes`` are the class, one-hot, and the last ``layout`` are planes, not numbers.
    """

    channels: int
    images: int
    size: int
    cond_dim: int = 0
    classes: int = 0
    spatial_dims: int = 2
    layout: int = 0
    unlabeled: bool = False

    @property
    def encoded(self) -> int:
        """How many channels an encoder sees."""
        return self.images if self.unlabeled else self.channels
