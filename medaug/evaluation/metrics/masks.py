"""Whether the masks of synthetic CT slices are what real ones are: HU inside, area, place."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from medaug.core.types import HU, LabelMap, Sample
from medaug.data.cache.prepare import SliceCache
from medaug.data.feed.tissues import body


@dataclass(frozen=True)
class Masks:
    """What a set of slices says about one label.

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


def measure(pairs: Iterable[tuple[HU, LabelMap]], label: int, pixel_mm2: float) -> Masks:
    """The figures of ``Masks`` over slices (y, x) with their label maps."""
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
    return Masks(
        slices,
        float(np.median(np.concatenate(values))) if values else float("nan"),
        float(np.median(areas)) if areas else float("nan"),
        len(areas) / slices,
        sound / slices,
    )


def real_masks(
    cache: SliceCache, label: int, window_hu: tuple[float, float], split: str, least: int
) -> Masks:
    """``measure`` on the slices of a split that show at least ``least`` pixels of the label."""

    def pairs() -> Iterable[tuple[HU, LabelMap]]:
        low, high = window_hu
        for name in cache.split[split]:
            case = cache.cases[name]
            if case.label is None:
                continue
            for image, labels in zip(case.image, case.label, strict=True):
                if (labels == label).sum() >= least:
                    yield np.clip(image, low, high), labels

    spacing = next(iter(cache.cases.values())).spacing_mm
    return measure(pairs(), label, spacing[0] * spacing[1])


def synthetic_masks(samples: Iterable[Sample], label: int) -> Masks:
    """``measure`` on synthetic samples, which share one pixel size."""
    kept = list(samples)
    pixel = abs(np.linalg.det(kept[0].affine[:2, :2]))
    pairs = ((s.image, s.label) for s in kept if s.label is not None)
    return measure(pairs, label, float(pixel))
