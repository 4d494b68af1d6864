"""``medaug inspect``: what a path is, and whether it is sound."""

from pathlib import Path
from typing import Annotated

import typer

from medaug.cli.app import INCOMPLETE, answer, app, plain
from medaug.cli.options import AsJson


@app.command()
def inspect(
    path: Annotated[
        Path, typer.Argument(help="A folder of scans, a cache, a run, a weight file, an output.")
    ],
    json: AsJson = False,
) -> None:
    """Say what a path is and whether it is sound; exit status 1 where it is not."""
    import yaml

    from medaug.inspection import inspect as look

    found = look(path)
    answer(json, found, str(yaml.safe_dump(plain(found), sort_keys=False)).rstrip())
    if found["problems"]:
        raise typer.Exit(INCOMPLETE)
