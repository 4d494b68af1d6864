"""List the parts of a report by name.

A part is one small function of a ``Subject``, which imports its module when it is called, and one
row in ``FAMILIES``.
"""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import replace

from medaug.core.errors import ConfigError
from medaug.evaluation.figures import Family
from medaug.evaluation.subject import Subject

Measure = Callable[[Subject], Family]


def _fidelity(subject: Subject) -> Family:
    """Measure whether slices look like those of patients that the generator has not seen."""
    from medaug.evaluation.families.appearance import figures
    from medaug.evaluation.families.fidelity import measure

    found = measure(subject.evidence, subject.spaces)
    looks, curves, skipped = figures(subject.evidence)
    return replace(
        found,
        figures=[*found.figures, *looks],
        curves=[*found.curves, *curves],
        skipped=[*found.skipped, *skipped],
    )


def _diversity(subject: Subject) -> Family:
    """Measure whether slices differ from each other as real ones do."""
    from medaug.evaluation.families.diversity import measure

    return measure(subject.evidence, subject.spaces)


def _anatomy(subject: Subject) -> Family:
    """Measure form, place and HU of the masks, and whether a segmenter finds them."""
    from medaug.evaluation.families.anatomy import measure

    return measure(subject.evidence)


def _privacy(subject: Subject) -> Family:
    """Measure distances to training and held-out slices, membership, copies."""
    from medaug.evaluation.families.membership import Loss, loss_of
    from medaug.evaluation.families.privacy import measure

    evidence = subject.evidence
    loss: Loss | str | None = None
    if subject.generator is not None:
        try:
            loss = loss_of(subject.generator, evidence.heldout, evidence.seed)
        except ConfigError as error:
            loss = str(error)
    spaces = {space.name: space for space in subject.spaces.learned if space.name == "encoder"}
    return measure(evidence, seen=subject.seen, spaces=spaces, loss=loss)


def _uncertainty(subject: Subject) -> Family:
    """Measure whether the spread of alternatives is that of the error, on held-out slices."""
    from medaug.evaluation.families.uncertainty import measure
    from medaug.evaluation.slices.alternatives import alternatives_of

    evidence, generator = subject.evidence, subject.generator
    if generator is None:
        return measure(evidence, "A folder alone has no model to draw alternatives of real slices.")
    return measure(evidence, alternatives_of(generator, evidence.heldout, seed=evidence.seed))


FAMILIES: dict[str, Measure] = {
    "fidelity": _fidelity,
    "diversity": _diversity,
    "anatomy": _anatomy,
    "privacy": _privacy,
    "uncertainty": _uncertainty,
}
"""In the order of the page."""


def chosen(names: Sequence[str] | None) -> dict[str, Measure]:
    """Look up the parts called ``names``, or all, in the order of the page.

    Raises:
        ConfigError: a name that is not known.
    """
    for name in names or ():
        if name not in FAMILIES:
            near = difflib.get_close_matches(name, FAMILIES, n=1)
            hint = f"did you mean {near[0]!r}" if near else f"known: {', '.join(FAMILIES)}"
            raise ConfigError(f"families: {name!r} is not known; {hint}")
    return {name: measure for name, measure in FAMILIES.items() if names is None or name in names}
