"""SIGINT and SIGTERM: finish what is at hand, keep it, leave; the same command goes on.

SIGTERM is how SLURM and torchrun announce that a job must go.  Who obeys it leaves with the exit
status ``PREEMPTED``, by which a script tells that the job is to be put in the queue again.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
PREEMPTED = 75
"""EX_TEMPFAIL of sysexits.h: nothing is wrong, try again later."""


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


def leave_by_sigterm() -> None:
    """Have SIGTERM raise `Preempted`, so that what is half done is cleared away."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise Preempted

    signal.signal(signal.SIGTERM, leave)


def status(number: int | None) -> int:
    """The exit status after the signal ``number``, or after none: what is left is to be done."""
    return PREEMPTED if number == signal.SIGTERM else INTERRUPTED
