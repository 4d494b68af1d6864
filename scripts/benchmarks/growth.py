"""What work costs as it grows: training sets, folders of samples and collections of scans.

Each size is a command of its own, seen from outside (`watching`): until its first result, which is
its start-up, and from there to its end.  Training sees every slice once; folders of samples begin
empty, and one is then extended; `prepare` reads phantom scans in the layout of Pancreas-CT.

    time       exponent of a power law through the processor time that follows the start-up
    memory     own memory of all processes at its peak, largest size over smallest
    start-up   processor time until the first result, largest size over smallest

Processor time is held against the bounds, since wall time is also other people's.
"""

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fitting import exponent
from growing import large_cache, small_weights
from keeping import kept, sources
from matplotlib.figure import Figure
from preparing import people
from results import Asked, Claim, asked, report
from watching import python, watch

Told = dict[str, float]
Runs = dict[str, dict[str, Told]]
"""What was measured, by kind of work and by size."""

SLICES = SAMPLES = (1000, 10_000, 100_000)
SCANS = (8, 20, 40, 80)
QUICK_SLICES, QUICK_SAMPLES, QUICK_SCANS = (200, 400, 800), (64, 256, 1024), (2, 4, 8)
FORMATS = ("png", "nifti")
UNITS = {"train": "slices", "png": "samples", "nifti": "samples", "prepare": "scans"}
LONGEST = 1.1
"""The exponent that still counts as linear."""
FLAT, CONSTANT, EXTENDED = 1.1, 1.25, 1.1


def training(work: Path, slices: int) -> Told:
    """One pass over a training set."""
    cache, run, sign = large_cache(work, slices), work / "run", work / "sign"
    shutil.rmtree(run, ignore_errors=True)
    sign.unlink(missing_ok=True)
    return watch(python("growing", "train", cache, run, slices, sign), sign.exists)


def filled(weights: Path, out: Path, form: str, n: int, more: int) -> dict[str, Told]:
    """A new folder of ``n`` samples, and what ``more`` beside them cost, where that is asked."""
    shutil.rmtree(out, ignore_errors=True)
    told = {"made": synthesis(weights, out, form, n)}
    if more:
        told["extended"] = synthesis(weights, out, form, n + more)
    shutil.rmtree(out)
    return told


def synthesis(weights: Path, out: Path, form: str, n: int) -> Told:
    """Images and masks of ``n`` samples in ``out``, beside those that are there."""
    options = ["--format", form, "--uncertainty", "0", "--no-filter", "--device", "cpu"]
    words = ["synthesize", "-n", n, "--out", out, "--run", weights.parent, *options]
    journal = out / ".journal-0-of-1"
    command = [sys.executable, "-m", "medaug", *map(str, words)]
    return watch(command, lambda: journal.exists() and journal.stat().st_size > 0)


def preparation(work: Path, scans: int) -> Told:
    """Scans into a cache, with two workers."""
    folder, cache = people(work, scans), work / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    words = ["prepare", folder, "--cache", cache, "--size", 64, "--workers", 2]
    command = [sys.executable, "-m", "medaug", *map(str, words)]
    return watch(command, lambda: any((cache / "cases").glob("PANCREAS_*")))


def measure(how: Asked) -> tuple[Runs, dict[str, Told]]:
    """All sizes of all kinds of work, and the extension of the largest folders."""
    work = how.work / "growth"
    work.mkdir(exist_ok=True)
    slices, samples, scans = (
        (QUICK_SLICES, QUICK_SAMPLES, QUICK_SCANS) if how.quick else (SLICES, SAMPLES, SCANS)
    )
    weights = small_weights(work)
    place = work / sources()
    runs: Runs = {
        "prepare": _each(place, "prepare", scans, lambda n: preparation(how.work / "preparing", n)),
        "train": _each(place, "train", slices, lambda n: training(work, n)),
    }
    few, many = samples[-2:]
    extended = {}
    for form in FORMATS:
        told = _each(
            place,
            form,
            samples,
            lambda n: filled(weights, work / "samples", form, n, few if n == many else 0),  # noqa: B023
        )
        runs[form] = {n: both["made"] for n, both in told.items()}
        extended[form] = told[str(many)]["extended"]
    return runs, extended


def _each(
    place: Path, kind: str, sizes: Sequence[int], run: Callable[[int], Any]
) -> dict[str, Any]:
    return {str(n): kept(place / f"{kind}-{n}.json", partial(run, n)) for n in sizes}


def claims(runs: Mapping[str, Mapping[str, Told]], extended: Mapping[str, Told]) -> list[Claim]:
    """Linear time, flat memory, constant start-up; adding to a folder costs what is added."""
    found = []
    for kind, told in runs.items():
        sizes = sorted(map(int, told))
        rows = [told[str(n)] for n in sizes]
        work = [row["cpu_seconds"] - row["first_cpu_seconds"] for row in rows]
        what = f"{kind}, {sizes[0]} to {sizes[-1]} {UNITS[kind]}"
        first, last = rows[0], rows[-1]
        found += [
            Claim(f"{what}: exponent of time", exponent(sizes, work), "<=", LONGEST),
            Claim(
                f"{what}: peak memory, last over first",
                last["own_peak_bytes"] / first["own_peak_bytes"],
                "<=",
                FLAT,
                "x",
            ),
            Claim(
                f"{what}: start-up, last over first",
                last["first_cpu_seconds"] / first["first_cpu_seconds"],
                "<=",
                CONSTANT,
                "x",
            ),
        ]
    for form, told_again in extended.items():
        few, many = sorted(map(int, runs[form]))[-2:]
        ratio = told_again["cpu_seconds"] / runs[form][str(few)]["cpu_seconds"]
        what = f"{form}: {few} more samples beside {many}, over {few} in a new folder"
        found.append(Claim(what, ratio, "<=", EXTENDED, "x"))
    return found


def page(runs: Mapping[str, Mapping[str, Told]], held: Sequence[Claim]) -> str:
    """The figures as Markdown."""
    lines = [
        "# Cost as work grows",
        "",
        "Made by `scripts/bench growth`; the figures are in [growth.json](growth.json).",
        "",
        "![Time a unit, memory and start-up against size](growth.png)",
        "",
        "| work | size | wall time s | CPU time s | CPU ms a unit after start-up "
        "| start-up s, wall | start-up s, CPU | own memory MB | with pages of files MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for kind, told in runs.items():
        for size, row in told.items():
            unit_ms = 1e3 * (row["cpu_seconds"] - row["first_cpu_seconds"]) / int(size)
            cells = [
                kind,
                f"{size} {UNITS[kind]}",
                *(f"{row[key]:.1f}" for key in ("seconds", "cpu_seconds")),
                f"{unit_ms:.3g}",
                *(f"{row[key]:.2f}" for key in ("first_seconds", "first_cpu_seconds")),
                *(f"{row[key] / 1e6:.0f}" for key in ("own_peak_bytes", "peak_bytes")),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| claim | bound | figure | verdict |", "| --- | --- | --- | --- |"]
    lines += [f"| {c.what} | {c.limit} | {c.figure} | {c.verdict} |" for c in held]
    return "\n".join([*lines, ""])


def plot(runs: Mapping[str, Mapping[str, Told]], path: Path) -> None:
    """Time a unit, memory and start-up against size, all relative to the smallest size."""
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    shown: dict[str, Callable[[int, Told], float]] = {
        "CPU time a unit, after start-up": lambda n, t: (
            (t["cpu_seconds"] - t["first_cpu_seconds"]) / n
        ),
        "own memory at its peak": lambda n, t: t["own_peak_bytes"],
        "CPU time until the first result": lambda n, t: t["first_cpu_seconds"],
    }
    for axes, (title, value) in zip(figure.subplots(1, 3), shown.items(), strict=True):
        for kind, told in runs.items():
            sizes = [int(n) for n in told]
            values = [value(n, told[str(n)]) for n in sizes]
            axes.plot(sizes, [v / values[0] for v in values], "o-", label=f"{kind} ({UNITS[kind]})")
        axes.set(title=title, xscale="log", xlabel="size", ylim=(0, None))
        axes.axhline(1, color="0.7", zorder=0)
    figure.axes[0].set_ylabel("over the smallest size")
    figure.axes[0].legend(fontsize="small", loc="lower left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> int:
    """Measure and report."""
    how = asked()
    os.environ["OMP_NUM_THREADS"] = "1"  # threads that wait for each other spend time for nothing
    runs, extended = measure(how)
    held = claims(runs, extended)
    plot(runs, how.results / "growth.png")
    (how.results / "growth.md").write_text(page(runs, held))
    note = (
        "64 px; one thread a process; a small model of the default kind; training, one pass over a "
        "cache of scans of 100 slices; samples are image and mask without alternatives; scans are "
        "phantoms of 160 x 160 x 64 voxels, two workers. Own memory leaves out pages of files. "
        "Picture: growth.png; table: growth.md."
    )
    n = max(int(size) for told in runs.values() for size in told)
    figures = {"runs": runs, "extended": extended}
    status = report(how, "growth", held, figures, n=n, seed=0, note=note)
    shutil.rmtree(how.work / "growth" / sources())  # a call after one that ended measures anew
    return status


if __name__ == "__main__":
    sys.exit(main())
