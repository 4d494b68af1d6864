"""What the figures of one evaluation share: their counts, their seed, their feature spaces."""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from torch import Tensor

from medaug.evaluation.features.extractor import Extractor, called
from medaug.evaluation.features.spaces import Role, Spaces
from medaug.evaluation.figures import Bound, Figure
from medaug.evaluation.metrics.intervals import Estimate, groups_of, interval, mean
from medaug.evaluation.slices.evidence import Evidence

LEAST = 20
"""Slices of each kind below which nothing is measured."""

Pair = tuple[Estimate, Estimate]
"""Of the synthetic slices, and of training slices in their place."""

Values = npt.NDArray[np.float64]


def too_few(evidence: Evidence, least: int) -> str | None:
    """Why there is nothing to measure, or None."""
    parts = {"synthetic": evidence.synthetic, "train": evidence.train, "heldout": evidence.heldout}
    small = {name: len(part) for name, part in parts.items() if len(part) < least}
    told = " and ".join(f"{n} {name}" for name, n in small.items())
    return f"{told} slices are too few; {least} of each are needed" if small else None


class FigureBuilder:
    """Makes figures with what all of one evaluation share.

    Args:
        spaces: slices and features.
        bounds: by figure name.
    """

    def __init__(self, spaces: Spaces, bounds: Mapping[str, Bound]) -> None:
        self.spaces, self.bounds = spaces, bounds
        self.groups = {
            role: groups_of(part.cases, seed=spaces.seed)
            for role, part in (
                ("synthetic", spaces.synthetic),
                ("train", spaces.train),
                ("heldout", spaces.heldout),
            )
        }

    def features(self, space: Extractor) -> tuple[Tensor, Tensor, Tensor]:
        """Of synthetic, training and held-out slices."""
        roles: tuple[Role, Role, Role] = ("synthetic", "train", "heldout")
        one, two, three = (self.spaces.features(space, role) for role in roles)
        return one, two, three

    def figure(
        self,
        name: str,
        space: Extractor,
        value: float,
        real: float | None,
        sentence: str,
        ends: tuple[float | None, float | None] = (None, None),
    ) -> Figure:
        """A figure with the counts, the seed, the feature space and the bound filled in."""
        low, high = ends
        name = f"{name}.{space.name}"
        return Figure(
            name=name,
            value=float(value),
            real=None if real is None else float(real),
            sentence=sentence,
            n=self.spaces.n,
            n_real=self.spaces.n_real,
            seed=self.spaces.seed,
            extractor=called(space),
            low=low,
            high=high,
            bound=self.bounds.get(name),
        )

    def distance(self, name: str, space: Extractor, pair: Pair, sentence: str) -> Figure:
        """A figure from estimates of the synthetic and of the training slices."""
        value, real = pair
        ends = value.low, value.high
        return self.figure(name, space, value.value, real.value, sentence, ends)

    def resampled(
        self,
        name: str,
        space: Extractor,
        values: Values,
        statistic: Callable[[Values, Values], float] = mean,
        role: Role = "synthetic",
    ) -> tuple[float | None, float | None]:
        """The 95 % interval of a statistic of values (n, ...) and weights (n,) of slices."""
        return interval(
            statistic(values, np.ones(len(values))),
            lambda weights: statistic(values, weights),
            [getattr(self.spaces, role).cases],
            self.spaces.seed,
            f"{name}.{space.name}",
            0.0,
        )
