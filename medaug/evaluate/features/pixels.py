"""The slices themselves: fine, as papers compare them, and coarse, where only anatomy is left."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from medaug.evaluate.features.extractor import blocks, windowed
from medaug.types import HU

FINE, COARSE = 64, 16


@dataclass(frozen=True)
class Pixels:
    """The window as 0 to 1, averaged to at most ``side`` x ``side`` areas, row by row.

    At 64 it is the picture.  At 16 an area is some 25 mm of an abdomen: organs and habitus remain;
    noise averages out, and a blur or a change of contrast moves every slice alike.

    Args:
        name: as figures name it.
        window_hu: what is seen.
        side: areas along a side; smaller slices are taken as they are.
    """

    name: str
    window_hu: tuple[float, float]
    side: int = FINE

    @property
    def version(self) -> str:
        """The side and the window."""
        low, high = self.window_hu
        return f"1.{self.side}.{low:g}.{high:g}"

    def __call__(self, images: HU) -> Tensor:
        h, w = (min(self.side, length) for length in images.shape[1:])
        parts = (F.adaptive_avg_pool2d(windowed(x, self.window_hu), (h, w)) for x in blocks(images))
        return torch.cat([part.flatten(1) for part in parts])
