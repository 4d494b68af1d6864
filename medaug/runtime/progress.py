"""Report the progress of a long task: a bar on a terminal, elsewhere a line now and then."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from medaug.core.text import tell, visible

PLAIN_EVERY_S = 10.0
"""Least seconds between two lines."""


class Progress(Protocol):
    """What a long task reports to."""

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Report that ``amount`` more units are done; ``note`` is shown with them."""


class Plain:
    """Print lines on standard error, at most one every ten seconds, and one at the end."""

    def __init__(self, task: str, total: int, done: int, unit: str) -> None:
        self.task, self.total, self.done, self.unit = task, total, done, unit
        self.started, self.shown, self.note = time.monotonic(), time.monotonic(), ""
        self.first = done

    def advance(self, amount: int = 1, note: str = "") -> None:
        self.done += amount
        self.note = note or self.note
        if time.monotonic() - self.shown >= PLAIN_EVERY_S:
            self.shown = time.monotonic()
            self.show()

    def show(self) -> None:
        elapsed = max(time.monotonic() - self.started, 1e-9)
        speed = (self.done - self.first) / elapsed
        left = (self.total - self.done) / speed if speed > 0 else float("inf")
        remaining = f", {left:.0f} s left" if 0 < left < float("inf") else ""
        note = f", {self.note}" if self.note else ""
        tell(
            f"{self.task}: {self.done}/{self.total} {self.unit}, "
            f"{speed:.1f} {self.unit}/s{remaining}{note}"
        )


class Silent:
    """Print nothing, since another process reports."""

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Do nothing."""


@contextmanager
def progress(
    task: str, total: int, unit: str, done: int = 0, silent: bool = False
) -> Iterator[Progress]:
    """Report on a task while the block runs.

    Args:
        task: its name.
        total: units of the whole task.
        unit: their name, such as ``images``.
        done: units that were finished before.
        silent: whether to print nothing.
    """
    if silent:
        yield Silent()
        return
    if not sys.stderr.isatty():
        plain = Plain(task, total, done, unit)
        yield plain
        plain.show()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Rich

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeRemainingColumn(),
    )
    with Rich(*columns, console=Console(stderr=True)) as rich:
        bar = rich.add_task(task, total=total, completed=done, note="")
        started = time.monotonic()
        count = 0

        class Bar:
            def advance(self, amount: int = 1, note: str = "") -> None:
                nonlocal count
                count += amount
                speed = count / max(time.monotonic() - started, 1e-9)
                rich.update(bar, advance=amount, note=f"{speed:.1f} {unit}/s  {visible(note)}")

        yield Bar()
