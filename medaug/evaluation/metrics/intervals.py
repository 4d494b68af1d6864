"""Give values their 95 % interval, from whole cases, since slices of a case are not independent.

A statistic of weighted slices gets it from resamples of cases (``bootstrap``), a costly distance
from leaving out groups of cases in turn (``groups_of``, ``jackknife``).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medaug.core.seeds import derive

Weights = npt.NDArray[np.float64]
Statistic = Callable[..., float]
"""Of the weights (n,) of the slices of each set."""

TIMES = 200
"""Resamples; the standard error of their spread is about 5 %."""

GROUPS = 20
NORMAL = 1.96


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error.

    Attributes:
        value: the value.
        error: its standard error; nan where there is too little to tell.
        least: the least value possible, below which no interval reaches.
    """

    value: float
    error: float = math.nan
    least: float = -math.inf

    @property
    def low(self) -> float | None:
        """Lower end of the 95 % interval; None without an error."""
        if math.isnan(self.error):
            return None
        return max(self.value - NORMAL * self.error, self.least)

    @property
    def high(self) -> float | None:
        """Upper end; None without an error."""
        return None if math.isnan(self.error) else self.value + NORMAL * self.error


def unweighted(statistic: Statistic, *cases: Sequence[str]) -> float:
    """A statistic with each slice counted once."""
    return statistic(*(np.ones(len(part)) for part in cases))


def bootstrap(
    statistic: Statistic,
    cases: Sequence[Sequence[str]],
    seed: int,
    name: str,
    least: float = -math.inf,
    times: int = TIMES,
) -> Estimate:
    """A statistic, and as its error the standard deviation over resamples of cases.

    The quantiles of the resamples would miss the value where the statistic is a distance, which
    resampling biases upwards (Efron and Tibshirani 1993, chapter 13).

    Args:
        statistic: takes the weights (n,) of the slices of each set.
        cases: the case of each slice of each set.
        seed: of the resamples, together with ``name``.
        name: of the figure.
        least: the least value possible.
        times: how many resamples.

    Returns:
        Without an error where a set has a single case or the value is not a number.
    """
    value = unweighted(statistic, *cases)
    if not math.isfinite(value) or any(len(set(part)) < 2 for part in cases):
        return Estimate(value, least=least)
    found = np.array([
        statistic(*(weights(part, seed, "bootstrap", name, g, t) for g, part in enumerate(cases)))
        for t in range(times)
    ])  # fmt: skip
    found = found[np.isfinite(found)]
    error = float(found.std(ddof=1)) if len(found) > 1 else math.nan
    return Estimate(value, error, least)


def weights(cases: Sequence[str], seed: int, *address: int | str) -> Weights:
    """How often each slice (n,) is in one resample: its case drawn with replacement."""
    _, case = np.unique(np.asarray(cases), return_inverse=True)
    count = int(case.max()) + 1
    draws = np.random.default_rng(derive(seed, *address)).integers(count, size=count)
    return np.bincount(draws, minlength=count)[case].astype(np.float64)


def mean(values: npt.NDArray[np.float64], weight: Weights | None = None) -> float:
    """The weighted mean of the values (n,) that are numbers; not a number where there are none."""
    kept = np.isfinite(values)
    weight = np.ones(len(values)) if weight is None else weight
    total = float(weight[kept].sum())
    return float((values[kept] * weight[kept]).sum() / total) if total else float("nan")


def groups_of(cases: Sequence[str], most: int = GROUPS, seed: int = 0) -> npt.NDArray[np.int64]:
    """A group (n,) from 0 for each slice: its case, or one of ``most`` lots of whole cases."""
    names, number = np.unique(np.asarray(cases), return_inverse=True)
    order = np.random.default_rng(derive(seed, "groups")).permutation(len(names))
    return (order % min(most, len(names)))[number]


def jackknife(left_out: npt.ArrayLike) -> float:
    """Standard error from the values (g,) with one of g groups left out in each.

    Efron and Stein 1981: (g - 1) / g times the sum of squares about their mean.
    """
    values = np.asarray(left_out, float)
    if len(values) < 2:
        return math.nan
    squares = np.square(values - values.mean()).sum()
    return math.sqrt((len(values) - 1) / len(values) * squares)
