"""What a whole report says from its parts, and what a gate lets through."""

from medaug.evaluation.figures import Bound, Family, FamilyName, Figure
from medaug.evaluation.verdict import of_all, of_family


def part(name: FamilyName, value: float | None) -> Family:
    bound = Bound(most=1.0)
    figures = [] if value is None else [Figure(f"{name}.x", value, None, "", 9, 9, bound=bound)]
    return Family(name, figures)


def said(**values: float | None) -> tuple[bool | None, str]:
    verdict = of_all({name: of_family(part(name, v)) for name, v in values.items()})  # type: ignore[arg-type]
    return verdict.passed, verdict.sentence


def test_parts_that_could_not_be_measured_are_named() -> None:
    assert said(fidelity=0.5, privacy=0.5) == (True, "Within the bounds: fidelity and privacy.")
    assert said(fidelity=None, privacy=0.5) == (
        True,
        "Within the bounds: privacy; not measured: fidelity.",
    )
    assert said(fidelity=None, privacy=2.0, anatomy=0.1) == (
        False,
        "Not within the bounds: privacy; anatomy held; not measured: fidelity.",
    )
    nothing = "No bound was measured, so there is nothing to pass or fail."
    assert said(fidelity=None) == (None, nothing)
