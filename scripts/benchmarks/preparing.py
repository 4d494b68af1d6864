"""What `prepare` costs as scans are added, and what is left of it when it is killed.

The command runs on 10, 20, 40 and 80 phantom patients in the layout of Pancreas-CT, with two
workers, as a user would type it.  Its memory is the sum over all its processes of what the system
counts as theirs (PSS, shared pages in shares), looked at every few hundredths of a second.

Then it is killed, workers and all, at moments drawn over its whole duration, and called again each
time: every file of the finished cache must have the bytes of one that nobody interrupted.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from results import Claim, asked, report

from medaug.data.cache.prepare import CacheSettings, prepare
from medaug.data.cache.store import read_index
from medaug.data.sources.pancreas import PancreasCT
from medaug.data.sources.phantom.source import Phantom, Shape, Spacing

SIZES, KILLS, KILLED, REPEATS, SEED = (10, 20, 40, 80), 50, 10, 3, 20261210
EVERY_S = 0.03
SHAPE: Shape = (160, 160, 64)
SPACING_MM: Spacing = (2.4, 2.4, 3.0)
SETTINGS = CacheSettings(size=64)


def people(root: Path, count: int, shape: Shape = SHAPE, spacing: Spacing = SPACING_MM) -> Path:
    """A folder with ``count`` phantoms alone, by links to those below ``root``."""
    cases, _ = Phantom(root / "people", count, SEED, shape, spacing).cases()
    folder = root / f"first-{count}"
    shutil.rmtree(folder, ignore_errors=True)
    for case in cases:
        assert case.label is not None
        for place in (case.image[0].parents[2], case.label.files[0]):
            link = folder / place.relative_to(root / "people")
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(place.resolve())
    return folder


def command(scans: Path, cache: Path) -> dict[str, float]:
    """Seconds and peak bytes of ``medaug prepare`` with two workers."""
    shutil.rmtree(cache, ignore_errors=True)
    words = ["prepare", str(scans), "--cache", str(cache), "--size", str(SETTINGS.size)]
    started, peak = time.perf_counter(), 0
    running = subprocess.Popen(
        [sys.executable, "-m", "medaug", *words, "--workers", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while running.poll() is None:
        peak = max(peak, memory(running.pid))
        time.sleep(EVERY_S)
    seconds = time.perf_counter() - started
    assert running.returncode == 0, f"prepare ended with {running.returncode}"
    return {"seconds": seconds, "peak_bytes": peak}


def memory(session: int) -> int:
    """Bytes that the processes of a session hold, pages they share counted once."""
    total = 0
    for place in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            if os.getsid(int(place.name)) == session:
                lines = (place / "smaps_rollup").read_text().splitlines()
                total += sum(int(x.split()[1]) * 1024 for x in lines if x.startswith("Pss:"))
    return total


def contents(cache: Path) -> dict[str, str]:
    """A SHA-256 of every file of a cache but its lock."""
    return {
        str(path.relative_to(cache)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(cache.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def _work(scans: Path, cache: Path) -> None:
    os.setsid()
    prepare(PancreasCT(scans), cache, SETTINGS, workers=2)


def killed(scans: Path, cache: Path, after: float) -> dict[str, Any]:
    """Prepare in a process group that is killed after so many seconds; how far it came."""
    process = get_context("fork").Process(target=_work, args=(scans, cache))
    process.start()
    process.join(after)
    with suppress(ProcessLookupError):  # over, or not a group yet
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()
    index = read_index(cache)
    done = len(list((cache / "cases").glob("PANCREAS_*")))
    return {"after": after, "scans": done, "complete": bool(index and index["complete"])}


def interrupted(scans: Path, scratch: Path, kills: int) -> list[dict[str, Any]]:
    """For each kill, how far it had come, and whether the finished cache is as it should be."""
    prepare(PancreasCT(scans), scratch / "whole", SETTINGS, workers=0)
    whole = contents(scratch / "whole")
    durations, told = [], []
    for _ in range(3):
        started = time.perf_counter()
        killed(scans, scratch / "timed", 600)
        durations.append(time.perf_counter() - started)
        shutil.rmtree(scratch / "timed")
    duration = min(durations)
    for number, part in enumerate(np.random.default_rng(SEED).uniform(0, 1, kills)):
        cache = scratch / f"cut-{number}"
        came = killed(scans, cache, float(part) * duration)
        prepare(PancreasCT(scans), cache, SETTINGS, workers=0)
        told.append({**came, "same": contents(cache) == whole})
        shutil.rmtree(cache)
    return told


def line(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """Seconds for one more scan among the larger half of scans, over those before it."""
    (first, *_, half, last), (fast, *_, middle, slow) = sizes, seconds
    return ((slow - middle) / (last - half)) / ((middle - fast) / (half - first))


def claims(figures: dict[str, Any]) -> list[Claim]:
    """Linear time, flat memory, and nothing lost to a kill."""
    runs, kills = figures["runs"], figures["kills"]
    sizes = sorted(int(n) for n in runs)
    best = [min(run["seconds"] for run in runs[str(n)]) for n in sizes]
    peaks = [min(run["peak_bytes"] for run in runs[str(n)]) for n in sizes]
    differing = sum(not kill["same"] for kill in kills)
    midway = sum(not kill["complete"] for kill in kills)
    return [
        Claim(
            f"time of a further scan, from {sizes[-2]} to {sizes[-1]} over from {sizes[0]} to "
            f"{sizes[-2]}",
            line(sizes, best),
            "<=",
            1.2,
            "x",
        ),
        Claim(
            f"peak memory of all processes, {sizes[-1]} scans over {sizes[0]}",
            peaks[-1] / peaks[0],
            "<=",
            1.1,
            "x",
        ),
        Claim(f"caches that differ after one of {len(kills)} kills", differing, "<=", 0),
        Claim("kills that came before the end", 100 * midway / len(kills), ">=", 80, "%"),
    ]


def main() -> int:
    """Measure and report."""
    how = asked()
    sizes, kills, repeats = ((2, 4, 8, 16), 5, 1) if how.quick else (SIZES, KILLS, REPEATS)
    work = how.work / "preparing"
    folders = {n: people(work, n) for n in sizes}
    runs: dict[str, list[dict[str, float]]] = {str(n): [] for n in sizes}
    for _ in range(repeats):
        for n, folder in folders.items():
            runs[str(n)].append(command(folder, work / "cache"))
    scratch = work / "kills"
    shutil.rmtree(scratch, ignore_errors=True)
    few = folders[sizes[1]] if how.quick else people(work, KILLED)
    figures = {"runs": runs, "kills": interrupted(few, scratch, kills)}
    shutil.rmtree(scratch)
    note = (
        f"Phantoms of {' x '.join(map(str, SHAPE))} voxels, slices of {SETTINGS.size} pixels, two "
        f"workers, best of {repeats}; the time includes starting Python. Killed with SIGKILL, the "
        "whole process group, at moments drawn evenly over the duration of an undisturbed run."
    )
    return report(how, "preparing", claims(figures), figures, n=max(sizes), seed=SEED, note=note)


if __name__ == "__main__":
    sys.exit(main())
