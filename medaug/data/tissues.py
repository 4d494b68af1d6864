"""Rough tissues of CT slices, read off the HU, which fill a layout around its labels.

The body is the largest connected part above -135 HU with its holes filled.  Inside it, after a
Gaussian blur of one pixel that keeps noise and texture out of the layout:

    gas   below -200 HU           lung, bowel gas
    fat   -200 to -30 HU
    soft  -30 to 200 HU           organs, muscle, contrast in the portal venous phase
    bone  above 200 HU            bone, calcification, dense contrast

The thresholds lie between the modes of an abdomen's histogram: fat about -100, organs 30 to 120,
kidneys and vessels in the portal venous phase up to about 180, spongy bone from about 200.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medaug.types import HU, LabelMap

TISSUES = {"gas": 251, "fat": 252, "soft": 253, "bone": 254}
"""Tissue to id in a layout map; labels keep their own ids below."""
BOUNDS_HU = (-200.0, -30.0, 200.0)
BODY_HU = -135
"""Above it is body: between fat (about -100) and the lower end of the usual window (-160)."""
BLUR_PIXELS = 1.0


def body(image: npt.NDArray[Any], above: float = BODY_HU) -> npt.NDArray[np.bool_]:
    """The body in one slice (y, x): the largest connected part above -135 HU, holes filled."""
    parts, count = ndimage.label(image > above)
    if not count:
        return np.zeros(image.shape, bool)
    largest = np.bincount(parts.ravel())[1:].argmax() + 1
    return ndimage.binary_fill_holes(parts == largest)


def tissues(images: HU) -> LabelMap:
    """Tissue ids of slices (n, y, x), 0 outside the body."""
    found = np.zeros(images.shape, np.uint8)
    ids = np.array(list(TISSUES.values()), np.uint8)
    for place, image in zip(found, images, strict=True):
        smooth = ndimage.gaussian_filter(image.astype(np.float32), BLUR_PIXELS)
        inside = body(image)
        place[inside] = ids[np.digitize(smooth[inside], BOUNDS_HU)]
    return found


def layout(images: HU, labels: LabelMap | None, ids: list[int], fill: bool) -> LabelMap:
    """Layout maps (n, y, x): the labels of ``ids``, laid over the tissues where ``fill``."""
    found = tissues(images) if fill else np.zeros(images.shape, np.uint8)
    if labels is not None:
        wanted = np.isin(labels, ids)
        found[wanted] = labels[wanted]
    return found
