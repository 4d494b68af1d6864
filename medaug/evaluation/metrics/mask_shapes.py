"""Measure the masks of one label: size, form, place and HU in each slice, or in all together."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medaug.core.types import HU, LabelMap, Sample
from medaug.data.cache.prepare import SliceCache
from medaug.data.feed.tissues import body
from medaug.evaluation.slices.evidence import SliceSet, real_slices
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
    """Measure a label slice by slice.

    Args:
        slices: with label maps.
        inside: their bodies (n, y, x).
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


def _one(image: HU, mask: Masks, within: Masks, pixel_mm: float) -> list[float]:
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
    """Long over short axis of the ellipse with the second moments of the pixels at (y, x)."""
    moments = np.cov(np.stack([y, x]).astype(np.float64), bias=True) + np.eye(2) / 12
    short, long = np.linalg.eigvalsh(moments)
    return float(np.sqrt(long / short))


@dataclass(frozen=True)
class MaskSummary:
    """One label over all slices of a set.

    Attributes:
        slices: how many slices there are.
        hu_median: median HU over all pixels inside the masks.
        area_mm2_median: median area of the masks that are not empty.
        nonempty: share of the slices whose mask is not empty.
        sound: share whose mask is not empty and lies wholly inside the body.
    """

    slices: int
    hu_median: float
    area_mm2_median: float
    nonempty: float
    sound: float


def summary(pairs: Iterable[tuple[HU, LabelMap]], label: int, pixel_mm2: float) -> MaskSummary:
    """Summarise the masks of a label in slices (y, x) with their label maps.

    Raises:
        ValueError: no slices.
    """
    values, areas, sound, slices = [], [], 0, 0
    for image, labels in pairs:
        slices += 1
        mask = labels == label
        if not mask.any():
            continue
        values.append(image[mask])
        areas.append(mask.sum() * pixel_mm2)
        sound += bool(body(image)[mask].all())
    if not slices:
        raise ValueError("no slices to measure")
    return MaskSummary(
        slices,
        float(np.median(np.concatenate(values))) if values else float("nan"),
        float(np.median(areas)) if areas else float("nan"),
        len(areas) / slices,
        sound / slices,
    )


def real_masks(
    cache: SliceCache, label: int, window_hu: tuple[float, float], split: str, least: int
) -> MaskSummary:
    """Summarise the slices of a split that show at least ``least`` pixels of the label."""
    names = [name for name, number in cache.labels.items() if number == label]
    slices = real_slices(cache, split, window_hu, names, least)
    assert slices.labels is not None
    pairs = zip(slices.images, slices.labels, strict=True)
    return summary(pairs, label, slices.pixel_mm**2)


def synthetic_masks(samples: Iterable[Sample], label: int) -> MaskSummary:
    """Summarise synthetic samples, which share one pixel size."""
    kept = list(samples)
    pixel = abs(np.linalg.det(kept[0].affine[:2, :2]))
    pairs = ((s.image, s.label) for s in kept if s.label is not None)
    return summary(pairs, label, float(pixel))
