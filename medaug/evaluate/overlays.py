"""Slices as 8-bit pictures, with masks outlined and maps laid over them."""

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from scipy import ndimage

Shown = npt.NDArray[np.uint8]


def grey(image: npt.NDArray[np.int16], window_hu: tuple[float, float]) -> Shown:
    """HU (y, x) through a window, uint8 (y, x)."""
    low, high = window_hu
    return (np.clip((image - low) / (high - low), 0, 1) * 255).round().astype(np.uint8)


def outlined(shown: Shown, mask: npt.NDArray[np.bool_], colour: tuple[int, int, int]) -> Shown:
    """A picture (y, x) or (y, x, 3) with the inner outline of a mask (y, x), (y, x, 3)."""
    drawn = np.array(shown if shown.ndim == 3 else np.repeat(shown[..., None], 3, -1))
    drawn[mask & ~ndimage.binary_erosion(mask)] = colour
    return drawn


def heated(shown: Shown, values: npt.NDArray[np.float64], most: float) -> Shown:
    """A picture (y, x) under a map of values (y, x) from 0 to ``most``, (y, x, 3)."""
    share = np.clip(values / most, 0, 1) if most > 0 else np.zeros(values.shape)
    colours = mpl.colormaps["inferno"](share)[..., :3] * 255
    weight = (0.25 + 0.75 * share)[..., None]
    return ((1 - weight) * shown[..., None] + weight * colours).round().astype(np.uint8)
