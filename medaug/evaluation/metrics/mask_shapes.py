"""What the mask of one label is like in each slice of a set: its size, form, place and HU."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medaug.evaluation.slices.evidence import SliceSet
from medaug.synthesis.filter.measures import parts

Values = npt.NDArray[np.float64]
Masks = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Shapes:
    """One label in the slices of a set, (n,) each; not a number where a slice does not show it.

    Attributes:
        area: mm2.
        elongation: long axis over short axis of the ellipse with the mask's second moments, each
            pixel taken as a square; 1 for a disc and a square, a / b for a rectangle a x b.
        components: connected parts, pixels that touch at a corner included.
        across: of the centroid along x, from the middle of the body's bounding box, in half-widths
            of that box.
        down: the same along y, in its half-heights.
        level: median HU in the mask.
        inside: share of the mask that lies in the body.
        shown: whether the slice shows the label, bool.
    """

    area: Values
    elongation: Values
    components: Values
    across: Values
    down: Values
    level: Values
    inside: Values
    shown: npt.NDArray[np.bool_]


def shapes(slices: SliceSet, inside: Masks, label: int) -> Shapes:
    """Measure a label.

    Args:
        slices: with label maps.
        inside: their bodies.
        label: its id.
    """
    assert slices.labels is not None
    rows = [
        _one(image, marks == label, within, slices.pixel_mm)
        for image, marks, within in zip(slices.images, slices.labels, inside, strict=True)
    ]
    table = np.array(rows, np.float64).reshape(len(slices), 7)
    area, elongated, parts_of, across, down, level, within_body = table.T
    return Shapes(area, elongated, parts_of, across, down, level, within_body, np.isfinite(area))


def _one(
    image: npt.NDArray[np.int16],
    mask: npt.NDArray[np.bool_],
    within: npt.NDArray[np.bool_],
    pixel_mm: float,
) -> list[float]:
    y, x = np.nonzero(mask)
    if not len(y):
        return [float("nan")] * 7
    across = down = float("nan")
    if within.any():
        rows, columns = (np.flatnonzero(within.any(axis)) for axis in (1, 0))
        down, across = (
            float((place.mean() - (span[0] + span[-1]) / 2) / ((span[-1] - span[0] + 1) / 2))
            for place, span in ((y, rows), (x, columns))
        )
    return [
        len(y) * pixel_mm**2,
        elongation(y, x),
        float(parts(mask)),
        across,
        down,
        float(np.median(image[mask])),
        float(within[mask].mean()),
    ]


def elongation(y: npt.NDArray[np.int64], x: npt.NDArray[np.int64]) -> float:
    """Long over short axis of the pixels at (y, x), see ``Shapes``."""
    moments = np.cov(np.stack([y, x]).astype(np.float64), bias=True) + np.eye(2) / 12
    short, long = np.linalg.eigvalsh(moments)
    return float(np.sqrt(long / short))
