"""``medaug train`` and ``medaug models``: train a model, and list those that there are."""

from pathlib import Path
from typing import Annotated, Any

import typer

from medaug.cli.console import answer, app
from medaug.cli.options import (
    AsJson,
    Cache,
    Config,
    Device,
    DryRun,
    Fov,
    Labels,
    Modality,
    Names,
    Root,
    Size,
    Workers,
    read_settings,
    scan_options,
    sized,
)
from medaug.runtime.signals import exit_status


@app.command()
def train(
    data: Annotated[str, typer.Option(help="pancreas, mnist, fashion-mnist, phantom, or a path.")],
    root: Root = None,
    model: Annotated[str | None, typer.Option(help="The model; medaug models lists them.")] = None,
    config: Config = None,
    run: Annotated[
        Path | None, typer.Option(help="The run folder; default runs/DATA-MODEL.")
    ] = None,
    images: Annotated[
        str | None, typer.Option(help="Images to train on in all, such as 50Ki; default 2Mi.")
    ] = None,
    size: Size = None,
    fov: Fov = None,
    cache: Cache = None,
    labels: Labels = None,
    modality: Modality = None,
    names: Names = None,
    init: Annotated[
        Path | None,
        typer.Option(help="Start from these weights, a run or a file; default from noise."),
    ] = None,
    unlabeled: Annotated[
        Path | None,
        typer.Option(help="A folder of unlabelled scans that join training; default none."),
    ] = None,
    device: Device = "auto",
    workers: Workers = None,
    set: Annotated[
        list[str] | None, typer.Option(help="A setting, such as model.width=48; repeatable.")
    ] = None,
    json: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """Prepare the scans the first time, then train; the same command resumes."""
    from medaug.core.config import merge, parse_count, parse_set
    from medaug.runtime.distributed import share
    from medaug.training import workflow

    settings = merge(read_settings(config), sized(size, fov))
    if model is not None:
        settings = merge(settings, {"model": {"name": model}})
    if images is not None:
        settings = merge(settings, {"train": {"images": parse_count(images, "images")}})
    settings = merge(settings, parse_set(set or []))
    scans = scan_options(labels, modality, names)
    if dry_run:
        source = workflow.open_data(data, root, **scans)
        planned = workflow.plan(source, data, settings, cache=cache, run=run)
        content = {"config": planned.config.dump(), "cache": planned.cache, "run": planned.run}
        if share().rank == 0:
            answer(json, content, _yaml(content))
        return
    prepared, report = workflow.train(
        data,
        settings,
        root=root,
        cache=cache,
        run=run,
        device=device,
        init=init,
        workers=workers,
        unlabeled=unlabeled,
        **scans,
    )
    content = {
        "run": report.run,
        "images": report.images,
        "resumed": report.resumed,
        "finished": report.finished,
        "seconds": round(report.seconds, 3),
        "waited_seconds": round(report.waited, 3),
        "images_per_s": round((report.images - report.resumed) / max(report.seconds, 1e-9), 1),
        "privacy": report.privacy,
        "failed": {problem.case: problem.reason for problem in prepared.failed},
    }
    text = f"{report.run}: {report.images} images seen"
    if report.privacy is not None:
        spent = report.privacy
        text += f"; epsilon {spent['epsilon']:.3g} at delta {spent['delta']:g} for a slice"
    if share().rank == 0:
        answer(json, content, text)
    if not report.finished:
        raise typer.Exit(exit_status(report.signal))


@app.command()
def models(json: AsJson = False) -> None:
    """List the models with their presets."""
    from medaug.core.config import presets
    from medaug.core.registry import MODELS, plugins

    rows = {}
    for name, entry in (MODELS | plugins()).items():
        rows[name] = {"summary": entry.summary, "presets": presets(name)}
    lines = [
        f"{name:<14} {row['summary']}  (presets: {', '.join(row['presets']) or 'none'})"
        for name, row in rows.items()
    ]
    answer(json, rows, "\n".join(lines))


def _yaml(content: dict[str, Any]) -> str:
    import yaml

    from medaug.cli.console import plain

    return str(yaml.safe_dump(plain(content), sort_keys=False)).rstrip()
