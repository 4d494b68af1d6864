"""``medaug demo``: make synthetic slices and a picture from phantom patients, in minutes."""

from pathlib import Path
from typing import Annotated

import typer

from medaug.cli.console import answer, app
from medaug.cli.options import AsJson, Device, DryRun


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The folder to write everything to.")] = Path("demo"),
    n: Annotated[str, typer.Option("-n", help="Slices to synthesise.")] = "64",
    images: Annotated[str | None, typer.Option(help="Images to train on; default 50k.")] = None,
    scratch: Annotated[
        bool, typer.Option("--scratch", help="Start from noise, not from the shipped weights.")
    ] = False,
    device: Device = "auto",
    json: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """Run everything on phantom patients: cache, training, synthesis, a picture; a few minutes."""
    from medaug.core.config import parse_count

    count = parse_count(n, "n")
    budget = None if images is None else parse_count(images, "images")
    from medaug.cli.demonstration import SETTINGS, run_demo

    if dry_run:
        content = {"out": out, "n": count, "images": budget or SETTINGS["train"]["images"]}
        answer(json, content, f"would train on the phantom and write {count} slices to {out}")
        return
    report = run_demo(out, n=count, images=budget, scratch=scratch, device=device)
    answer(json, report, str(report))
