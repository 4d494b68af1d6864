"""Run a command: one line and exit status 2 for a user's mistake."""

import sys
from typing import NoReturn

from medaug.cli import (  # noqa: F401 (each adds its command to the application)
    demo,
    download,
    downstream,
    evaluate,
    explore,
    inspect,
    prepare,
    synthesize,
    train,
)
from medaug.cli.console import MISTAKE, app, say
from medaug.core.errors import MedaugError
from medaug.runtime.resources import sentence, set_aside
from medaug.runtime.signals import (
    INTERRUPTED,
    PREEMPTED,
    Preempted,
    ignore_signals,
    leave_by_sigterm,
    preempted,
)


def main() -> None:
    """Run the command line.

    A user's mistake, or what the system refuses, is one line and status 2; SIGTERM status 75.
    """
    leave_by_sigterm()
    spare = set_aside()
    try:
        app()
    except (Exception, KeyboardInterrupt, Preempted) as error:
        spare.clear()
        if isinstance(error, Preempted) or preempted():
            leave("stopped by SIGTERM; the same command goes on where it stopped", PREEMPTED)
        if isinstance(error, KeyboardInterrupt):
            leave("interrupted; the same command goes on where it stopped", INTERRUPTED)
        if isinstance(error, MedaugError):
            leave(str(error), MISTAKE)
        if isinstance(error, MemoryError | RecursionError):
            what = type(error).__name__
            leave(f"{what}: a file or setting asks for more than this machine has", MISTAKE)
        reason = sentence(error)
        if not reason:
            raise
        leave(reason, MISTAKE)


def leave(text: str, status: int) -> NoReturn:
    """End with one sentence; what breaks while all is torn down has nothing to add."""
    ignore_signals()
    say(f"medaug: {text}")
    sys.unraisablehook = lambda _: None
    sys.exit(status)
