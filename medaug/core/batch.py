"""Define a batch of tensors and the shape that data give to a model.

Axes everywhere: b batch, c channels, h and w pixels, k conditions.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """The images that a turn is played on, and their condition.

    Attributes:
        x: (b, c, h, w) in [-1, 1]; mask channels of samples without a label are 0.
        cond: numbers (b, k), or planes (b, k, h, w) if a layout is among them; None without a
            condition.
        known: (b, c, 1, 1), 0 for the mask channels of samples without a label, else 1; None where
            all samples have one.
    """

    x: Tensor
    cond: Tensor | None = None
    known: Tensor | None = None

    def seen(self, images: Tensor) -> Tensor:
        """Set ``images`` to 0 where ``x`` is not known, so that no loss compares there.

        Args:
            images: (n * b, c, h, w), n of them for each sample of ``x``, stacked.
        """
        if self.known is None:
            return images
        return images * self.known.repeat(len(images) // len(self.known), 1, 1, 1).to(images.dtype)


@dataclass(frozen=True)
class Shape:
    """The sizes that the data give to a model.

    Attributes:
        channels: of an image in all; those from ``images`` on are masks, -1 outside and +1 inside.
        images: channels that are intensities.
        size: pixels along each side.
        cond_dim: length of the condition.
        classes: how many of its numbers, the first, are the class, one-hot.
        spatial_dims: 2 for slices.
        layout: how many of its entries, the last, are planes and not numbers.
        unlabeled: whether some slices have no masks, so that encoders get only the intensities.
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
        """How many channels an encoder gets."""
        return self.images if self.unlabeled else self.channels
