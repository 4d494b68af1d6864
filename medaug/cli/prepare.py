"""``medaug prepare``: scans to a slice cache."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from medaug.cli.app import INCOMPLETE, answer, app, say
from medaug.cli.options import (
    AsJson,
    Cache,
    Data,
    DryRun,
    Fov,
    Labels,
    Modality,
    Names,
    Root,
    Size,
    Workers,
    wanted,
)


@app.command()
def prepare(
    data: Data,
    root: Root = None,
    cache: Cache = None,
    size: Size = None,
    fov: Fov = None,
    center: Annotated[
        str | None, typer.Option(help="What a slice is centred on: body, label or image.")
    ] = None,
    labels: Labels = None,
    modality: Modality = None,
    names: Names = None,
    holdout: Annotated[
        float | None, typer.Option(help="Share of the patients held out of training; default 0.2.")
    ] = None,
    colour: Annotated[
        str | None, typer.Option(help="Of pictures: grey or rgb; default as they are.")
    ] = None,
    workers: Workers = None,
    apart_from: Annotated[
        list[Path] | None,
        typer.Option(help="Another cache; a scan that is in it is refused. May be repeated."),
    ] = None,
    json: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """Slice every scan once into a cache; the same command goes on after a kill.

    Exit status 1 when some scans could not be used: each is named with the reason.  Scans that are
    doubtful are in the cache, and are named too.
    """
    from medaug.data import open_source
    from medaug.data.cache import SliceCache, relevant
    from medaug.data.cache import prepare as fill
    from medaug.workflow import cache_settings, plan

    source = open_source(data, root, **wanted(labels, modality, names))
    planned = plan(source, data, sized(size, fov, center, colour), cache=cache)
    settings = cache_settings(planned.config)
    if holdout is not None:
        settings = replace(settings, holdout=holdout)
    if dry_run:
        listed = _listing(source)
        content = {"cache": planned.cache, "settings": relevant(source, settings), **listed}
        answer(json, content, f"would fill {planned.cache} from {listed['found']} cases")
        return
    report = fill(source, planned.cache, settings, workers, apart_from or ())
    opened = SliceCache.open(planned.cache)
    slices = sum(len(case.image) for case in opened.cases.values())
    for name, reason in report.excluded.items():
        say(f"excluded: {name}: {reason}")
    places = getattr(source, "places", {})
    for problem in report.doubtful:
        say(f"doubtful: {problem}{_where(places, problem.case)}")
    for name, what in report.changed.items():
        say(f"cut anew: {name}: {what}")
    for problem in report.failed:
        say(f"failed: {problem}{_where(places, problem.case)}")
    content = {
        "cache": report.cache,
        "done": report.done,
        "skipped": report.skipped,
        "failed": {problem.case: problem.reason for problem in report.failed},
        "excluded": report.excluded,
        "doubtful": [str(problem) for problem in report.doubtful],
        "changed": report.changed,
        "slices": slices,
        "split": opened.split,
        "seconds": round(report.seconds, 3),
    }
    text = (
        f"{report.cache}: {slices} slices of {len(opened.cases)} cases, {len(report.done)} new, "
        f"{len(report.failed)} failed; {len(opened.split['train'])} for training, "
        f"{len(opened.split['heldout'])} held out"
    )
    answer(json, content, text)
    if report.failed:
        raise typer.Exit(INCOMPLETE)


def _where(places: Mapping[str, str], case: str) -> str:
    """Where a scan lies whose id does not say so."""
    return f" ({places[case]})" if case in places else ""


def sized(
    size: int | None, fov: float | None, center: str | None = None, colour: str | None = None
) -> dict[str, Any]:
    """The options that shape a slice as a config section, those not given left out."""
    asked = {"size": size, "fov_mm": fov, "center": center, "colour": colour}
    return {"data": {key: value for key, value in asked.items() if value is not None}}


def _listing(source: Any) -> dict[str, Any]:
    if source.kind == "image":
        parts = source.counts()
        return {"found": len(parts), "parts": parts}
    if hasattr(source, "planned"):
        return {"found": len(source.planned()), "cases": source.planned(), "failed": {}}
    cases, problems = source.cases()
    return {
        "found": len(cases),
        "cases": [case.id for case in cases],
        "failed": {problem.case: problem.reason for problem in problems},
    }
