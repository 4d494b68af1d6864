"""``medaug evaluate``: measure synthetic slices, as one page and one JSON file."""

from pathlib import Path
from typing import Annotated, Any

import typer

from medaug.cli.console import INCOMPLETE, answer, app
from medaug.cli.options import AsJson, Device, DryRun, listed


@app.command()
def evaluate(
    out: Annotated[Path, typer.Option(help="The folder for the report.")],
    run: Annotated[
        Path | None,
        typer.Option(
            help="A run to draw slices from and measure, default the newest below runs/; with "
            "--synthetic, the run that drew them."
        ),
    ] = None,
    synthetic: Annotated[
        Path | None, typer.Option(help="A folder of synthetic slices, by medaug or any tool.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="The slice cache of real slices; default that of the run.")
    ] = None,
    n: Annotated[str, typer.Option("-n", help="Slices to draw from a run.")] = "1000",
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    uncertainty: Annotated[
        int, typer.Option(help="Alternatives of each slice drawn from a run.")
    ] = 8,
    families: Annotated[
        str | None, typer.Option(help="Parts to measure, e.g. fidelity,privacy; default all.")
    ] = None,
    downstream: Annotated[
        Path | None, typer.Option(help="The JSON file of medaug downstream, for its table.")
    ] = None,
    set: Annotated[
        list[str] | None, typer.Option(help="A setting, such as evaluate.slices=2000; repeatable.")
    ] = None,
    gate: Annotated[
        bool, typer.Option("--gate", help="Exit status 1 unless bounds were measured and hold.")
    ] = False,
    device: Device = "auto",
    json: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """Measure synthetic slices against real ones; the same command resumes."""
    from medaug.core.config import parse_count, parse_set
    from medaug.core.errors import ConfigError
    from medaug.evaluation.settings import resolve_evaluate

    count = parse_count(n, "n")
    wishes = parse_set(set or [])
    for section in wishes:
        if section != "evaluate":
            raise ConfigError(f"config {section} is not known here; known: evaluate")

    from medaug.evaluation import report as pipeline
    from medaug.training.run import newest

    if run is None and synthetic is None:
        run = newest(Path("runs"))
    options: dict[str, Any] = {
        "run": run,
        "synthetic": synthetic,
        "against": against,
        "n": count,
        "seed": seed,
        "uncertainty": uncertainty,
        "families": listed(families),
        "config": resolve_evaluate(wishes.get("evaluate") or {}),
        "downstream": downstream,
        "device": device,
    }
    if dry_run:
        planned = pipeline.plan(out, **options)
        answer(json, planned, str(planned))
        return
    report = pipeline.evaluate(out, **options)
    answer(json, report.content, str(report))
    if gate and not report.passed:
        raise typer.Exit(INCOMPLETE)
