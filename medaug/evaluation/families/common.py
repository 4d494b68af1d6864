"""Build figures from comparisons of synthetic and training slices with held-out ones."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from medaug.evaluation.features.extractor import Extractor, called
from medaug.evaluation.features.spaces import Role, Spaces
from medaug.evaluation.figures import Bound, Figure
from medaug.evaluation.metrics.distances import Groups
from medaug.evaluation.metrics.intervals import Estimate, Weights, bootstrap, groups_of, mean
from medaug.evaluation.metrics.neighbours import Held, Typical, held, radii, scans_of, typical
from medaug.evaluation.slices.evidence import Evidence

LEAST = 20
"""Slices of each kind below which nothing is measured."""

K = 5
"""Neighbours within a neighbourhood."""

Values = npt.NDArray[np.float64]


def too_few(evidence: Evidence) -> str | None:
    """Why there is nothing to measure, or None."""
    parts = {"synthetic": evidence.synthetic, "train": evidence.train, "heldout": evidence.heldout}
    small = [f"{len(part)} {name}" for name, part in parts.items() if len(part) < LEAST]
    return (
        f"{' and '.join(small)} slices are too few; {LEAST} of each are needed" if small else None
    )


@dataclass(frozen=True)
class Lying:
    """How synthetic slices, or training slices in their place, lie among held-out ones.

    Attributes:
        near: in the balls about held-out slices that reach to their ``K``-th neighbour.
        typical: how far out from the middle of the held-out slices.
    """

    near: Held
    typical: Typical


class Measured(Protocol):
    """What was measured of a set of slices, with the case of each."""

    @property
    def cases(self) -> Sequence[str]: ...


M = TypeVar("M", bound=Measured)
Comparison = Callable[[M, M, Weights, Weights], float]
"""Of two sets, and the weights of their slices."""


def compared(
    of: Comparison[M], sets: Sequence[M], seed: int, name: str, least: float = -math.inf
) -> tuple[Estimate, float | None]:
    """Compare synthetic and training slices with held-out ones.

    Args:
        of: the statistic.
        sets: synthetic, training and held-out slices.
        seed: of the resamples, together with ``name``.
        name: of the figure.
        least: the least value possible.

    Returns:
        The estimate of the synthetic slices, and the real value, or None where it is no number.
    """
    synthetic, train, heldout = sets
    value = bootstrap(
        lambda a, b: of(synthetic, heldout, a, b),
        (synthetic.cases, heldout.cases),
        seed,
        name,
        least,
    )
    real = of(train, heldout, np.ones(len(train.cases)), np.ones(len(heldout.cases)))
    return value, real if math.isfinite(real) else None


class FigureBuilder:
    """Makes figures with the counts, the seed and the bounds that all of a report share.

    Args:
        spaces: slices and their features.
        bounds: by figure name.
    """

    def __init__(self, spaces: Spaces, bounds: Mapping[str, Bound]) -> None:
        self.spaces, self.bounds = spaces, bounds

    def features(self, space: Extractor) -> tuple[Tensor, Tensor, Tensor]:
        """Features of synthetic, training and held-out slices."""
        roles: tuple[Role, Role, Role] = ("synthetic", "train", "heldout")
        synthetic, train, heldout = (self.spaces.features(space, role) for role in roles)
        return synthetic, train, heldout

    def groups(self, role: Role) -> Groups:
        """Group of each slice for leaving out cases in turn."""
        return groups_of(getattr(self.spaces, role).cases, seed=self.spaces.seed)

    def lying(self, synthetic: Tensor, train: Tensor, heldout: Tensor) -> tuple[Lying, Lying]:
        """How synthetic and training features (n, d) lie among held-out ones (m, d)."""
        part = self.spaces.heldout
        scans = scans_of(part.cases, part.heights, K)
        radius, nearest = (radii(heldout, k, scans) for k in (K, 1))
        ours, theirs = (
            Lying(held(heldout, radius, x), typical(heldout, x, nearest))
            for x in (synthetic, train)
        )
        return ours, theirs

    def figure(
        self, name: str, space: Extractor, value: Estimate, real: float | None, sentence: str
    ) -> Figure:
        """The figure ``name`` in a feature space."""
        name = f"{name}.{space.name}"
        return Figure(
            name,
            value.value,
            real,
            sentence,
            self.spaces.n,
            self.spaces.n_real,
            self.spaces.seed,
            called(space),
            value.low,
            value.high,
            bound=self.bounds.get(name),
        )

    def of_sets(
        self,
        name: str,
        space: Extractor,
        measure: Callable[[Tensor, Groups], Estimate],
        sentence: str,
    ) -> Figure:
        """A figure of whole sets: ``measure`` takes features (n, d) and the group of each."""
        synthetic, train, _ = self.features(space)
        value = measure(synthetic, self.groups("synthetic"))
        return self.figure(name, space, value, measure(train, self.groups("train")).value, sentence)

    def of_slices(
        self,
        name: str,
        space: Extractor,
        values: tuple[Values, Values],
        sentence: str,
        statistic: Callable[[Values, Values], float] = mean,
        role: Role = "synthetic",
    ) -> Figure:
        """A figure of values of single slices.

        Args:
            name: of the figure, without its feature space.
            space: feature space.
            values: (n, ...) with synthetic slices, and with training slices in their place.
            sentence: what the figure means.
            statistic: takes such values and the weights (n,) of the slices.
            role: whose values they are: those of the ``synthetic`` or of the ``heldout`` slices.
        """
        ours, theirs = values
        value = bootstrap(
            lambda weights: statistic(ours, weights),
            [getattr(self.spaces, role).cases],
            self.spaces.seed,
            f"{name}.{space.name}",
            0.0,
        )
        real = statistic(theirs, np.ones(len(theirs)))
        return self.figure(name, space, value, real, sentence)
