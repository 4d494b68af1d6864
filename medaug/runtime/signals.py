"""Handle SIGINT and SIGTERM: finish the step at hand, save it, exit; the same command resumes.

SIGTERM is how SLURM and torchrun announce that a job must end.  A process that it ends has the exit
status ``PREEMPTED``, from which a script knows that the job is to be queued again.
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
"""Seconds after which a dropped SIGTERM is sent again."""


class Preempted(BaseException):
    """SIGTERM came; not an Exception, so that it passes through handlers of errors."""


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Collect the numbers of SIGINT and SIGTERM instead of ending; in the main thread only."""
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


_preempted_pids: list[int] = []


def preempted() -> bool:
    """Whether SIGTERM has come to this process since ``leave_by_sigterm``."""
    return os.getpid() in _preempted_pids


def leave_by_sigterm() -> None:
    """Let SIGTERM raise `Preempted`, so that what is half done is cleared away.

    Python drops what is raised in a callback, such as one of fork; then the signal is sent again.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        _preempted_pids.append(os.getpid())
        _ignore("SIGCHLD")
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


def ignore_signals() -> None:
    """Ignore the signals that this process handles, since it is about to exit."""
    _ignore("SIGTERM")
    _ignore("SIGCHLD")


def _ignore(name: str) -> None:
    """Torch answers SIGCHLD with an error about a dead worker, wherever the program is."""
    if hasattr(signal, name):
        signal.signal(getattr(signal, name), lambda number, frame: None)


def exit_status(number: int | None) -> int:
    """The exit status of a run that was stopped by the signal ``number``, or by none."""
    return PREEMPTED if number == signal.SIGTERM else INTERRUPTED
