"""Standard errors of distances: slices of one case are left out together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medaug.seeds import derive

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
