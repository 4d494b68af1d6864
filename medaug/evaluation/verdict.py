"""Decide which bounds hold, for each part and for the whole report, and say so in words."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from medaug.core.errors import ConfigError
from medaug.evaluation.figures import Bound, Family, Figure
from medaug.evaluation.settings import BoundConfig

QUESTIONS = {
    "fidelity": "Do the slices look like real ones?",
    "diversity": "Are they as varied as real ones?",
    "anatomy": "Do the masks fit the images, and the body parts real ones?",
    "privacy": "Is a slice somebody's scan?",
    "uncertainty": "Does the stated uncertainty mean anything?",
}

UNMEASURED = "Nothing could be measured."


@dataclass(frozen=True)
class Verdict:
    """The verdict on one part, or on the whole report.

    Attributes:
        passed: whether all bounds hold; None where no figure has one.
        sentence: the same in words.
        failed: names of the figures whose bound does not hold.
    """

    passed: bool | None
    sentence: str
    failed: Sequence[str]


def held_to(family: Family, bounds: Mapping[str, BoundConfig | None]) -> Family:
    """Replace the bounds of a family's figures by those that the user set."""
    figures = [
        replace(figure, bound=_bound(figure, bounds[figure.name]))
        if figure.name in bounds
        else figure
        for figure in family.figures
    ]
    return replace(family, figures=figures)


def _bound(figure: Figure, config: BoundConfig | None) -> Bound | None:
    if config is None:
        return None
    own = figure.bound or Bound()
    base = own if config.of in (None, own.of) else Bound()
    fields = {name: getattr(config, name) for name in config.model_fields_set}
    return replace(base, **{name: v for name, v in fields.items() if (name, v) != ("of", None)})


def check_bounds(families: Sequence[Family], bounds: Mapping[str, BoundConfig | None]) -> None:
    """Refuse bounds on figures that the measured parts do not have.

    Raises:
        ConfigError: naming the nearest figure.
    """
    measured = {family.name for family in families}
    known = [figure.name for family in families for figure in family.figures]
    for name in bounds:
        part = name.partition(".")[0]
        if name in known or (part in QUESTIONS and part not in measured):
            continue
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}" if near else f"known: {', '.join(known)}"
        raise ConfigError(f"config evaluate.bounds.{name}: no such figure was measured; {hint}")


def of_family(family: Family) -> Verdict:
    """Decide on one part."""
    bounded = [figure for figure in family.figures if figure.bound is not None]
    failed = [figure.name for figure in family.failed]
    if not family.figures:
        return Verdict(None, UNMEASURED, [])
    if not bounded:
        return Verdict(None, "No figure of this part has a bound.", [])
    if not failed:
        said = {1: "Its one bound holds.", 2: "Both bounds hold."}
        return Verdict(True, said.get(len(bounded), f"All {len(bounded)} bounds hold."), [])
    which = listed([title(name) for name in failed])
    verb = "fails" if len(failed) == 1 else "fail"
    return Verdict(False, f"{len(failed)} of {len(bounded)} bounds {verb}: {which}.", failed)


def of_all(verdicts: Mapping[str, Verdict]) -> Verdict:
    """Decide on the report, from the verdicts on its parts."""
    failed = [name for name, verdict in verdicts.items() if verdict.passed is False]
    passed = [name for name, verdict in verdicts.items() if verdict.passed]
    figures = [figure for verdict in verdicts.values() for figure in verdict.failed]
    missing = [name for name, verdict in verdicts.items() if verdict.sentence == UNMEASURED]
    rest = f"; {listed(passed)} held" if failed and passed else ""
    rest += f"; not measured: {listed(missing)}" if missing else ""
    if failed:
        return Verdict(False, f"Not within the bounds: {listed(failed)}{rest}.", figures)
    if passed:
        return Verdict(True, f"Within the bounds: {listed(passed)}{rest}.", [])
    return Verdict(None, "No bound was measured, so there is nothing to pass or fail.", [])


ACRONYMS = {"mmd": "MMD", "hu": "HU", "auc": "AUC", "kid": "KID", "ssim": "SSIM", "rbf": "RBF"}


def title(name: str) -> str:
    """Write ``fidelity.frechet.random_convolutions`` as ``Frechet, random convolutions``."""
    parts = name.split(".")[1:] or [name]
    words = [
        " ".join(ACRONYMS.get(word, word) for word in part.replace("_", " ").split())
        for part in parts
    ]
    text = ", ".join(words)
    return text[:1].upper() + text[1:]


def listed(names: Sequence[str]) -> str:
    """Join names as ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else list(names))
