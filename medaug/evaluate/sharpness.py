"""How steeply HU rise at the outline of the body."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medaug.evaluate.evidence import SliceSet
from medaug.evaluate.shapes import Masks, Values

REACH, BIN = 4.0, 1.0
"""Pixels to each side of the outline, and width of the steps that they are averaged over."""


def sharpness(slices: SliceSet, inside: Masks) -> Values:
    """Steepest rise of the edge profile of each slice's body, HU per mm (n,).

    The profile is the mean HU at each distance from the outline, a pixel apart, so that noise
    averages out: the edge spread function, over the whole outline in place of a slanted edge (ISO
    12233).  Not a number where a slice shows no outline.
    """
    return np.array([
        steepest(image, within) / slices.pixel_mm
        for image, within in zip(slices.images, inside, strict=True)
    ])  # fmt: skip


def steepest(image: npt.NDArray[np.int16], within: npt.NDArray[np.bool_]) -> float:
    """HU per pixel at the steepest place of the profile; not a number without an outline."""
    if not within.any() or within.all():
        return float("nan")
    depth = ndimage.distance_transform_edt(within) - ndimage.distance_transform_edt(~within)
    depth -= np.sign(depth) / 2  # the outline lies between two pixels
    near = np.abs(depth) < REACH
    steps = np.floor((depth[near] + REACH) / BIN).astype(np.int64)
    count = np.bincount(steps)
    kept = count > 0
    hu = np.bincount(steps, image[near])[kept] / count[kept]
    place = np.bincount(steps, depth[near])[kept] / count[kept]
    if len(hu) < 2:
        return float("nan")
    return float((np.diff(hu) / np.diff(place)).max())
