"""How steep the edges of organs are."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medaug.evaluate.evidence import SliceSet
from medaug.evaluate.shapes import Masks, Values

SKIN_PIXELS = 2
"""The outline of the body is left out: how much of it a pixel takes is a matter of chance."""

EDGES = 95.0
"""Percentile of the gradients in the body that is told: edges, which noise hardly raises."""


def sharpness(slices: SliceSet, inside: Masks) -> Values:
    """Gradient at the steeper edges in each slice's body, HU per mm (n,); see ``steepness``."""
    return np.array([
        steepness(image, within) / slices.pixel_mm
        for image, within in zip(slices.images, inside, strict=True)
    ])  # fmt: skip


def steepness(image: npt.NDArray[np.int16], within: npt.NDArray[np.bool_]) -> float:
    """95th percentile of the gradient's length in the body without its skin, HU per pixel.

    By Sobel's differences, which are exact for a ramp; not a number where no body is left.
    """
    core = ndimage.binary_erosion(within, iterations=SKIN_PIXELS)
    if not core.any():
        return float("nan")
    down, across = (ndimage.sobel(image.astype(np.float64), axis) / 8 for axis in (0, 1))
    return float(np.percentile(np.hypot(down, across)[core], EDGES))
