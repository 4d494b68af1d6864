"""What work costs as it grows: training sets, folders of samples and collections of scans.

Each size is a command of its own, seen from outside (`processes.watch`): until its first result,
which is its start-up, and from there to its end.  Training sees every slice once; folders of
samples begin empty, and one is then extended; `prepare` reads phantom scans in the layout of
Pancreas-CT.

    time       exponent of a power law through the processor time that follows the start-up
    memory     own memory of all processes at its peak, largest size over smallest
    start-up   processor time until the first result, largest size over smallest

Processor time is held against the bounds, since wall time is also other people's.
"""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from material import phantom_cache
from matplotlib.figure import Figure
from processes import calling, medaug, watch
from results import Claim, Measured, Setup, kept, markdown, sources
from scans import people, watched
from timing import exponent

from medaug.core.config import DataConfig, resolve
from medaug.data.cache.fill import write_case
from medaug.data.cache.prepare import SliceCache
from medaug.data.cache.store import INDEX, fingerprint, read_case, read_index
from medaug.data.feed.feed import Feed
from medaug.runtime.files import write_json
from medaug.training.loop import fit

Row = dict[str, float]
Runs = dict[str, dict[str, Row]]
"""What was measured, by kind of work and by size."""

FULL = ((1000, 10_000, 100_000), (1000, 10_000, 100_000), (8, 20, 40, 80))
QUICK = ((200, 400, 800), (64, 256, 1024), (2, 4, 8))
"""Slices that are trained on, samples that are written, scans that are prepared."""
FORMATS = ("png", "nifti")
UNITS = {"train": "slices", "png": "samples", "nifti": "samples", "prepare": "scans"}
LONGEST = 1.1
"""The exponent that still counts as linear."""
FLAT, CONSTANT, EXTENDED = 1.1, 1.25, 1.1

SCAN = 100
"""Slices of each scan."""
NOISE_HU = 12
LEAST = DataConfig().min_label_pixels
MODEL = {"width": 8, "prior": {"width": 16, "steps": 2}}
SMALL: dict[str, Any] = {"model": MODEL, "train": {"batch": 64, "snapshot_every": 10**9}}


def large_cache(work: Path, slices: int) -> Path:
    """A cache of ``slices`` training slices that all show the pancreas, and one held-out scan.

    Phantom slices under fresh noise, written as `prepare` writes its cases; scans are kept below
    ``work`` and linked, so that a larger cache holds those of a smaller one.
    """
    cache = work / f"slices-{slices}"
    if (cache / INDEX).exists():
        return cache
    source = phantom_cache(work)
    shown = [
        (case.image[z], case.label[z], case)
        for case in source.cases.values()
        for z in np.flatnonzero(case.label_pixels["pancreas"] >= LEAST)
        if case.label is not None
    ]
    names = [f"scan_{number:05d}" for number in range(slices // SCAN + 1)]
    (cache / "cases").mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        scan = work / "scans" / name
        if not scan.exists():
            rng = np.random.default_rng(number)
            picked = [shown[i] for i in rng.permutation(len(shown))[:SCAN]]
            images = np.stack([image for image, _, _ in picked])
            noise = rng.integers(-NOISE_HU, NOISE_HU + 1, images.shape, np.int16)
            arrays = {"image": images + noise, "label": np.stack([mask for _, mask, _ in picked])}
            write_case(scan, arrays, picked[0][2].affine, source.labels)
        link = cache / "cases" / name
        link.unlink(missing_ok=True)
        link.symlink_to(scan.resolve())
    index = read_index(source.path)
    assert index is not None
    split = {"train": names[:-1], "heldout": names[-1:]}
    cases = [read_case(cache, name, "ct") for name in names]
    digests = {case.id: case.digest for case in cases if case is not None}
    index |= {"expected": names, "split": split, "failed": {}}
    write_json(cache / INDEX, index | {"fingerprint": fingerprint(index, digests, split)})
    return cache


def train(cache: str, run: str, images: int, sign: str) -> None:
    """Train on a cache from the first image to the last; the file ``sign`` appears at the first."""
    drawn, place = Feed.drawn, Path(sign)

    def noted(self: Feed, position: int, *more: Any) -> Any:
        if not position:
            place.touch()
        return drawn(self, position, *more)

    slices = SliceCache.open(Path(cache))
    data = {"name": "phantom", "size": slices.settings.size}
    config = {"data": data, "train": {"images": images}}
    with patch.object(Feed, "drawn", noted):
        done = fit(resolve(SMALL, config), slices, run, device="cpu")
    assert done.images >= images


def training(work: Path, slices: int) -> Row:
    """One pass over a training set."""
    cache, run, sign = large_cache(work, slices), work / "run", work / "sign"
    shutil.rmtree(run, ignore_errors=True)
    sign.unlink(missing_ok=True)
    return watch(calling("growth", "train", cache, run, slices, sign), sign.exists)


def filled(run: Path, out: Path, form: str, few: int, many: int, n: int) -> dict[str, Row]:
    """A new folder of ``n`` samples; of ``many``, also what ``few`` more beside them cost."""
    shutil.rmtree(out, ignore_errors=True)
    found = {"made": synthesis(run, out, form, n)}
    if n == many:
        found["extended"] = synthesis(run, out, form, n + few)
    shutil.rmtree(out)
    return found


def synthesis(run: Path, out: Path, form: str, n: int) -> Row:
    """Images and masks of ``n`` samples in ``out``, beside those that are there."""
    options = ["--format", form, "--uncertainty", "0", "--no-filter", "--device", "cpu"]
    words = ["synthesize", "-n", n, "--out", out, "--run", run, *options]
    journal = out / ".journal-0-of-1"
    return watch(medaug(*words), lambda: journal.exists() and journal.stat().st_size > 0)


def measured(setup: Setup) -> tuple[Runs, dict[str, Row]]:
    """All sizes of all kinds of work, and the extension of the largest folders."""
    work, scans = setup.work / "growth", setup.work / "preparing"
    work.mkdir(exist_ok=True)
    slices, samples, patients = QUICK if setup.quick else FULL
    place = work / sources()
    config = {"data": {"name": "phantom", "size": 64}, "train": {"images": 256}}
    run = fit(resolve(SMALL, config), phantom_cache(work), work / "small").run

    def each(kind: str, sizes: Sequence[int], run: Callable[[int], Any]) -> dict[str, Any]:
        return {str(n): kept(place / f"{kind}-{n}.json", partial(run, n)) for n in sizes}

    runs: Runs = {
        "prepare": each("prepare", patients, lambda n: watched(people(scans, n), work / "cache")),
        "train": each("train", slices, partial(training, work)),
    }
    few, many = samples[-2:]
    extended = {}
    for form in FORMATS:
        found = each(form, samples, partial(filled, run, work / "samples", form, few, many))
        runs[form] = {n: both["made"] for n, both in found.items()}
        extended[form] = found[str(many)]["extended"]
    return runs, extended


def claims(runs: Mapping[str, Mapping[str, Row]], extended: Mapping[str, Row]) -> list[Claim]:
    """Linear time, flat memory, constant start-up; adding to a folder costs what is added."""
    found = []
    for kind, by_size in runs.items():
        sizes = sorted(map(int, by_size))
        rows = [by_size[str(n)] for n in sizes]
        power = exponent(sizes, [row["cpu_seconds"] - row["first_cpu_seconds"] for row in rows])
        what = f"{kind}, {sizes[0]} to {sizes[-1]} {UNITS[kind]}"
        memory, first = (
            rows[-1][key] / rows[0][key] for key in ("own_peak_bytes", "first_cpu_seconds")
        )
        found += [
            Claim(f"{what}: exponent of time", power, "<=", LONGEST),
            Claim(f"{what}: peak memory, last over first", memory, "<=", FLAT, "x"),
            Claim(f"{what}: start-up, last over first", first, "<=", CONSTANT, "x"),
        ]
    for form, again in extended.items():
        few, many = sorted(map(int, runs[form]))[-2:]
        ratio = again["cpu_seconds"] / runs[form][str(few)]["cpu_seconds"]
        what = f"{form}: {few} more samples beside {many}, over {few} in a new folder"
        found.append(Claim(what, ratio, "<=", EXTENDED, "x"))
    return found


def page(runs: Mapping[str, Mapping[str, Row]], held: Sequence[Claim]) -> str:
    """The figures as Markdown."""
    columns = ["work", "size", "wall time s", "CPU time s", "CPU ms a unit after start-up"]
    columns += ["start-up s, wall", "start-up s, CPU", "own memory MB", "with pages of files MB"]
    rows = [
        [
            kind,
            f"{size} {UNITS[kind]}",
            *(f"{row[key]:.1f}" for key in ("seconds", "cpu_seconds")),
            f"{1e3 * (row['cpu_seconds'] - row['first_cpu_seconds']) / int(size):.3g}",
            *(f"{row[key]:.2f}" for key in ("first_seconds", "first_cpu_seconds")),
            *(f"{row[key] / 1e6:.0f}" for key in ("own_peak_bytes", "peak_bytes")),
        ]
        for kind, by_size in runs.items()
        for size, row in by_size.items()
    ]
    verdicts = [[claim.what, claim.limit, claim.figure, claim.verdict] for claim in held]
    lines = [
        "# Cost as work grows",
        "",
        "Made by `scripts/bench growth`; the figures are in [growth.json](growth.json).",
        "",
        "![Time a unit, memory and start-up against size](growth.png)",
        "",
        *markdown(columns, rows),
        "",
        *markdown(["claim", "bound", "figure", "verdict"], verdicts),
        "",
    ]
    return "\n".join(lines)


def plot(runs: Mapping[str, Mapping[str, Row]], path: Path) -> None:
    """Time a unit, memory and start-up against size, all relative to the smallest size."""
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    shown: dict[str, Callable[[int, Row], float]] = {
        "CPU time a unit, after start-up": lambda n, t: (
            (t["cpu_seconds"] - t["first_cpu_seconds"]) / n
        ),
        "own memory at its peak": lambda n, t: t["own_peak_bytes"],
        "CPU time until the first result": lambda n, t: t["first_cpu_seconds"],
    }
    for axes, (title, value) in zip(figure.subplots(1, 3), shown.items(), strict=True):
        for kind, rows in runs.items():
            sizes = [int(n) for n in rows]
            values = [value(n, rows[str(n)]) for n in sizes]
            axes.plot(sizes, [v / values[0] for v in values], "o-", label=f"{kind} ({UNITS[kind]})")
        axes.set(title=title, xscale="log", xlabel="size", ylim=(0, None))
        axes.axhline(1, color="0.7", zorder=0)
    figure.axes[0].set_ylabel("over the smallest size")
    figure.axes[0].legend(fontsize="small", loc="lower left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def measure_growth(setup: Setup) -> Measured:
    """What work costs as it grows."""
    os.environ["OMP_NUM_THREADS"] = "1"  # threads that wait for each other spend time for nothing
    runs, extended = measured(setup)
    held = claims(runs, extended)
    plot(runs, setup.results / "growth.png")
    (setup.results / "growth.md").write_text(page(runs, held))
    note = (
        "64 px; one thread a process; a small model of the default kind; training, one pass over a "
        "cache of scans of 100 slices; samples are image and mask without alternatives; scans are "
        "phantoms of 160 x 160 x 64 voxels, two workers. Own memory leaves out pages of files. "
        "Picture: growth.png; table: growth.md."
    )
    n = max(int(size) for by_size in runs.values() for size in by_size)
    figures = {"runs": runs, "extended": extended}
    shutil.rmtree(setup.work / "growth" / sources())  # a call after one that ended measures again
    return Measured(held, figures, n, 0, note)
