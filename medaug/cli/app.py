"""The application: one line and exit status 2 for a user's mistake, and JSON on request."""

import json
import sys
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, NoReturn

import typer

from medaug.errors import MedaugError
from medaug.starved import sentence, set_aside
from medaug.stopping import (
    INTERRUPTED,
    PREEMPTED,
    Preempted,
    leave_by_sigterm,
    mind_nothing,
    preempted,
)
from medaug.text import tell, visible

INCOMPLETE = 1
MISTAKE = 2

app = typer.Typer(
    help="Annotated synthetic CT slices, with their uncertainty, from a handful of scans.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def version(show: bool) -> None:
    """Print the version and leave."""
    if show:
        from medaug import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def common(
    show: bool = typer.Option(
        False, "--version", help="Show the version.", is_eager=True, callback=version
    ),
) -> None:
    """Annotated synthetic CT slices, with their uncertainty, from a handful of scans."""


def plain(value: Any) -> Any:
    """``value`` as JSON knows it: dataclasses as objects, paths as text."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): plain(content) for key, content in value.items()}
    if isinstance(value, list | tuple):
        return [plain(content) for content in value]
    return str(value) if isinstance(value, Path) else value


def answer(as_json: bool, content: Any, text: str) -> None:
    """The result of a command: one JSON object on standard output, or text for a reader."""
    print(json.dumps(plain(content), indent=2) if as_json else visible(text))


def say(text: str) -> None:
    """A line for a reader, on standard error."""
    tell(text)


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
    mind_nothing()
    say(f"medaug: {text}")
    sys.unraisablehook = lambda _: None
    sys.exit(status)


from medaug.cli import (  # noqa: E402, F401
    demo,
    download,
    downstream,
    evaluate,
    explore,
    inspect,
    models,
    nnunet_splits,
    prepare,
    synthesize,
    train,
)
