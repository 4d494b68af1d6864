"""How much neighbouring slices differ, of real scans and of synthetic stacks alike."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medaug.data.tissues import body
from medaug.modality import CT, Modality

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Continuity:
    """What was measured of each pair of neighbouring slices, (n - 1,).

    Attributes:
        hu: mean absolute difference in HU over the pixels that lie in the body in either slice;
            not a number where neither shows any.
        dice: Dice coefficient of the two label maps, the pixels of all labels pooled; not a number
            where neither slice shows a label, and throughout where there are no label maps.
    """

    hu: Values
    dice: Values


def continuity(
    images: npt.NDArray[Any], labels: npt.NDArray[np.uint8] | None, modality: Modality = CT
) -> Continuity:
    """The differences between the slices of one stack.

    Args:
        images: HU (z, y, x), clipped to a window; figures of two windows do not compare.
        labels: label maps (z, y, x), or None.
        modality: of the images.
    """
    floor = max(modality.body_in_slice, float(images.min()))
    inside = np.stack([body(image, floor) for image in images])
    apart = np.abs(np.diff(images.astype(np.float32), axis=0))
    either = inside[1:] | inside[:-1]
    hu = [float(a[e].mean()) if e.any() else np.nan for a, e in zip(apart, either, strict=True)]
    if labels is None:
        return Continuity(np.array(hu), np.full(len(hu), np.nan))
    both = ((labels[1:] == labels[:-1]) & (labels[1:] > 0)).sum((1, 2))
    shown = (labels > 0).sum((1, 2))
    total = (shown[1:] + shown[:-1]).astype(np.float64)
    total[total == 0] = np.nan
    return Continuity(np.array(hu), 2 * both / total)
