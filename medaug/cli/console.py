"""Set up the command line: shared options, errors as sentences, answers as JSON."""

import json
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import typer

from medaug.core.text import tell, visible

INCOMPLETE = 1
"""Exit status where a part could not be done."""
MISTAKE = 2
"""Exit status of a user's mistake."""

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
    """Make ``value`` plain JSON: dataclasses as objects, paths as text."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): plain(content) for key, content in value.items()}
    if isinstance(value, list | tuple):
        return [plain(content) for content in value]
    return str(value) if isinstance(value, Path) else value


def answer(as_json: bool, content: Any, text: str) -> None:
    """Print the result of a command: one JSON object, or text."""
    print(json.dumps(plain(content), indent=2) if as_json else visible(text))


def say(text: str) -> None:
    """Print a line on standard error."""
    tell(text)
