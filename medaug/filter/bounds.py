"""Thresholds from the figures of real slices, calibrated so that unseen patients keep them.

The range of a figure is the range of its quantiles, widened by what each group of slices (each
patient) sticks out of the range of all others: a patient who was not there is met as one was who
was left out.  Where a figure depends on the size of the mask, each band of sizes has its own range.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.floating[Any]]
Groups = npt.NDArray[np.integer[Any]]

ENOUGH = 60
"""Slices that a band of sizes needs."""

BANDS = 4


@dataclass(frozen=True)
class Bounds:
    """Lowest and highest value by size: band k holds sizes up to ``edges[k]``."""

    edges: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def at(self, size: float = 0.0) -> tuple[float, float]:
        """Lowest and highest value for a mask of ``size`` pixels."""
        band = int(np.searchsorted(self.edges, size))
        return self.low[band], self.high[band]


def fitted(values: Values, groups: Groups, tail: float) -> tuple[float, float]:
    """Bounds that a share ``tail`` of the slices of a new group would pass on either side.

    Args:
        values: a figure of each slice (n,).
        groups: whose slice it is (n,).
        tail: share of the slices beyond each bound.

    Returns:
        Lowest and highest value; infinite where there are no values.
    """
    if not len(values):
        return -np.inf, np.inf
    shares = [tail, 1 - tail]
    low, high = np.quantile(values, shares)
    below, above = [np.zeros(1)], [np.zeros(1)]
    for group in np.unique(groups):
        mine = groups == group
        if not mine.all():
            least, most = np.quantile(values[~mine], shares)
            below.append(least - values[mine])
            above.append(values[mine] - most)
    widen = (max(np.quantile(np.concatenate(side), 1 - tail), 0) for side in (below, above))
    return float(low - next(widen)), float(high + next(widen))


def by_size(values: Values, sizes: Values, groups: Groups, tail: float, first: float = 0) -> Bounds:
    """``fitted`` for each of up to four bands of sizes that hold about as many slices each.

    Args:
        values: a figure of each slice (n,); those that are not a number are left out.
        sizes: pixels of its mask (n,).
        groups: whose slice it is (n,).
        tail: share of the slices beyond each bound.
        first: sizes below it make a band of their own.
    """
    there = np.isfinite(values)
    values, sizes, groups = values[there], sizes[there], groups[there]
    large = sizes[sizes >= first]
    bands = int(np.clip(len(large) // ENOUGH, 1, BANDS))
    cuts = np.quantile(large, np.arange(1, bands) / bands) if len(large) else np.empty(0)
    edges = tuple(float(c) for c in ([first - 0.5] if first else []) + np.unique(cuts).tolist())
    place = np.searchsorted(edges, sizes)
    pairs = [
        fitted(values[place == band], groups[place == band], tail) for band in range(len(edges) + 1)
    ]
    low, high = zip(*pairs, strict=True)
    return Bounds(edges, low, high)
