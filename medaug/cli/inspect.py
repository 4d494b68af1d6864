"""``medaug inspect``: say what a path is, and whether it is sound."""

from pathlib import Path
from typing import Annotated

import typer

from medaug.cli.console import INCOMPLETE, answer, app, plain, say
from medaug.cli.options import AsJson

PAGE = "medaug-quality.html"


@app.command()
def inspect(
    path: Annotated[
        Path, typer.Argument(help="A folder of scans, a cache, a run, a weight file, an output.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help=f"Where the page on a folder of scans goes; default {PAGE} in the working folder, "
            "unless that lies in the folder of scans."
        ),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(help="A cache whose scans must not be in the folder again; repeatable."),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that read scans besides this one.")
    ] = 0,
    json: AsJson = False,
) -> None:
    """Say what a path is and whether it is sound; exit status 1 where it is not.

    Every scan of a folder is read and judged: a table, and one page with pictures of each.
    """
    import yaml

    from medaug.cli.describe import describe

    page = out or _page_for(path)
    found = describe(path, page, against or (), workers)
    text = found.pop("table", None)
    if text is None:
        text = str(yaml.safe_dump(plain(found), sort_keys=False)).rstrip()
    elif page is None:
        say(f"no page is written into {path}; name a place for it with --out")
    else:
        say(f"page: {page}")
    answer(json, found, text)
    if found["problems"]:
        raise typer.Exit(INCOMPLETE)


def _page_for(path: Path) -> Path | None:
    """Find the default place of the page; None where it lies in the user's data."""
    return None if Path.cwd().resolve().is_relative_to(path.resolve()) else Path(PAGE)
