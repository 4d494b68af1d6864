"""SIGINT and SIGTERM: finish what is at hand, keep it, leave; the same command goes on.

SIGTERM is how SLURM and torchrun announce that a job must go.  Who obeys it leaves with the exit
status ``PREEMPTED``, by which a script tells that the job is to be put in the queue again.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer
from types import FrameType
from typing import Any

INTERRUPTED = 130
PREEMPTED = 75
"""EX_TEMPFAIL of sysexits.h: nothing is wrong, try again later."""
AGAIN_S = 0.02


class Preempted(BaseException):
    """SIGTERM came; passes through whatever handles errors."""


@contextmanager
def noted() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying by them, where signals can be had."""
    caught: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        caught.append(number)

    try:
        old = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread
        yield caught
        return
    try:
        yield caught
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


_told: list[int] = []


def preempted() -> bool:
    """Whether SIGTERM has come to this process since ``leave_by_sigterm``."""
    return os.getpid() in _told


def leave_by_sigterm() -> None:
    """Have SIGTERM raise `Preempted`, so that what is half done is cleared away.

    Python drops what is raised in a callback, such as one of fork; then the signal is sent again.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        _told.append(os.getpid())
        _overhear("SIGCHLD")
        raise Preempted

    def repeat(dropped: Any) -> None:
        if not issubclass(dropped.exc_type, Preempted):
            before(dropped)
            return
        again = Timer(AGAIN_S, os.kill, (os.getpid(), signal.SIGTERM))
        again.daemon = True
        again.start()

    before = sys.unraisablehook
    sys.unraisablehook = repeat
    signal.signal(signal.SIGTERM, leave)


def mind_nothing() -> None:
    """From now on no signal that this process handles interrupts it: it is leaving."""
    _overhear("SIGTERM")
    _overhear("SIGCHLD")


def _overhear(name: str) -> None:
    """Torch answers SIGCHLD by an error about a dead worker, wherever the program is."""
    if hasattr(signal, name):
        signal.signal(getattr(signal, name), lambda number, frame: None)


def status(number: int | None) -> int:
    """The exit status after the signal ``number``, or after none: what is left is to be done."""
    return PREEMPTED if number == signal.SIGTERM else INTERRUPTED
