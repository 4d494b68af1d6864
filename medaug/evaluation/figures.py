"""What every part of the report hands to the page: figures with their yardstick, pictures, curves.

A figure stands beside the same figure of real slices: training slices in the place of the
synthetic ones, against the same held-out slices, at the same n.  A bound, where there is one, is
on the value itself, on its ratio to the real one, or on its distance from it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from medaug.runtime.pictures import Picture

FamilyName = Literal["fidelity", "diversity", "anatomy", "privacy", "uncertainty"]


Of = Literal["value", "ratio", "difference"]


@dataclass(frozen=True)
class Bound:
    """What a figure must keep to pass.

    Attributes:
        least: smallest that passes, or None.
        most: largest that passes, or None.
        of: what is bounded: the value, its ratio to the real one, or value minus real.
    """

    least: float | None = None
    most: float | None = None
    of: Of = "value"


@dataclass(frozen=True)
class Figure:
    """One measured number, its yardstick, and what it means.

    Attributes:
        name: family, metric and what it was measured on, as ``fidelity.frechet.texture``.
        value: of the synthetic slices; not a number where there was nothing to measure.
        real: the same of real training slices, or None where that makes no sense.
        sentence: what the number means and what would be bad, in one plain sentence.
        n: synthetic slices that went in.
        n_real: real slices that it was held against.
        seed: of whatever was drawn, or None.
        extractor: feature space and its version, or None.
        low: lower end of the 95 % interval of the value, or None.
        high: upper end, or None.
        unit: as ``HU`` or ``mm2``; empty for a pure number.
        bound: what must hold, or None for a figure that is told only.
    """

    name: str
    value: float
    real: float | None
    sentence: str
    n: int
    n_real: int
    seed: int | None = None
    extractor: str | None = None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    bound: Bound | None = None

    @property
    def family(self) -> str:
        """The first part of the name."""
        return self.name.partition(".")[0]

    @property
    def ratio(self) -> float | None:
        """Value over real; None without a real one above 0, since others turn its meaning round."""
        return self.value / self.real if self.real is not None and self.real > 0 else None

    @property
    def passed(self) -> bool | None:
        """Whether the bound holds; None without one. What could not be measured does not pass."""
        if self.bound is None:
            return None
        bounded = {
            "value": self.value,
            "ratio": self.ratio,
            "difference": None if self.real is None else self.value - self.real,
        }[self.bound.of]
        if bounded is None or math.isnan(bounded):
            return False
        least, most = self.bound.least, self.bound.most
        return (least is None or bounded >= least) and (most is None or bounded <= most)


@dataclass(frozen=True)
class Curve:
    """Lines over one axis, by name; x and y (k,) of each."""

    title: str
    caption: str
    x: str
    y: str
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]


@dataclass(frozen=True)
class Family:
    """What one part of the evaluation found.

    Attributes:
        name: which part.
        figures: the numbers; those with a bound decide the verdict.
        pictures: what to look at.
        curves: what to look at as lines.
        details: plain values for the JSON alone, such as the list of suspected copies.
        skipped: what was not measured, and why, one sentence each.
    """

    name: FamilyName
    figures: Sequence[Figure]
    pictures: Sequence[Picture] = ()
    curves: Sequence[Curve] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    skipped: Sequence[str] = ()

    @property
    def failed(self) -> list[Figure]:
        """The figures whose bound does not hold."""
        return [figure for figure in self.figures if figure.passed is False]
