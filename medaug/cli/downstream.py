"""``medaug downstream``: does synthetic data help a segmenter?"""

from pathlib import Path
from typing import Annotated, Any

import typer

from medaug.cli.console import answer, app, say
from medaug.cli.options import AsJson, Cache, Device, DryRun, Fov, Root, Size, Workers, sized


@app.command()
def downstream(
    data: Annotated[str, typer.Option(help="pancreas, phantom, a path, or a finished cache.")],
    out: Annotated[Path, typer.Option(help="The folder of the study.")],
    root: Root = None,
    arms: Annotated[
        str | None, typer.Option(help="Comma-separated, as standard,cutmix; default all.")
    ] = None,
    n: Annotated[
        str | None, typer.Option("-n", help="Labelled patients, comma-separated; default 2,4,8.")
    ] = None,
    subsets: Annotated[
        int | None, typer.Option(help="Choices of patients for each; default 3.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Of the optimiser, equal in every arm; default 700.")
    ] = None,
    images: Annotated[
        str | None, typer.Option(help="Images that each generator sees: 60k, 2Mi.")
    ] = None,
    trainer: Annotated[
        str | None, typer.Option(help="unet, or nnunet where it is installed.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file of settings.")] = None,
    set: Annotated[list[str] | None, typer.Option(help="A setting: downstream.ratio=0.3.")] = None,
    size: Size = None,
    fov: Fov = None,
    cache: Cache = None,
    device: Device = "auto",
    workers: Workers = None,
    json: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """Teach one U-Net in every arm and test it on held-out patients; after a kill, it goes on."""
    from medaug.core.config import merge, parse_count, parse_set, read_yaml

    asked: dict[str, Any] = read_yaml(config) if config else {}
    study: dict[str, Any] = {"subsets": subsets, "steps": steps, "trainer": trainer}
    study["n"] = None if n is None else [parse_count(k, "n") for k in n.split(",")]
    study["arms"] = None if arms is None else [name.strip() for name in arms.split(",")]
    asked = merge(asked, {"downstream": {k: v for k, v in study.items() if v is not None}})
    if images is not None:
        asked = merge(asked, {"train": {"images": parse_count(images, "images")}})
    asked = merge(asked, parse_set(set or []))

    from medaug.evaluation.downstream.arms import chosen
    from medaug.evaluation.downstream.running import RESULT, plan, run
    from medaug.evaluation.downstream.settings import resolve_study
    from medaug.training import workflow

    chosen(asked["downstream"].get("arms", []))
    opened = workflow.slices(
        data, sized(size, fov), root=root, cache=cache, workers=workers, fill=not dry_run
    )
    settled = resolve_study(opened, asked)
    if dry_run:
        planned = plan(opened, settled, out)
        text = f"would fill {len(planned.missing)} of {len(planned.rows)} rows in {out}"
        answer(json, {"plan": planned, "config": settled.dump()}, text)
        return
    made = run(opened, settled, out, device)
    answer(json, made, made.markdown().rstrip())
    say(f"{out / RESULT}: {len(made.rows)} rows, {len(made.helping)} help")
