"""Harm every command in every way, and count what survives; the exit status says whether all does.

0: nothing lost, no hang, no traceback.  1: something was.  2: it could not be tried.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE.parent / "benchmarks"), str(HERE)]

import scarcity  # noqa: E402
from interruptions import clock, double, kill, terminate  # noqa: E402
from process import warm  # noqa: E402
from results import describe, kept, machine, markdown, public, sources, today  # noqa: E402
from spoiled import flip, nan  # noqa: E402
from victims import COUNTS, LOSSES, VICTIMS, Trial, World, counted, world  # noqa: E402

SHOWN = 4000
"""Characters of what a command said before it hung or showed a traceback."""
Hammer = Callable[[World, Path, int], Iterator[Trial]]


@dataclass(frozen=True)
class Row:
    """A hammer, how often it strikes each thing, and what it does."""

    strike: Hammer
    often: int
    quick: int
    what: str
    disk: bool = False
    apart: bool = True
    """Whether it strikes command by command."""


ROWS: dict[str, Row] = {
    "kill": Row(kill, 100, 4, "kill -9 of the process group at moments over the whole run"),
    "terminate": Row(terminate, 25, 3, "SIGTERM to the process group likewise"),
    "full": Row(scarcity.full, 12, 3, "a full disk, of sizes up to what is needed", True),
    "readonly": Row(scarcity.read_only, 8, 2, "a disk turned read-only after a kill", True),
    "flip": Row(flip, 40, 4, "one bit flipped in a file that is read again", apart=False),
    "nan": Row(nan, 6, 1, "NaN in scans, weights, checkpoints, gradients", apart=False),
    "double": Row(double, 6, 2, "the same command twice at once"),
    "clock": Row(clock, 6, 2, "a clock that jumps, and file times over a century"),
    "descriptors": Row(scarcity.descriptors, 10, 3, "few file descriptors"),
    "filesize": Row(scarcity.files, 8, 3, "small files only"),
    "memory": Row(scarcity.memory, 10, 3, "little memory"),
}


def main() -> int:
    """Parse the command line and swing the chosen hammers."""
    parser = argparse.ArgumentParser(prog="scripts/torture", description=__doc__)
    parser.add_argument("hammers", nargs="*", metavar="hammer", help=", ".join(ROWS))
    parser.add_argument("--list", action="store_true", help="name the hammers and leave")
    parser.add_argument("--quick", action="store_true", help="few strikes; results in build/")
    parser.add_argument("--work", type=Path, help="where to work; by default below build/torture")
    parser.add_argument("--strikes", type=int, help="how often each thing is hit")
    options = parser.parse_args()
    if unknown := [name for name in options.hammers if name not in ROWS]:
        parser.error(f"no hammer {unknown[0]!r} (hammers: {', '.join(ROWS)})")
    if options.list:
        print("\n".join(f"{name:12} {row.what}" for name, row in ROWS.items()))
        return 0
    partial = options.quick or options.strikes or options.hammers
    work = options.work or ROOT / "build" / "torture" / ("quick" if partial else "full")
    results = work / "results" if partial else ROOT / "docs" / "results"
    content = torture(work, options.hammers or list(ROWS), options.quick, options.strikes)
    content["command"] = " ".join(["scripts/torture", *sys.argv[1:]])
    results.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    (results / "torture.json").write_text(public(text))
    (results / "torture.md").write_text(table(content))
    print(table(content))
    return 0 if content["total"]["survived"] == content["total"]["tried"] else 1


def torture(
    work: Path, hammers: Sequence[str], quick: bool = False, strikes: int | None = None
) -> dict[str, Any]:
    """Swing ``hammers``, working in ``work``; everything that was counted, as JSON values."""
    warm()
    scratch, done = work / "trials", work / "kept" / sources()
    for old in (scratch, work / "undisturbed", work / "cache", work / "run"):
        shutil.rmtree(old, ignore_errors=True)
    scratch.mkdir(parents=True)
    found: dict[str, Any] = {}
    left_out = []
    with world(work) as made:
        for name in hammers:
            row = ROWS[name]
            if row.disk and not scarcity.mounted():
                left_out.append(name)
                continue
            often = strikes or (row.quick if quick else row.often)
            groups, losses, seconds = {}, [], 0.0
            for victims in [(victim,) for victim in VICTIMS] if row.apart else [VICTIMS]:
                only = replace(made, victims=victims)
                place = done / f"{name}-{often}-{'-'.join(victims)}.json"
                part = struck(name, row.strike(only, scratch, often), place)
                groups |= part["groups"]
                losses += part["losses"]
                seconds += part["seconds"]
            found[name] = {
                "what": row.what,
                "groups": groups,
                "losses": losses[:LOSSES],
                "seconds": round(seconds),
            }
    shutil.rmtree(work / "kept")
    tallies = [tally for hammer in found.values() for tally in hammer["groups"].values()]
    return {
        "hammers": found,
        "total": {key: sum(tally[key] for tally in tallies) for key in COUNTS},
        "left_out": left_out,
        "seconds": sum(hammer["seconds"] for hammer in found.values()),
        "machine": machine(),
        "date": today(),
    }


def struck(name: str, trials: Iterator[Trial], place: Path) -> dict[str, Any]:
    """What came of ``trials``, or of the same ones in a call that was killed."""

    def strike() -> dict[str, Any]:
        since = time.monotonic()
        return {**counted(_shown(name, trials)), "seconds": time.monotonic() - since}

    found: dict[str, Any] = kept(place, strike)
    return found


def _shown(name: str, trials: Iterator[Trial]) -> Iterator[Trial]:
    for trial in trials:
        if not trial.survived:
            print(f"{name}: {trial.what}: {trial.lost or 'a hang or a traceback'}", file=sys.stderr)
            for end in trial.ends:
                if end.traceback or end.hung:
                    print(end.said[-SHOWN:], file=sys.stderr)
        yield trial


def table(content: dict[str, Any]) -> str:
    """What was counted as one page of Markdown."""
    rows = []
    for name, found in content["hammers"].items():
        for group, tally in found["groups"].items():
            notes = ", ".join(f"{count} {note}" for note, count in sorted(tally["notes"].items()))
            rows.append([name, group, *(tally[key] for key in COUNTS), notes])
    rows.append(["all", "", *(content["total"][key] for key in COUNTS), ""])
    left_out = content["left_out"]
    more = [f"Not tried, since no disk may be mounted here: {', '.join(left_out)}.", ""]
    return "\n".join(
        [
            "# Torture",
            "",
            f"Made by `{content['command']}` in {content['seconds']} s; docs/torture.md says what",
            "each hammer does. Lost: the same command did not end with the bytes of an undisturbed",
            "run, or ended in another way than it should.",
            "",
            *markdown(["hammer", "on", *COUNTS, "how"], rows),
            "",
            *(more if left_out else []),
            f"{describe(content['machine'])}, {content['date']}.",
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
