"""Train and synthesise in a loop, in one process and by the commands: does anything pile up?

After every cycle the process looks at itself: memory, file descriptors, threads, shared memory and
temporary files.  The first fifth of the looks is warm-up.  A level is flat where the upper end of
the 95 % interval of its growth over the rest, see `timing.trend`, keeps its bound.
"""

import argparse
import gc
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest.mock import patch

from growth import SMALL
from material import phantom_cache
from matplotlib.figure import Figure
from processes import medaug, sizes, watch
from results import RESULTS, WORK, Claim, Measured, Setup, markdown, report
from timing import BLOCKS, trend

from medaug.core.config import resolve
from medaug.data.cache.prepare import SliceCache
from medaug.synthesis.generator import Generator
from medaug.synthesis.synthesize import synthesize
from medaug.training.loop import fit

Look = dict[str, float]

MINUTES, WARM_UP, IMAGES, SAMPLES, COMMANDS_EVERY = 30.0, 0.2, 1024, 64, 2
LEVELS = {
    "own_bytes": "memory of the process, pages of files left out",
    "descriptors": "open file descriptors",
    "threads": "threads",
    "shared": "segments in /dev/shm",
    "temporary": "temporary files",
    "command_bytes": "peak memory of the two commands",
}
SHARES = {"own_bytes": 0.02, "command_bytes": 0.05}
"""By how much of itself a level in bytes may grow over a run; counts may not grow by one."""
FRESH = ("command_bytes",)
"""Levels of new processes at every look, which do not resemble their neighbours."""


def cycle(cache: SliceCache, work: Path, number: int, images: int, samples: int) -> None:
    """A run from nothing, and a folder from its weights, as a program would make them."""
    run, out = work / "run", work / "out"
    data = {"name": "phantom", "size": cache.size}
    config = {"data": data, "train": {"images": images, "snapshot_every": images // 2}}
    fit(resolve(SMALL, config, {"train": {"seed": number}}), cache, run, device="cpu")
    synthesize(Generator.from_pretrained(run, "cpu"), samples, out, uncertainty=2, seed=number)
    shutil.rmtree(run)
    shutil.rmtree(out)


def commands(cache: SliceCache, work: Path, images: int, samples: int) -> float:
    """The same by the commands; the larger of their peaks in bytes."""
    run, out = work / "run", work / "out"
    sets = {f"model.{key}": value for key, value in SMALL["model"].items()}
    sets |= {"train.images": images, "train.batch": SMALL["train"]["batch"]}
    train = ["train", "--data", cache.path, "--run", run, "--device", "cpu"]
    train += [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]
    write = ["synthesize", "-n", samples, "--run", run, "--out", out, "--uncertainty", 2]
    write += ["--no-filter", "--device", "cpu"]
    peaks = [watch(medaug(*words), lambda: True)["own_peak_bytes"] for words in (train, write)]
    shutil.rmtree(run)
    shutil.rmtree(out)
    return max(peaks)


def look(temporary: Path) -> Look:
    """What this process holds now."""
    gc.collect()
    return {
        "own_bytes": own_bytes(),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "shared": sum(1 for _ in segments()),
        "temporary": sum(1 for _ in temporary.rglob("*")),
    }


def segments() -> Iterator[Path]:
    """Segments of shared memory that this user owns."""
    for path in Path("/dev/shm").iterdir():
        with suppress(OSError):
            if path.stat().st_uid == os.getuid():
                yield path


def own_bytes() -> int:
    """Memory of this process without pages of files.

    Raises:
        OSError: this Linux does not tell.
    """
    place = Path("/proc/self/smaps_rollup")
    if (found := sizes(place).get("Pss_Anon")) is None:
        raise OSError(f"{place}: no Pss_Anon; a newer Linux is needed")
    return found


@contextmanager
def own_temporary(work: Path) -> Iterator[Path]:
    """A folder for temporary files, of this process and of the commands it starts."""
    folder = work / "temporary"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with patch.object(tempfile, "tempdir", str(folder)), patch.dict(os.environ, TMPDIR=str(folder)):
        yield folder


def soak(
    cache: SliceCache,
    work: Path,
    enough: Callable[[int, float], bool],
    *,
    images: int = IMAGES,
    samples: int = SAMPLES,
    commands_every: int = COMMANDS_EVERY,
    after_each: Callable[[int], None] | None = None,
) -> list[Look]:
    """One look after every cycle.

    Args:
        cache: what is trained on.
        work: where runs and folders are made and removed.
        enough: whether to stop, given cycles done and seconds passed.
        images: of each training.
        samples: of each folder.
        commands_every: how many cycles pass between two that also run the commands; 0 for never.
        after_each: called after every cycle, such as by a test that leaks.
    """
    looks: list[Look] = []
    started = time.monotonic()
    for name in ("run", "out"):
        shutil.rmtree(work / name, ignore_errors=True)
    with own_temporary(work) as temporary:
        while not enough(len(looks), time.monotonic() - started):
            number = len(looks)
            cycle(cache, work, number, images, samples)
            told = {}
            if commands_every and not number % commands_every:
                told["command_bytes"] = commands(cache, work, images, samples)
            if after_each is not None:
                after_each(number)
            minutes = (time.monotonic() - started) / 60
            looks.append({"minutes": minutes, **look(temporary), **told})
    return looks


def claims(looks: Sequence[Look], shares: dict[str, float] | None = None) -> list[Claim]:
    """Every level against its bound; those with too few looks for a trend are left out."""
    shares, found = SHARES | (shares or {}), []
    settled = looks[int(len(looks) * WARM_UP) :]
    for name, what in LEVELS.items():
        seen = [one for one in settled if name in one]
        if len(seen) < 4:
            continue
        blocks = len(seen) if name in FRESH else BLOCKS
        told = trend([one["minutes"] for one in seen], [one[name] for one in seen], blocks)
        if name in shares:
            growth, bound, unit = 100 * told.high / told.level, 100 * shares[name], "%"
        else:
            growth, bound, unit = told.high, 0.99, ""
        title = f"growth of {what}, upper end of its interval"
        found.append(Claim(title, growth, "<=", bound, unit))
    return found


def page(looks: Sequence[Look], held: Sequence[Claim]) -> str:
    """The figures as Markdown."""
    settled = looks[int(len(looks) * WARM_UP) :]
    rows = []
    for claim in held:
        name = next(name for name, what in LEVELS.items() if f"of {what}," in claim.what)
        seen = [one[name] for one in settled if name in one]
        first, last = (
            f"{value / 1e6:.1f} MB" if name in SHARES else f"{value:g}"
            for value in (seen[0], seen[-1])
        )
        rows.append([LEVELS[name], first, last, claim.figure, claim.limit, claim.verdict])
    columns = ["level", "after warm-up", "at the end", "growth, upper end", "bound", "verdict"]
    lines = [
        "# Train and synthesise in a loop",
        "",
        f"Made by `scripts/soak`: {len(looks)} cycles in {looks[-1]['minutes']:.0f} minutes; the "
        "figures are in [soak.json](soak.json).",
        "",
        "![Every level after every cycle](soak.png)",
        "",
        *markdown(columns, rows),
        "",
    ]
    return "\n".join(lines)


def plot(looks: Sequence[Look], path: Path) -> None:
    """Every level against time."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    warm = looks[int(len(looks) * WARM_UP)]["minutes"]
    for axes, (name, what) in zip(figure.subplots(2, 3).flat, LEVELS.items(), strict=True):
        seen = [one for one in looks if name in one]
        unit = 1e6 if name in SHARES else 1
        axes.plot([one["minutes"] for one in seen], [one[name] / unit for one in seen], ".-")
        axes.axvline(warm, color="0.7", linestyle=":")
        axes.set(title=what + (", MB" if unit > 1 else ""), xlabel="minutes", ylim=(0, None))
        axes.title.set_fontsize(9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak and report; exit status 0 where everything is flat, 3 where something is not."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    minutes = parser.parse_args(arguments).minutes
    quick = minutes < MINUTES
    work = (WORK / "quick" if quick else WORK) / "soak"
    work.mkdir(parents=True, exist_ok=True)
    setup = Setup(quick, work, work / "results" if quick else RESULTS)
    looks = soak(phantom_cache(WORK), work, lambda _, seconds: seconds >= 60 * minutes)
    if len(looks) < 8:
        print(f"{len(looks)} cycles in {minutes:g} minutes: too few to tell", file=sys.stderr)
        return 2
    held = claims(looks)
    plot(looks, setup.results / "soak.png")
    (setup.results / "soak.md").write_text(page(looks, held))
    note = (
        f"Each cycle trains a small model of the default kind for {IMAGES} images with two "
        f"snapshots and writes {SAMPLES} samples with 2 alternatives; every {COMMANDS_EVERY}th "
        f"also runs both commands. The first {WARM_UP:.0%} of the looks is warm-up. Picture: "
        "soak.png."
    )
    found = Measured(held, {"looks": looks}, len(looks), 0, note)
    return report(setup, "soak", found, "scripts/soak")


if __name__ == "__main__":
    sys.exit(main())
