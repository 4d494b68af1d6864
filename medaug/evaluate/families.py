"""The parts of an evaluation by name, each loaded when it is first asked for."""

from collections.abc import Callable, Sequence

from medaug.errors import ConfigError
from medaug.evaluate.evidence import Evidence
from medaug.evaluate.figures import Family
from medaug.registry import Entry, lookup

Measure = Callable[[Evidence], Family]

FAMILIES: dict[str, Entry] = {}
"""In the order of the page; the target of each is a ``Measure``."""


def chosen(names: Sequence[str] | None) -> dict[str, Entry]:
    """The parts called ``names``, or all, in the order of the page.

    Raises:
        ConfigError: a name that is not known, or none at all.
    """
    if names is None:
        return dict(FAMILIES)
    asked = {lookup(FAMILIES, name, "part of the evaluation").name for name in names}
    if not asked:
        raise ConfigError(f"families: name at least one of {', '.join(FAMILIES)}")
    return {name: entry for name, entry in FAMILIES.items() if name in asked}
