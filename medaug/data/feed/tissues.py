"""Find rough tissues of slices by their values; they fill a layout around its labels.

The body is the largest connected part above -135 HU with its holes filled.  Inside it, after a
Gaussian blur of one pixel that keeps noise and texture out of the layout, CT shows:

    gas   below -200 HU           lung, bowel gas
    fat   -200 to -30 HU
    soft  -30 to 200 HU           organs, muscle, contrast in the portal venous phase
    bone  above 200 HU            bone, calcification, dense contrast

The thresholds lie between the modes of an abdomen's histogram: fat about -100, organs 30 to 120,
kidneys and vessels in the portal venous phase up to about 180, spongy bone from about 200.

In MR, what is dark or bright depends on the sequence, so its tissues are bands of the scan's own
range: void below 100 thousandths, dark to 400, medium to 700, bright above; the body is above 25.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medaug.core.modality import CT, Modality
from medaug.core.types import HU, LabelMap

BLUR_PIXELS = 1.0


def body(image: npt.NDArray[Any], above: float = CT.body_in_slice) -> npt.NDArray[np.bool_]:
    """Find the body in a slice (y, x): the largest connected part above -135 HU, holes filled."""
    parts, count = ndimage.label(image > above)
    if not count:
        return np.zeros(image.shape, bool)
    largest = np.bincount(parts.ravel())[1:].argmax() + 1
    return ndimage.binary_fill_holes(parts == largest)


def tissues(images: HU, modality: Modality = CT) -> LabelMap:
    """Find the tissue ids of slices (n, y, x), 0 outside the body."""
    found = np.zeros(images.shape, np.uint8)
    ids = np.array(list(modality.tissues.values()), np.uint8)
    for place, image in zip(found, images, strict=True):
        smooth = ndimage.gaussian_filter(image.astype(np.float32), BLUR_PIXELS)
        inside = body(image, modality.body_in_slice)
        place[inside] = ids[np.digitize(smooth[inside], modality.bands)]
    return found


def layout(
    images: HU, labels: LabelMap | None, ids: list[int], fill: bool, modality: Modality = CT
) -> LabelMap:
    """Make layout maps (n, y, x): labels, laid over the tissues or over 0.

    Args:
        images: stored values (n, y, x).
        labels: label ids on the same grid, or None.
        ids: the labels that a layout shows.
        fill: whether tissues surround them.
        modality: of the images.
    """
    found = tissues(images, modality) if fill else np.zeros(images.shape, np.uint8)
    if labels is not None:
        shown = np.isin(labels, ids)
        found[shown] = labels[shown]
    return found
