"""Define what each part of a report consists of: figures with their bounds, pictures and curves.

A figure comes with its real value: the same figure of as many training slices, against the same
held-out slices.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from medaug.core.modality import CT, Modality
from medaug.runtime.pictures import Picture

FamilyName = Literal["fidelity", "diversity", "anatomy", "privacy", "uncertainty"]


@dataclass(frozen=True)
class Bound:
    """The range that a figure must lie in to pass.

    Attributes:
        least: smallest that passes, or None.
        most: largest that passes, or None.
        of: what is bounded: the value, its ratio to the real one, or value minus real.
    """

    least: float | None = None
    most: float | None = None
    of: Literal["value", "ratio", "difference"] = "value"

    def for_unit(self, modality: Modality) -> "Bound":
        """A bound in HU as one in the unit of ``modality`` that is as strict; ratios stay."""
        if modality is CT or self.of == "ratio":
            return self
        least, most = (
            None if end is None else end * modality.per_hu for end in (self.least, self.most)
        )
        return replace(self, least=least, most=most)


def intensities(modality: Modality) -> str:
    """What the values of images are called in a sentence: HU, or intensities for MR."""
    return modality.unit if modality is CT else "intensities"


@dataclass(frozen=True)
class Figure:
    """One measured number, the real value to compare it with, and what it means.

    Attributes:
        name: family, metric and what it was measured on, as ``fidelity.frechet.texture``.
        value: of the synthetic slices; not a number where there was nothing to measure.
        real: the same of real training slices, or None where that makes no sense.
        sentence: what the number means and what would be bad, in one plain sentence.
        n: synthetic slices measured.
        n_real: real slices that they were compared with.
        seed: of the random draws, or None where there are none.
        extractor: feature space and its version, or None.
        low: lower end of the 95 % interval of the value, or None.
        high: upper end, or None.
        unit: as ``HU`` or ``mm2``; empty for a pure number.
        bound: what decides whether the figure passes, or None for one that is only reported.
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
        """Value over real; None unless the real one is above 0, where larger means larger."""
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
    """Lines over one axis.

    Attributes:
        title: heading.
        caption: what to look for.
        x: name of the horizontal axis.
        y: name of the vertical axis.
        lines: x and y (k,) of each line, by name.
    """

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
        pictures: for the page.
        curves: for the page.
        details: plain values for the JSON file alone, such as the list of suspected copies.
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
