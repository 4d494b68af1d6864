"""What a download would do and what it did, in plain values."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from medaug.runtime.progress import Progress

MEGABYTE = 10**6
State = Literal["complete", "damaged", "partial", "missing"]


@dataclass(frozen=True)
class Item:
    """One thing to fetch: a scan or a file; ``bytes`` of it, None where nobody tells."""

    name: str
    bytes: int | None
    state: State
    why: str = ""


@dataclass
class Plan:
    """What is there and what is missing, with what is left out on purpose."""

    data: str
    root: Path
    licence: str
    accepted: bool
    items: list[Item] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def wanted(self) -> list[Item]:
        """What is not whole yet."""
        return [item for item in self.items if item.state != "complete"]

    @property
    def bytes(self) -> int:
        """Of what is wanted, as far as sizes are known."""
        return sum(item.bytes or 0 for item in self.wanted)


@dataclass
class Report:
    """What was fetched, kept, repaired, left out on purpose, or could not be had."""

    data: str
    root: Path
    fetched: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    repaired: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    bytes: int = 0
    seconds: float = 0.0

    def arrived(self, item: Item) -> None:
        """``item`` is whole now."""
        if item.state == "damaged":
            self.repaired[item.name] = item.why
        else:
            self.fetched.append(item.name)


class Meter:
    """Moves a bar that counts whole megabytes by bytes as they come, and counts them."""

    def __init__(self, bar: Progress) -> None:
        self.bar, self.total = bar, 0
        self._shown, self._place, self._note = 0, 0, ""

    def begin(self, name: str) -> None:
        """What comes next is ``name``."""
        self._note = name

    def arrived(self, count: int) -> None:
        """``count`` more bytes came."""
        self.total += count
        self._move(self._place + count)

    def settle(self, place: int) -> None:
        """Everything up to byte ``place`` of the whole is done, however it came."""
        self._move(place)

    def _move(self, place: int) -> None:
        self._place = place
        if whole := place // MEGABYTE - self._shown:
            self._shown += whole
            self.bar.advance(whole, self._note)


def size_text(count: int) -> str:
    """``9300000000`` as ``9.3 GB``."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} bytes"
