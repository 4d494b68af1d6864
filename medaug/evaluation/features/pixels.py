"""Take features that nothing is trained for: pixels, fine and coarse, and random convolutions.

Random filters keep what distinguishes natural textures (Saxe et al. 2011); they stand for Inception
where nothing may be downloaded.  Their weights are raw 64-bit words of numpy's PCG64, whose stream
is fixed by its definition, and not draws of a library's sampler, which may change.
"""

import hashlib
import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from medaug.core.types import HU
from medaug.evaluation.features.extractor import blocks, windowed

FINE, COARSE = 64, 16

SEED = 20240229
CHANNELS = (1, 16, 16, 16)
STRIDES = (1, 2, 2)
SLOPE = 0.2


@dataclass(frozen=True)
class Pixels:
    """The window as 0 to 1, averaged to at most ``side`` x ``side`` areas, row by row.

    At 64 it is the picture.  At 16 an area is some 25 mm of an abdomen: organs and habitus remain;
    noise averages out, and a blur or a change of contrast moves every slice alike.

    Args:
        name: in the names of figures.
        window_hu: (low, high), mapped to 0 and 1.
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


def weights() -> list[Tensor]:
    """Filters (out, in, 3, 3) float32 of each layer, uniform with variance 2 / (9 in).

    Word k of the stream is the k-th weight, (word >> 11) / 2^53 between 0 and 1, layer after layer.
    """
    words = np.random.PCG64(SEED)
    found = []
    for inputs, outputs in pairwise(CHANNELS):
        shape = (outputs, inputs, 3, 3)
        unit = (words.random_raw(math.prod(shape)) >> np.uint64(11)) * 2.0**-53
        half = math.sqrt(3 * 2 / (9 * inputs))
        found.append(torch.from_numpy((2 * unit - 1) * half).reshape(shape).float())
    return found


class RandomConvolutions:
    """Mean and deviation over the slice of each channel of three random layers: 96 numbers.

    Args:
        window_hu: (low, high), mapped to -1 and 1.
    """

    name = "random"

    def __init__(self, window_hu: tuple[float, float]) -> None:
        self.window_hu = window_hu
        self.weights = weights()
        total = hashlib.sha256(str((STRIDES, SLOPE, window_hu)).encode())
        for weight in self.weights:
            total.update(weight.numpy().tobytes())
        self.version = f"1.{total.hexdigest()[:12]}"

    @torch.inference_mode()
    def __call__(self, images: HU) -> Tensor:
        rows = []
        for part in blocks(images):
            x, found = windowed(part, self.window_hu) * 2 - 1, []
            for weight, stride in zip(self.weights, STRIDES, strict=True):
                x = F.conv2d(F.pad(x, (1, 1, 1, 1), "reflect"), weight, stride=stride)
                x = F.leaky_relu(x, SLOPE)
                flat = x.flatten(2)
                mean = flat.mean(2, keepdim=True)
                found += [mean[..., 0], (flat - mean).square_().mean(2).sqrt()]
            rows.append(torch.cat(found, 1))
        return torch.cat(rows).clone()
