"""What a report says of slices that are not in HU: the same figures, in the unit of their modality.

The parts measure in stored values and speak of HU.  Of MR, HU become thousandths of a scan's range,
a bound in HU becomes as many thousandths as weigh the same, and the tissues are told by brightness.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from medaug.core.modality import CT, Modality
from medaug.evaluation.figures import Bound, Curve, Family, Figure
from medaug.runtime.pictures import Picture

HISTOGRAM = Bound(most=60.0, of="difference")
"""Of MR, since the medians of bands, which are no tissues, hardly see a shift of everything."""

_COUNTED = re.compile(r"(?<=\d )HU\b")
_SPOKEN = re.compile(r"\bHU\b")
_NAMED = re.compile(r"(?<![a-z])hu(?![a-z])")
_LEVELS = {
    "fidelity.level.fat": (1, "what is dark but no void"),
    "fidelity.level.soft": (2, "what is neither dark nor bright"),
}
"""Place among the modality's tissues, and the tissue in words."""


def told_in(family: Family, modality: Modality) -> Family:
    """``family`` as it is for CT, and in the unit of another modality."""
    if modality is CT:
        return family
    return replace(
        family,
        figures=[_figure(figure, modality) for figure in family.figures],
        pictures=[_picture(picture, modality) for picture in family.pictures],
        curves=[_curve(curve, modality) for curve in family.curves],
        details=_details(family.details, modality),
        skipped=[_words(sentence, modality) for sentence in family.skipped],
    )


def _figure(figure: Figure, modality: Modality) -> Figure:
    name, sentence = _NAMED.sub(modality.unit, figure.name), _words(figure.sentence, modality)
    if figure.name in _LEVELS:
        place, tissue = _LEVELS[figure.name]
        name = f"fidelity.level.{list(modality.tissues)[place]}"
        sentence = (
            f"How much brighter {tissue} is than in held-out patients; far from the real value "
            "means wrong intensities, or scans of another sequence."
        )
    bound = figure.bound
    if figure.name == "fidelity.histogram":
        bound = HISTOGRAM
    elif figure.unit == "HU" and bound is not None and bound.of != "ratio":
        bound = _scaled(bound, modality.per_hu)
    unit = _SPOKEN.sub(modality.unit, figure.unit)
    return replace(figure, name=name, sentence=sentence, unit=unit, bound=bound)


def _scaled(bound: Bound, factor: float) -> Bound:
    least, most = (None if end is None else end * factor for end in (bound.least, bound.most))
    return replace(bound, least=least, most=most)


def _picture(picture: Picture, modality: Modality) -> Picture:
    return replace(
        picture,
        title=_words(picture.title, modality),
        caption=_words(picture.caption, modality),
        row_names=[_words(name, modality) for name in picture.row_names],
    )


def _curve(curve: Curve, modality: Modality) -> Curve:
    return replace(
        curve,
        title=_words(curve.title, modality),
        caption=_words(curve.caption, modality),
        y=_SPOKEN.sub(modality.unit, curve.y),
    )


def _details(value: Any, modality: Modality) -> Any:
    """Plain values, their keys in the unit."""
    if isinstance(value, Mapping):
        return {
            _NAMED.sub(modality.unit, key): _details(content, modality)
            for key, content in value.items()
        }
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_details(content, modality) for content in value]
    return value


def _words(sentence: str, modality: Modality) -> str:
    """A sentence: HU after a number are the unit, others intensities."""
    return _SPOKEN.sub("intensities", _COUNTED.sub(modality.unit, sentence))
