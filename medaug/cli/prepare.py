"""``medaug prepare``: slice scans into a cache."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medaug.cli.console import INCOMPLETE, answer, app, say
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
    Shard,
    Size,
    Workers,
    parse_shard,
    scan_options,
    sized,
)

if TYPE_CHECKING:
    from medaug.core.types import Problem


@app.command()
def prepare(
    data: Data,
    root: Root = None,
    cache: Cache = None,
    size: Size = None,
    fov: Fov = None,
    center: Annotated[
        str | None, typer.Option(help="What a slice is centred on: body (default), label or image.")
    ] = None,
    labels: Labels = None,
    modality: Modality = None,
    names: Names = None,
    holdout: Annotated[
        float | None,
        typer.Option(help="Share of the patients held out of training, 0 to 1; default 0.2."),
    ] = None,
    colour: Annotated[
        str | None, typer.Option(help="Colour of pictures: grey or rgb; default as they are.")
    ] = None,
    workers: Workers = None,
    apart_from: Annotated[
        list[Path] | None,
        typer.Option(help="Another cache, whose scans are refused; repeatable."),
    ] = None,
    shard: Shard = None,
    json: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """Slice every scan once into a cache; the same command resumes.

    Exit status 1 when some scans could not be used: each is named with the reason.  Scans that are
    doubtful are in the cache, and are named too.
    """
    from medaug.data import open_source
    from medaug.data.cache.prepare import SliceCache, relevant
    from medaug.data.cache.prepare import prepare as fill
    from medaug.training.workflow import cache_settings, plan

    source = open_source(data, root, **scan_options(labels, modality, names))
    planned = plan(source, data, sized(size, fov, center, colour), cache=cache)
    settings = cache_settings(planned.config)
    if holdout is not None:
        settings = replace(settings, holdout=holdout)
    if dry_run:
        listed, problems = _listing(source)
        content = {"cache": planned.cache, "settings": relevant(source, settings), **listed}
        _print_missing(listed["excluded"], problems, getattr(source, "places", {}))
        answer(json, content, f"would fill {planned.cache} from {listed['found']} cases")
        return
    part = parse_shard(shard)
    report = fill(source, planned.cache, settings, workers, apart_from or (), part)
    opened = SliceCache.open(planned.cache) if report.complete else None
    slices = sum(len(case.image) for case in opened.cases.values()) if opened else None
    places = getattr(source, "places", {})
    for problem in report.doubtful:
        say(f"doubtful: {problem}{_where(places, problem.case)}")
    for name, what in report.changed.items():
        say(f"cut anew: {name}: {what}")
    _print_missing(report.excluded, report.failed, places)
    content = {
        "cache": report.cache,
        "done": report.done,
        "skipped": report.skipped,
        "failed": {problem.case: problem.reason for problem in report.failed},
        "excluded": report.excluded,
        "doubtful": [str(problem) for problem in report.doubtful],
        "changed": report.changed,
        "slices": slices,
        "split": opened.split if opened else None,
        "complete": report.complete,
        "seconds": round(report.seconds, 3),
    }
    text = (
        f"{report.cache}: share {part[0]}/{part[1]} is done, {len(report.done)} new, "
        f"{len(report.failed)} failed; the cache is complete when the others are"
    )
    if opened:
        text = (
            f"{report.cache}: {slices} slices of {len(opened.cases)} cases, "
            f"{len(report.done)} new, {len(report.failed)} failed; "
            f"{len(opened.split['train'])} for training, {len(opened.split['heldout'])} held out"
        )
    answer(json, content, text)
    if report.failed:
        raise typer.Exit(INCOMPLETE)


def _print_missing(
    excluded: Mapping[str, str], failed: "Sequence[Problem]", places: Mapping[str, str]
) -> None:
    """Print what is not in the cache, and why."""
    for name, reason in excluded.items():
        say(f"excluded: {name}: {reason}")
    for problem in failed:
        say(f"failed: {problem}{_where(places, problem.case)}")


def _where(places: Mapping[str, str], case: str) -> str:
    """Say where a scan lies whose id does not."""
    return f" ({places[case]})" if case in places else ""


def _listing(source: Any) -> "tuple[dict[str, Any], Sequence[Problem]]":
    """List what is there, and what cannot be used by its headers."""
    problems: Sequence[Problem] = ()
    if source.kind == "image":
        parts, problems = source.counts(), source.problems
        found = {"found": len(parts), "parts": parts}
    elif hasattr(source, "planned"):
        found = {"found": len(source.planned()), "cases": source.planned()}
    else:
        cases, problems = source.cases()
        found = {"found": len(cases), "cases": [case.id for case in cases]}
    failed = {problem.case: problem.reason for problem in problems}
    excluded = dict(getattr(source, "excluded", {}))
    return {**found, "failed": failed, "excluded": excluded}, problems
