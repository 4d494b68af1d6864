"""The parts of an evaluation by name, and what each is given.

A part is wired in by one small function of a ``Subject``, which imports its module when it is asked
for, and by its row in ``FAMILIES``.
"""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from medaug.errors import ConfigError
from medaug.evaluate.evidence import Evidence
from medaug.evaluate.figures import Family
from medaug.evaluate.setting import Setting
from medaug.generator import Generator


@dataclass
class Subject:
    """What the parts share; what is costly is made once, when the first of them asks.

    Attributes:
        evidence: the slices in memory.
        setting: where they come from: the cache, and the run where there is one.
    """

    evidence: Evidence
    setting: Setting

    @cached_property
    def generator(self) -> Generator | None:
        """Of the run, or None where only a folder was given."""
        return self.setting.generator()


Measure = Callable[[Subject], Family]

FAMILIES: dict[str, Measure] = {}
"""In the order of the page."""


def chosen(names: Sequence[str] | None) -> dict[str, Measure]:
    """The parts called ``names``, or all, in the order of the page.

    Raises:
        ConfigError: a name that is not known.
    """
    for name in names or ():
        if name not in FAMILIES:
            near = difflib.get_close_matches(name, FAMILIES, n=1)
            hint = f"did you mean {near[0]!r}" if near else f"known: {', '.join(FAMILIES)}"
            raise ConfigError(f"families: {name!r} is not known; {hint}")
    return {name: measure for name, measure in FAMILIES.items() if names is None or name in names}
