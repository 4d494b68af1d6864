"""``medaug download``: fetch a whole data set once its licence is accepted."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medaug.cli.console import INCOMPLETE, answer, app, say
from medaug.cli.options import AsJson, Config, DryRun, read_settings

if TYPE_CHECKING:
    from medaug.data.download import Plan, Report


@app.command()
def download(
    data: Annotated[str, typer.Argument(help="pancreas, mnist or fashion-mnist.", metavar="DATA")],
    root: Annotated[
        Path | None, typer.Option(help="Where it goes; default $MEDAUG_DATA/DATA, then data/DATA.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Accept the licence of the data.")] = False,
    config: Config = None,
    set: Annotated[
        list[str] | None,
        typer.Option(help="A setting, such as download.mnist=https://host/folder; repeatable."),
    ] = None,
    json: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """Fetch a data set, checked and repaired; the same command resumes.

    Exit status 1 when a part could not be fetched: each is named with the reason.
    """
    from medaug.core.config import merge, parse_set
    from medaug.data import default_root
    from medaug.data.download import download as fetch
    from medaug.data.download import planned, resolve_download
    from medaug.data.download.licences import accepted

    settings = resolve_download(merge(read_settings(config), parse_set(set or [])))
    place = default_root(data) if root is None else root
    if dry_run:
        plan = planned(data, place, settings)
        answer(json, {**vars(plan), "bytes": plan.bytes}, _planned_text(plan))
        return
    report = fetch(data, place, accepted(data, place) or _agreed(data, yes), settings)
    for line in [*report.notes, *(f"left out: {n}: {why}" for n, why in report.skipped.items())]:
        say(line)
    for name, why in report.repaired.items():
        say(f"repaired: {name}: {why}")
    for name, why in report.failed.items():
        say(f"failed: {name}: {why}")
    answer(json, {**vars(report), "seconds": round(report.seconds, 3)}, _done(report))
    if report.failed:
        raise typer.Exit(INCOMPLETE)


def _agreed(data: str, yes: bool) -> bool:
    """Show the licence of ``data`` and return whether it is accepted."""
    from medaug.data.download.licences import licence

    say(licence(data).text)
    if yes or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return yes
    return typer.confirm("Do you accept these terms?", err=True)


def _planned_text(plan: "Plan") -> str:
    from medaug.data.download.report import size_text

    lines = [
        f"{item.name:<40} {'?' if item.bytes is None else size_text(item.bytes):>10}  {item.state}"
        + (f": {item.why}" if item.why else "")
        for item in plan.items
    ]
    lines += [*plan.notes, *(f"left out: {name}: {why}" for name, why in plan.skipped.items())]
    agreed = "accepted" if plan.accepted else "not yet accepted"
    return "\n".join(
        [
            *lines,
            f"would fetch {len(plan.wanted)} of {len(plan.items)}, {size_text(plan.bytes)} as far "
            f"as is known, into {plan.root}; licence {plan.licence}, {agreed}",
        ]
    )


def _done(report: "Report") -> str:
    from medaug.data.download.report import size_text

    return (
        f"{report.root}: {len(report.fetched)} fetched, {len(report.repaired)} repaired, "
        f"{len(report.kept)} kept, {len(report.failed)} failed; {size_text(report.bytes)} in "
        f"{report.seconds:.0f} s"
    )
