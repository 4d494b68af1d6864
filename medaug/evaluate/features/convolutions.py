"""Fixed random convolutions: a feature space that nothing was trained for and nothing changes.

Random filters keep what distinguishes natural textures (Saxe et al. 2011); they stand for Inception
where nothing may be downloaded.  The weights are raw 64-bit words of numpy's PCG64, whose stream
is fixed by its definition, and not draws of a library's sampler, which may change.
"""

import hashlib
import math
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from medaug.evaluate.features.extractor import blocks, windowed
from medaug.types import HU

SEED = 20240229
CHANNELS = (1, 16, 16, 16)
STRIDES = (1, 2, 2)
SLOPE = 0.2


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
        window_hu: what is seen.
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
