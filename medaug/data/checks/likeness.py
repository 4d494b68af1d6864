"""Recognise a scan that is there already, under another name.

A scan's likeness is how much gas, fat, soft tissue and bone (of MR: void, dark, medium and bright)
lies in each half of its body, every 4 mm along the body: areas, which neither the origin, the
in-plane crop, the pixel size, the storage order nor the compression change.  Cutting slices off
either end shortens it, so two are compared where they overlap best.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from medaug.core.modality import CT
from medaug.data.checks.reduced import Reduced

Likeness = npt.NDArray[np.float64]
"""mm2 (n, 8), from inferior to superior: gas, fat, soft, bone on the left, then on the right."""

STEP_MM = 4.0
SHORTEST_MM = 60.0
"""Stacks that overlap by less look alike in too many patients."""
OVERLAP = 0.6
"""Of the shorter stack must lie on the other."""
SAME = 0.035
"""Share of the areas that may differ.  A scan cropped, coarsened to 3 mm or compressed differs from
itself by up to 0.025, scans of two real patients by 0.15 and more, two phantoms by 0.06."""
_TISSUES_HU = (-200.0, -30.0, 180.0)
_SHIFTS = 4
_NEAR = 0.2


def likeness(reduced: Reduced) -> Likeness:
    """Compute the likeness of a scan (n, 8), empty where the stack is too low for one."""
    body, (x_mm, y_mm, z_mm) = reduced.body, reduced.pitch_mm
    height = z_mm * (body.shape[2] - 1)
    if height < SHORTEST_MM or not body.any():
        return np.zeros((0, 8))
    bounds = _TISSUES_HU if reduced.modality is CT else reduced.modality.bands
    tissue = np.digitize(reduced.hu, bounds)
    widths = body.sum(axis=(0, 1))
    places = np.arange(body.shape[0])
    middle = (places @ body.sum(axis=1)) / np.maximum(widths, 1)
    left = places[:, None] < middle[None, :]
    areas = np.empty((body.shape[2], 8))
    for kind in range(4):
        columns = (body & (tissue == kind)).sum(axis=1)
        areas[:, kind] = (columns * left).sum(axis=0)
        areas[:, 4 + kind] = (columns * ~left).sum(axis=0)
    areas *= x_mm * y_mm
    at = np.arange(0, height, STEP_MM)
    if z_mm < STEP_MM:
        areas = _smoothed(areas, STEP_MM / z_mm)
    slices = np.arange(body.shape[2]) * z_mm
    return np.rint(np.stack([np.interp(at, slices, column) for column in areas.T], axis=1))


def _smoothed(areas: Likeness, width: float) -> Likeness:
    """Means over ``width`` slices, fewer at the ends."""
    reach = int(width // 2)
    summed = np.cumsum(np.pad(areas, ((1, 0), (0, 0))), axis=0)
    first = np.maximum(np.arange(len(areas)) - reach, 0)
    last = np.minimum(np.arange(len(areas)) + reach + 1, len(areas))
    return np.asarray((summed[last] - summed[first]) / (last - first)[:, None])


def _storages(one: Likeness) -> Iterator[Likeness]:
    """The scan as it is, mirrored, upside down, and both."""
    mirrored = np.roll(one, 4, axis=1)
    yield from (one, mirrored, one[::-1], mirrored[::-1])


def difference(one: Likeness, other: Likeness) -> float:
    """The share of the areas that differs where the two overlap best; infinite if too little does.

    A mirrored or an upside-down copy is the same scan.  Steps between two places of the grid are
    tried only where the whole steps come near.
    """
    shorter, longer = sorted((one, other), key=len)
    if len(shorter) < SHORTEST_MM / STEP_MM:
        return float("inf")
    best = float("inf")
    for stored in _storages(shorter):
        whole = _at_best(stored, longer)
        best = min(best, whole)
        if whole < _NEAR:
            for part in range(1, _SHIFTS):
                share = part / _SHIFTS
                best = min(best, _at_best(stored[:-1] * (1 - share) + stored[1:] * share, longer))
    return best


def _at_best(shorter: Likeness, longer: Likeness) -> float:
    """The share of the areas that differs at the best of all shifts by whole steps."""
    offset = np.arange(len(longer))[None, :] - np.arange(len(shorter))[:, None]
    shift = (offset + len(shorter) - 1).ravel()
    apart = np.abs(shorter[:, None] - longer[None, :]).sum(axis=2).ravel()
    areas = (shorter.sum(axis=1)[:, None] + longer.sum(axis=1)[None, :]).ravel() / 2
    rows = np.bincount(shift)
    enough = rows >= max(OVERLAP * len(shorter), SHORTEST_MM / STEP_MM - 1)
    differ, total = np.bincount(shift, apart)[enough], np.bincount(shift, areas)[enough]
    return float((differ / np.maximum(total, 1)).min(initial=np.inf))


def same_scan(one: Likeness, other: Likeness) -> bool:
    """Whether the two are one scan, cropped, stored or sampled differently."""
    return at_least(one, other) < SAME and difference(one, other) < SAME


def at_least(one: Likeness, other: Likeness) -> float:
    """A lower bound of `difference`, by the area of the whole body, in a tenth of the time.

    Every scan is held against all others, and few patients have bodies of one size all along.  A
    mirrored scan has the same areas; one between two places of the grid lies between theirs.
    """
    shorter, longer = sorted((one.sum(axis=1), other.sum(axis=1)), key=len)
    n = len(shorter)
    if n < SHORTEST_MM / STEP_MM:
        return float("inf")
    rows = math.ceil(max(OVERLAP * (n - 1), SHORTEST_MM / STEP_MM - 1))
    there = sliding_window_view(np.pad(longer, n - rows, constant_values=np.nan), n)
    best = float("inf")
    for stored in (shorter, shorter[::-1]):
        low, high = np.minimum(stored[:-1], stored[1:]), np.maximum(stored[:-1], stored[1:])
        inner = there[:, :-1]
        differ = np.fmax(np.fmax(low - inner, inner - high), 0).sum(axis=1)
        total = np.nansum(np.append(high, stored[-1]) + there, axis=1) / 2
        best = min(best, float((differ / np.maximum(total, 1)).min()))
    return best


def packed(one: Likeness) -> list[list[int]]:
    """A likeness as JSON stores it."""
    return [[int(area) for area in row] for row in one]


def unpacked(rows: Sequence[Sequence[int]]) -> Likeness:
    """The reverse of `packed`."""
    return np.array(rows, float).reshape(-1, 8)
