"""``medaug downstream``: measure whether synthetic data helps a segmenter."""

from pathlib import Path
from typing import Annotated, Any

import typer

from medaug.cli.console import answer, app, say
from medaug.cli.options import (
    AsJson,
    Cache,
    Config,
    Device,
    DryRun,
    Fov,
    Root,
    Size,
    Workers,
    listed,
    read_settings,
    sized,
)


@app.command()
def downstream(
    data: Annotated[str, typer.Option(help="pancreas, phantom, a path, or a finished cache.")],
    out: Annotated[Path, typer.Option(help="The folder of the study.")],
    root: Root = None,
    arms: Annotated[
        str | None, typer.Option(help="Arms, comma-separated, e.g. standard,cutmix; default all.")
    ] = None,
    n: Annotated[
        str | None,
        typer.Option("-n", help="Numbers of labelled patients, comma-separated; default 2,4,8."),
    ] = None,
    subsets: Annotated[
        int | None, typer.Option(help="Subsets of patients drawn for each number; default 3.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Optimiser steps, equal for every arm; default 700.")
    ] = None,
    images: Annotated[
        str | None, typer.Option(help="Images to train each generator on, e.g. 2Mi; default 60k.")
    ] = None,
    trainer: Annotated[
        str | None, typer.Option(help="Segmenter: unet (default), or nnunet where it is installed.")
    ] = None,
    config: Config = None,
    set: Annotated[
        list[str] | None, typer.Option(help="A setting, such as downstream.ratio=0.3; repeatable.")
    ] = None,
    size: Size = None,
    fov: Fov = None,
    cache: Cache = None,
    device: Device = "auto",
    workers: Workers = None,
    json: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """Train one segmenter in every arm, test it on held-out patients; the same command resumes."""
    from medaug.core.config import merge, parse_count, parse_set

    study: dict[str, Any] = {"subsets": subsets, "steps": steps, "trainer": trainer}
    study["n"] = None if n is None else [parse_count(k, "n") for k in n.split(",")]
    study["arms"] = listed(arms)
    given: dict[str, Any] = {"downstream": {k: v for k, v in study.items() if v is not None}}
    if images is not None:
        given["train"] = {"images": parse_count(images, "images")}
    settings = merge(merge(read_settings(config), given), parse_set(set or []))

    from medaug.evaluation.downstream.arms import chosen
    from medaug.evaluation.downstream.running import RESULT, plan, run
    from medaug.evaluation.downstream.settings import resolve_study
    from medaug.training import workflow

    chosen(settings["downstream"].get("arms", []))
    opened = workflow.slices(
        data, sized(size, fov), root=root, cache=cache, workers=workers, fill=not dry_run
    )
    resolved = resolve_study(opened, settings)
    if dry_run:
        planned = plan(opened, resolved, out)
        text = f"would fill {len(planned.missing)} of {len(planned.rows)} rows in {out}"
        answer(json, {"plan": planned, "config": resolved.dump()}, text)
        return
    made = run(opened, resolved, out, device)
    answer(json, made, made.markdown().rstrip())
    say(f"{out / RESULT}: {len(made.rows)} rows, {len(made.helping)} help")
