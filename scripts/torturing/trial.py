"""What became of one attempt, and the count of many."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from process import End

SHOWN = 20


@dataclass(frozen=True)
class Trial:
    """One attempt to harm a command.

    Attributes:
        group: what was hit, a row of the table.
        what: how, for whoever looks into a loss.
        lost: what is wrong with the outcome; empty where it survived.
        ends: of all commands that ran.
        note: how it went, counted beside the verdict: ``midway``, ``refused``, ``recovered``.
    """

    group: str
    what: str
    lost: str
    ends: Sequence[End]
    note: str = ""

    @property
    def hung(self) -> int:
        """Commands that had to be ended."""
        return sum(end.hung for end in self.ends)

    @property
    def tracebacks(self) -> int:
        """Commands that showed the inside of the program."""
        return sum(end.traceback for end in self.ends)

    @property
    def survived(self) -> bool:
        """Nothing lost, no hang, no traceback."""
        return not (self.lost or self.hung or self.tracebacks)


@dataclass
class Tally:
    """Attempts of one group, counted."""

    tried: int = 0
    survived: int = 0
    lost: int = 0
    hung: int = 0
    tracebacks: int = 0
    notes: dict[str, int] = field(default_factory=dict)

    def add(self, trial: Trial) -> None:
        """Count one more."""
        self.tried += 1
        self.survived += trial.survived
        self.lost += bool(trial.lost)
        self.hung += trial.hung
        self.tracebacks += trial.tracebacks
        if trial.note:
            self.notes[trial.note] = self.notes.get(trial.note, 0) + 1


@dataclass
class Hammered:
    """All attempts of one hammer."""

    hammer: str
    groups: dict[str, Tally] = field(default_factory=dict)
    losses: list[dict[str, Any]] = field(default_factory=list)

    def count(self, trials: Iterable[Trial]) -> "Hammered":
        """Make the attempts and count them."""
        for trial in trials:
            self.groups.setdefault(trial.group, Tally()).add(trial)
            if not trial.survived and len(self.losses) < SHOWN:
                said = [end.said[-2000:] for end in trial.ends]
                codes = [end.code for end in trial.ends]
                told = {"group": trial.group, "what": trial.what, "lost": trial.lost}
                self.losses.append(told | {"codes": codes, "said": said})
        return self

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def of(cls, told: dict[str, Any]) -> "Hammered":
        """What ``plain`` gave."""
        groups = {name: Tally(**tally) for name, tally in told["groups"].items()}
        return cls(told["hammer"], groups, told["losses"])

    def join(self, other: "Hammered") -> None:
        """Take over the attempts on other groups."""
        self.groups |= other.groups
        self.losses += other.losses[: SHOWN - len(self.losses)]


def difference(wanted: dict[str, str], found: dict[str, str]) -> str:
    """In words how two folders differ; empty where they do not."""
    if wanted == found:
        return ""
    names = sorted(name for name in wanted.keys() | found.keys()
                   if wanted.get(name) != found.get(name))  # fmt: skip
    state = {name: "missing" if name not in found else "differs" if name in wanted else "left over"
             for name in names}  # fmt: skip
    return "; ".join(f"{name} {state[name]}" for name in names[:5])
