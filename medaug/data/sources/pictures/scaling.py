"""Pictures at another size: averaged over areas when they shrink, interpolated when they grow."""

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from medaug.core import geometry

Levels = npt.NDArray[np.uint8]


def square(picture: Levels, size: int, crop: int | None = None) -> Levels:
    """The central square of a picture (y, x[, c]) at ``size`` pixels.

    A pixel of the result is the mean of what it covers, a pixel cut by its border by its share; a
    square smaller than ``size`` is interpolated linearly.

    Args:
        picture: levels, grey or RGB.
        size: pixels a side.
        crop: side of the square; the short side where None or longer than that.
    """
    height, width = picture.shape[:2]
    side = min(height, width, crop or height)
    top, left = (height - side) // 2, (width - side) // 2
    cut = picture[top : top + side, left : left + side]
    if side == size:
        return np.ascontiguousarray(cut)
    weights = _weights(side, size)
    down = weights @ cut.reshape(side, -1).astype(np.float32)
    turned = down.reshape(size, side, -1).swapaxes(0, 1)
    across = weights @ turned.reshape(side, -1)
    scaled = across.reshape(size, size, -1).swapaxes(0, 1).reshape(size, size, *picture.shape[2:])
    return np.ascontiguousarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8))


@lru_cache(maxsize=64)
def _weights(length: int, size: int) -> Any:
    """One axis as a sparse matrix (size, length); its rows sum to 1.

    Sparse products run in a fixed order, so the bytes do not depend on the number of threads.
    """
    step = length / size
    if size > length:
        matrix = geometry.resampling_matrix(length, size, (step - 1) / 2, step)[0]
    else:
        edges, pixels = np.arange(size + 1) * step, np.arange(length)
        covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
        matrix = np.clip(covered, 0, None)
    return sparse.csr_matrix((matrix / matrix.sum(1, keepdims=True)).astype(np.float32))


def resize_pictures(pictures: Levels, size: int | None) -> Levels:
    """Pictures (n, y, x) or (n, y, x, 3) at ``size`` x ``size`` pixels, field of view kept."""
    height, width = pictures.shape[1:3]
    if size is None or (height, width) == (size, size):
        return pictures
    along_y, along_x = (
        geometry.resampling_matrix(length, size, (length / size - 1) / 2, length / size)[0]
        for length in (height, width)
    )
    along_y, along_x = (m / m.sum(axis=1, keepdims=True) for m in (along_y, along_x))
    resized = np.empty((len(pictures), size, size, *pictures.shape[3:]), np.uint8)
    planes = [...] if pictures.ndim == 3 else [(..., channel) for channel in range(3)]
    for picture, place in zip(pictures, resized, strict=True):
        for plane in planes:
            levels = along_y @ picture[plane].astype(np.float32) @ along_x.T
            place[plane] = np.clip(np.rint(levels), 0, 255)
    return resized
