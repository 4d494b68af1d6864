"""Render the report as one HTML file that needs no other: verdict first, then the figures.

Style and pictures are inside, there is no script, and a content security policy forbids every
request.
"""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medaug.evaluation.figures import Curve, Family
from medaug.evaluation.page.bars import figure_bars
from medaug.evaluation.page.curves import curve_svg
from medaug.evaluation.page.tables import downstream_table
from medaug.evaluation.page.words import bound_words, interval, number, source_words
from medaug.evaluation.verdict import QUESTIONS, listed, of_family, title
from medaug.runtime.html import framed, gallery
from medaug.runtime.pictures import Picture

MARKS = {True: "pass", False: "fail", None: "told"}
SAID = {"pass": "within bounds", "fail": "out of bounds", "told": "no bound"}


def render(
    content: Mapping[str, Any],
    families: Sequence[Family],
    pictures: Sequence[Picture] = (),
    training: Sequence[Curve] = (),
) -> str:
    """Render the page.

    Args:
        content: of ``report.json``.
        families: the parts, their figures with the bounds that decided the verdict.
        pictures: of the slices themselves.
        training: curves of the run.
    """
    sections = [_section(family) for family in families]
    measured = [section["name"] for section in sections]
    return framed(
        Path(__file__).parent,
        content=content,
        mark=MARKS[content["passed"]],
        said=SAID,
        sections=sections,
        absent=listed([name for name in QUESTIONS if name not in measured]),
        pictures=[gallery(picture) for picture in pictures],
        training=[{"curve": curve, "svg": curve_svg(curve)} for curve in training],
        study=downstream_table(content["downstream"]),
        command=_wrapped(content["reproduce"]),
    )


def _section(family: Family) -> dict[str, Any]:
    verdict = of_family(family)
    return {
        "name": family.name,
        "question": QUESTIONS.get(family.name, ""),
        "mark": MARKS[verdict.passed],
        "verdict": verdict.sentence,
        "figures": [
            {
                "figure": figure,
                "title": title(figure.name),
                "mark": MARKS[figure.passed],
                "value": number(figure.value, figure.unit),
                "real": None if figure.real is None else number(figure.real, figure.unit),
                "interval": interval(figure.low, figure.high),
                "bars": figure_bars(figure),
                "bound": bound_words(figure),
                "source": source_words(figure),
            }
            for figure in sorted(family.figures, key=lambda f: f.passed is not False)
        ],
        "pictures": [gallery(picture) for picture in family.pictures],
        "curves": [{"curve": curve, "svg": curve_svg(curve)} for curve in family.curves],
        "skipped": family.skipped,
    }


def _wrapped(command: str) -> str:
    """A command line, one option a line."""
    text = ""
    for word in shlex.split(command):
        new_line = word.startswith("-") and not word[1:].replace(".", "").isdigit()
        text += (" \\\n    " if new_line else " ") + shlex.quote(word)
    return text.strip()
