"""95 % intervals by resampling cases, since slices of one case are not independent."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medaug.core.seeds import derive

Weights = npt.NDArray[np.float64]


TIMES = 200
"""Resamples; the standard error of their spread is about 5 %."""


def weights(cases: Sequence[str], seed: int, *address: int | str) -> Weights:
    """How often each slice (n,) is in one resample: its case drawn with replacement."""
    _, case = np.unique(np.asarray(cases), return_inverse=True)
    count = int(case.max()) + 1
    draws = np.random.default_rng(derive(seed, *address)).integers(count, size=count)
    return np.bincount(draws, minlength=count)[case].astype(np.float64)


def interval(
    value: float,
    statistic: Callable[..., float],
    groups: Sequence[Sequence[str]],
    seed: int,
    name: str,
    least: float = -np.inf,
    times: int = TIMES,
) -> tuple[float | None, float | None]:
    """The value less and plus 1.96 standard errors, which are the spread over resamples of cases.

    The ends of the resamples themselves would miss the value where the statistic is a distance,
    which resampling biases upwards (Efron and Tibshirani 1993, chapter 13).

    Args:
        value: of the statistic on all slices.
        statistic: takes the weights (n,) of each group's slices.
        groups: the case of each slice of each group.
        seed: of the resamples, with ``name``.
        name: of the figure.
        least: the lower end is not below it.
        times: how many resamples.

    Returns:
        Both ends, or None twice where a group has a single case or the value is not a number.
    """
    if not np.isfinite(value) or any(len(set(cases)) < 2 for cases in groups):
        return None, None
    found = np.array([
        statistic(*(weights(cases, seed, "bootstrap", name, g, t)
                    for g, cases in enumerate(groups)))
        for t in range(times)
    ])  # fmt: skip
    found = found[np.isfinite(found)]
    if len(found) < 2:
        return None, None
    half = 1.96 * float(found.std(ddof=1))
    return max(value - half, least), value + half


def mean(values: npt.NDArray[np.float64], weight: Weights | None = None) -> float:
    """The weighted mean of the values (n,) that are numbers; not a number where there are none."""
    kept = np.isfinite(values)
    weight = np.ones(len(values)) if weight is None else weight
    total = float(weight[kept].sum())
    return float((values[kept] * weight[kept]).sum() / total) if total else float("nan")


# Standard errors of distances: slices of one case are left out together.


GROUPS = 20


NORMAL = 1.96


@dataclass(frozen=True)
class Estimate:
    """A value, its standard error (nan where there is too little to tell), and its least value."""

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


def groups_of(cases: Sequence[str], most: int = GROUPS, seed: int = 0) -> npt.NDArray[np.int64]:
    """A group (n,) from 0 for each slice: its case, or one of ``most`` lots of whole cases."""
    names, number = np.unique(np.asarray(cases), return_inverse=True)
    order = np.random.default_rng(derive(seed, "groups")).permutation(len(names))
    return (order % min(most, len(names)))[number]


def jackknife(left_out: npt.ArrayLike) -> float:
    """Standard error from the values with one group of g left out, (g,).

    Efron and Stein 1981: (g - 1) / g times the sum of squares about their mean.
    """
    values = np.asarray(left_out, float)
    if len(values) < 2:
        return math.nan
    squares = np.square(values - values.mean()).sum()
    return math.sqrt((len(values) - 1) / len(values) * squares)
