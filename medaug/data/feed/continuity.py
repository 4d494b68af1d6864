"""Measure how much neighbouring slices differ, in real scans and in synthetic stacks alike.

The figures of the real ones are kept in the header of the weights, for use without the scans.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medaug.core.config import DataConfig
from medaug.core.modality import CT, Modality, modality_of
from medaug.data.cache.store import CachedCase, SliceCache
from medaug.data.feed.select import usable
from medaug.data.feed.tissues import body

Values = npt.NDArray[np.float64]
PAIRS = 512
"""Neighbouring slices that are measured, evenly spread over the training scans."""


@dataclass(frozen=True)
class Continuity:
    """Differences of each pair of neighbouring slices, (n - 1,).

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
    """Measure the differences between the slices of one stack.

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


@dataclass(frozen=True)
class Run:
    """Neighbouring slices of a scan, from ``start`` to before ``stop``."""

    case: CachedCase
    start: int
    stop: int


def runs(cache: SliceCache, data: DataConfig, labels: dict[str, int]) -> list[Run]:
    """List the slices of training scans that training uses, in the order in which it gathers them.

    Args:
        cache: with the scans.
        data: which slices training uses.
        labels: name to id of the labels that count; scans without a label are left out if any.
    """
    found = []
    for name in cache.split["train"]:
        case = cache.cases[name]
        if labels and case.label is None:
            continue
        used = np.flatnonzero(usable(case, data, labels))
        for part in np.split(used, np.flatnonzero(np.diff(used) > 1) + 1):
            if len(part):
                found.append(Run(case, int(part[0]), int(part[-1]) + 1))
    return found


def adjoining(
    cache: SliceCache, data: DataConfig, labels: dict[str, int], window_hu: tuple[float, float]
) -> dict[str, Any]:
    """Measure the training scans of a CT cache, and neighbouring slices in them.

    Slices that training does not use are left out, and scans without a label if labels count.

    Args:
        cache: with the scans.
        data: which slices training uses.
        labels: name to id of the labels that count.
        window_hu: to which HU are clipped.

    Returns:
        ``extent_mm``, the median length from the first to the last slice of a scan that training
        uses; ``pairs``, how many were measured; ``step_mm``, the median distance of their slices;
        ``hu`` and ``dice``, the figures of `Continuity`, each as ``mean``, ``p5`` and ``p95``,
        or None where there is nothing to measure.
    """
    places: list[tuple[CachedCase, int]] = []
    ends: dict[str, tuple[int, int]] = {}
    for run in runs(cache, data, labels):
        places += [(run.case, z) for z in range(run.start, run.stop - 1)]
        ends[run.case.id] = ends.get(run.case.id, (run.start, 0))[0], run.stop - 1
    extents = [(high - low) * cache.cases[id].spacing_mm[2] for id, (low, high) in ends.items()]
    some = np.unique(np.linspace(0, len(places) - 1, min(PAIRS, len(places))).round().astype(int))
    chosen = [places[place] for place in some]
    hu, dice = [], []
    for case, z in chosen:
        images = np.clip(case.image[z : z + 2], *window_hu)
        found = continuity(images, _counted(case, z, labels), modality_of(cache.modality))
        hu.append(found.hu[0])
        dice.append(found.dice[0])
    steps = [case.spacing_mm[2] for case, _ in chosen]
    return {
        "extent_mm": round(float(np.median(extents)), 3) if extents else 0.0,
        "pairs": len(chosen),
        "step_mm": round(float(np.median(steps)), 3) if steps else None,
        "hu": _summary(np.array(hu, float), 2),
        "dice": _summary(np.array(dice, float), 4),
    }


def _counted(case: CachedCase, z: int, labels: dict[str, int]) -> npt.NDArray[np.uint8] | None:
    if not labels or case.label is None:
        return None
    pair = np.array(case.label[z : z + 2])
    pair[~np.isin(pair, list(labels.values()))] = 0
    return pair


def _summary(values: Values, digits: int) -> dict[str, float] | None:
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    low, high = np.percentile(values, [5, 95])
    found = {"mean": values.mean(), "p5": low, "p95": high}
    return {name: round(float(value), digits) for name, value in found.items()}
