"""Paired differences over subsets and test patients, with their uncertainty.

Test patients and choices of training patients are both samples of what might have been, so both
are drawn anew: the bootstrap for crossed random effects (Owen 2007, The pigeonhole bootstrap).  It
errs on the side of wide intervals.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A mean over subsets and cases, and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float

    @property
    def above(self) -> bool:
        """Whether the interval lies above 0."""
        return self.low > 0

    @property
    def below(self) -> bool:
        """Whether the interval lies below 0."""
        return self.high < 0


def interval(values: npt.NDArray[Any], seed: int, resamples: int) -> Interval:
    """Mean of ``values`` (subsets, cases) with the 2.5th and 97.5th percentile of its bootstrap."""
    values = np.asarray(values, np.float64)
    low, high = np.quantile(resampled(values, seed, resamples), (0.025, 0.975))
    return Interval(float(values.mean()), float(low), float(high))


def resampled(values: Values, seed: int, resamples: int) -> Values:
    """Means (resamples,) of ``values`` (subsets, cases) with both drawn anew, with replacement."""
    rng = np.random.default_rng(seed)
    subsets, cases = values.shape
    rows = rng.multinomial(subsets, np.full(subsets, 1 / subsets), resamples) / subsets
    columns = rng.multinomial(cases, np.full(cases, 1 / cases), resamples) / cases
    return np.asarray(np.einsum("rs,sc,rc->r", rows, values, columns))


def hurt(difference: npt.NDArray[Any], points: float) -> int:
    """How many cases lose more than ``points``, by the mean over subsets of (subsets, cases)."""
    return int((np.asarray(difference, np.float64).mean(0) < -points).sum())


def verdict(standard: Interval | None, rival: Interval | None) -> str:
    """What the differences from standard augmentation and from the best cheap rival say.

    ``helps`` where both intervals lie above 0; ``hurts`` where that against standard augmentation
    lies below; ``not shown`` otherwise; ``not judged`` where one of the two was not run.
    """
    if standard is None or rival is None:
        return "not judged"
    if standard.above and rival.above:
        return "helps"
    return "hurts" if standard.below else "not shown"
