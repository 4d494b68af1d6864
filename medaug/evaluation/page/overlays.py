"""Slices as 8-bit pictures, with masks outlined and maps laid over them.

Arrays come in as slices do; pictures go out as radiologists read them, anterior up and the
patient's right on the left.
"""

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medaug.core.types import HU
from medaug.runtime.pictures import grey, upright

RGB = npt.NDArray[np.uint8]


def plain(image: HU, window_hu: tuple[float, float]) -> RGB:
    """HU (y, x) through a window, (y, x, 3)."""
    return np.repeat(upright(grey(image, window_hu))[..., None], 3, -1)


def outlined(
    image: HU,
    window_hu: tuple[float, float],
    mask: npt.NDArray[np.bool_],
    colour: tuple[int, int, int],
) -> RGB:
    """The same with the inner outline of a mask (y, x)."""
    drawn = plain(image, window_hu)
    drawn[upright(mask & ~ndimage.binary_erosion(mask))] = colour
    return drawn


def heated(
    image: HU, window_hu: tuple[float, float], values: npt.NDArray[np.float64], most: float
) -> RGB:
    """The same under a map of values (y, x) from 0 to ``most``."""
    share = upright(np.clip(values / most, 0, 1) if most > 0 else np.zeros(values.shape))
    colours = mpl.colormaps["inferno"](share)[..., :3] * 255
    weight = (0.25 + 0.75 * share)[..., None]
    mixed = (1 - weight) * plain(image, window_hu) + weight * colours
    return np.asarray(mixed.round(), np.uint8)
