"""Figures of one slice of CT or MR and its label map, of real and synthetic ones alike.

Images are HU, of MR thousandths, clipped to the codec's window, float32 (y, x); label maps are
uint8 (y, x).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from medaug.core.modality import CT, Modality
from medaug.data.feed.tissues import body

Slice = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

CELLS = 16
"""A descriptor is a slice averaged to so many cells a side."""

STEPS = 2
"""A slice is sought among the real ones shifted by up to so many 64ths of its side."""

SMOOTHING = 5.0
"""Pixels added to both sides of a Dice coefficient, so that a pixel more or less means little."""

_LAPLACE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
_NORMAL = 0.6745
"""Median of the absolute value of a standard normal variable."""


@dataclass(frozen=True)
class Figures:
    """What is measured of one slice; not a number where there is nothing to measure.

    Attributes:
        pixels: of each label.
        hu_median: in the mask of each label.
        hu_contrast: what the median in the mask of each label lies above that around it, within
            two pixels.
        hu_spread: interquartile range of HU in the mask of each label.
        hu_levels: 1st and 99th percentile of the whole slice.
        components: connected parts of each label's mask, pixels that touch at a corner included.
        body_share: share of the mask, all labels together, that lies inside the body.
        noise: standard deviation of the pixel noise, HU.
    """

    pixels: list[int]
    hu_median: list[float]
    hu_contrast: list[float]
    hu_spread: list[float]
    hu_levels: list[float]
    components: list[int]
    body_share: float
    noise: float


def measure(
    image: Slice,
    label: npt.NDArray[np.uint8],
    ids: Sequence[int],
    least: int,
    low: float,
    modality: Modality = CT,
) -> Figures:
    """The figures of one slice.

    Args:
        image: clipped values (y, x).
        label: label ids (y, x).
        ids: of the labels that count.
        least: fewest pixels of a mask whose HU are measured.
        low: lower end of the window.
        modality: of the image.
    """
    inside = body(image, max(modality.body_in_slice, low))
    marked = np.isin(label, ids)
    masks = [label == number for number in ids]
    levels = [_levels(image[mask], least) for mask in masks]
    return Figures(
        pixels=[int(mask.sum()) for mask in masks],
        hu_median=[level[1] for level in levels],
        hu_contrast=[
            level[1] - _levels(image[_around(mask)], 1)[1]
            for level, mask in zip(levels, masks, strict=True)
        ],
        hu_spread=[level[2] - level[0] for level in levels],
        hu_levels=[float(v) for v in np.percentile(image, [1, 99])],
        components=[parts(mask) for mask in masks],
        body_share=float(inside[marked].mean()) if marked.any() else float("nan"),
        noise=noise(image),
    )


def _levels(values: Slice, least: int) -> list[float]:
    """The quartiles of ``values``, or three times not a number where they are too few."""
    if len(values) < max(least, 1):
        return [float("nan")] * 3
    return [float(v) for v in np.percentile(values, [25, 50, 75])]


def _around(mask: Mask) -> Mask:
    """The pixels within two of a mask (y, x) that are not in it."""
    return ndimage.binary_dilation(mask, np.ones((3, 3), bool), 2) & ~mask


def parts(mask: Mask) -> int:
    """Connected parts of a mask (y, x); pixels that touch at a corner are connected."""
    return int(ndimage.label(mask, np.ones((3, 3), bool))[1])


def noise(image: Slice) -> float:
    """Standard deviation of the pixel noise in HU; 0 for a slice without any structure.

    The Laplacian differences of Immerkaer 1996 under a median in place of his mean, which edges
    move less.  Neighbourhoods of one value, such as air below the window, are left out.
    """
    response = np.abs(ndimage.convolve(image, _LAPLACE, mode="nearest"))
    box = np.ones((3, 3), bool)
    flat = ndimage.maximum_filter(image, footprint=box) == ndimage.minimum_filter(
        image, footprint=box
    )
    kept = response[~flat]
    return float(np.median(kept) / (6 * _NORMAL)) if len(kept) else 0.0


def overlap(
    given: npt.NDArray[np.uint8], found: npt.NDArray[np.uint8], ids: Sequence[int]
) -> list[float]:
    """Smoothed Dice of each label between two label maps (y, x), then of all labels pooled.

    (2 |A and B| + 5) / (|A| + |B| + 5); not a number where neither map shows the label.
    """
    both = [int(((given == n) & (found == n)).sum()) for n in ids]
    total = [int((given == n).sum() + (found == n).sum()) for n in ids]
    return [
        (2 * b + SMOOTHING) / (t + SMOOTHING) if t else float("nan")
        for b, t in zip([*both, sum(both)], [*total, sum(total)], strict=True)
    ]


def descriptor(images: Tensor) -> Tensor:
    """Slices (n, y, x) averaged to cells, (n, cells), in HU."""
    h, w = images.shape[-2:]
    cells = min(CELLS, h), min(CELLS, w)
    return F.adaptive_avg_pool2d(images[:, None].float(), cells).flatten(1)


def distance(image: Slice, others: Tensor, low: float) -> Tensor:
    """Smallest root mean square difference in HU of a slice from each of ``others`` (m, cells).

    The slice is also mirrored left to right, and shifted by up to 2/64 of its side each way.
    """
    x = torch.from_numpy(image)
    h, w = x.shape
    step = max(1, h // 64)
    reach = step * STEPS
    moved = []
    for view in (x, x.flip(1)):
        wide = F.pad(view, (reach, reach, reach, reach), value=low)
        for down in range(0, 2 * reach + 1, step):
            for across in range(0, 2 * reach + 1, step):
                moved.append(wide[down : down + h, across : across + w])
    apart = torch.cdist(descriptor(torch.stack(moved)), others.float())
    return apart.amin(0) / others.shape[1] ** 0.5
