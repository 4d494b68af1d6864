"""Drawing samples: what writing adds, what torch.compile gains, and a torchio pipeline of samples.

*synthesize*: generating alone and ``synthesize`` take turns.  Writers run in threads beside the
generator, so besides the report's own account, which is what the loop waited for them, the whole
time is compared with that of generating alone: it also counts the processor that writers took.

*writing*: drawing samples of 128 pixels and dropping them; writing as many that were drawn before,
a few blocks over and over under new names; and ``synthesize``, which does both.  If the two
overlap, the third is hardly longer than the longer of the others, as far as the processor has room
for both: their processor seconds are in the figures.

*compiled*: blocks by ``torch.compile`` and by the networks as written take turns.  What the first
block takes beyond another one is counted with nothing kept from earlier runs and, in a process of
its own, with that of the first; so is the number of samples from which on compiling has paid back,
image and alternatives counted as the command draws them by default.

*pipeline*: the slices are NIfTI files, as torchio reads them; the bank is a folder that
``synthesize`` wrote.  Pipelines with and without our transform take turns, each in new workers with
nothing read yet, timed from the first batch on, so that starting workers does not count.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import nibabel
import numpy as np
import torch
import torchio as tio
from material import FEW_STEPS, phantom_cache, weights, with_few_steps
from processes import fresh, peak_bytes
from results import Claim, Measured, Setup
from timing import clocked, in_turns, ratio

from medaug.cli.demonstration import SHIPPED
from medaug.core.config import resolve
from medaug.core.types import Sample
from medaug.data.cache.prepare import CacheSettings, SliceCache
from medaug.synthesis.compile import CACHE
from medaug.synthesis.generator import Generator
from medaug.synthesis.synthesize import synthesize
from medaug.torchio import RandomSynthesis
from medaug.training.loop import fit

ALTERNATIVES = 8
SAMPLES = 256
GROWING = (64, 256, 1024)
LARGE_SAMPLES, LARGE_ON_CPU = 5000, 480
"""Of 128 pixels; without a CUDA GPU 5000 would be drawn for forty minutes, twice."""
LARGE, LARGE_PATIENTS, LARGE_SEED = 128, 4, 128
KEPT_BLOCKS = 4
PAIRS = 5
BANK, SLICES, BATCH, WORKERS, REPEATS, SEED = 256, 1024, 16, 2, 7, 0
PROBABILITIES = (0.5, 1.0)


def generate_alone(generator: Generator, n: int) -> dict[str, float]:
    """Draw as ``synthesize`` would and drop the samples."""

    def generate() -> None:
        for number in range(-(-n // generator.block_size)):
            generator.block(number, uncertainty=ALTERNATIVES)

    return clocked(generate)


def write_too(generator: Any, n: int, out: Path) -> dict[str, float]:
    """Draw and write."""
    cpu = time.process_time()
    done = synthesize(generator, n, out, uncertainty=ALTERNATIVES)
    assert done.written == n
    return {
        "seconds": done.seconds,
        "generate_seconds": done.generate_seconds,
        "write_seconds": done.write_seconds,
        "cpu_seconds": time.process_time() - cpu,
    }


def peak_of(path: str, n: int, out: str) -> int:
    """The peak memory of a process that synthesises ``n`` samples."""
    synthesize(Generator.from_pretrained(path), n, Path(out), uncertainty=ALTERNATIVES)
    return peak_bytes()


def costs_of_writing(figures: dict[str, Any]) -> dict[str, float]:
    """What follows from the times and peaks of *synthesize*, in per cent and seconds."""
    alone, files = figures["generate_alone"], figures["synthesize"]
    peaks = list(figures["peak_bytes"].values())
    over = {key: 100 * (files[key] / alone[key] - 1) for key in ("seconds", "cpu_seconds")}
    return {
        "waited_for_writing_percent": 100 * files["write_seconds"] / files["generate_seconds"],
        "over_generating_alone_percent": over["seconds"],
        "cpu_seconds_of_writing": files["cpu_seconds"] - alone["cpu_seconds"],
        "cpu_over_generating_alone_percent": over["cpu_seconds"],
        "peak_spread_percent": 100 * (max(peaks) / min(peaks) - 1),
    }


def synthesize_claims(found: dict[str, float]) -> list[Claim]:
    """Both accounts of writing against the bound, and the spread of the peaks."""
    named = {
        "writing over generating, by the report": ("waited_for_writing_percent", 25),
        "whole time over generating alone": ("over_generating_alone_percent", 25),
        "spread of peak memory as n grows": ("peak_spread_percent", 5),
    }
    return [Claim(what, found[key], "<", bound, "%") for what, (key, bound) in named.items()]


def measure_synthesize(setup: Setup) -> Measured:
    """What writing adds to generating at 64 x 64, and memory as n grows."""
    n, counts = (32, (16, 32, 64)) if setup.quick else (SAMPLES, GROWING)
    path = weights(setup)
    with tempfile.TemporaryDirectory(dir=setup.work) as scratch:
        folder = Path(scratch)
        generator = Generator.from_pretrained(path)
        generator.block(0, uncertainty=ALTERNATIVES)
        sides: dict[str, Callable[[int], dict[str, float]]] = {
            "generate_alone": lambda _: generate_alone(generator, n),
            "synthesize": lambda turn: write_too(generator, n, folder / str(turn)),
        }
        times = {
            name: {key: mean(turn[key] for turn in turns) for key in turns[0]}
            for name, turns in in_turns(sides, 2).items()
        }
        few = with_few_steps(path, folder / "few.safetensors")
        peaks = {str(n): fresh("drawing", "peak_of", few, n, folder / f"out-{n}") for n in counts}
    figures = {"n": n, **times, "peak_bytes": peaks}
    found = costs_of_writing(figures)
    kind = "the shipped phantom weights" if path == SHIPPED else "weights trained for a moment"
    note = (
        f"64 x 64, K = {ALTERNATIVES}, gzip, {kind}. Peaks are of fresh processes whose model "
        f"takes {FEW_STEPS} steps from noise to a code, to be quick; the networks are the same."
    )
    return Measured(synthesize_claims(found), figures | found, n, 0, note)


class Replay:
    """Blocks drawn before, as if a generator made them in no time."""

    def __init__(self, generator: Generator, blocks: list[list[Sample]]) -> None:
        self._generator, self._blocks = generator, blocks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator, name)

    def block(self, number: int, **_: Any) -> list[Sample]:
        """One of the kept blocks, under the indices of block ``number``."""
        kept = self._blocks[number % len(self._blocks)]
        start = number * self.block_size
        return [replace(sample, index=start + i) for i, sample in enumerate(kept)]


def overlapping(generator: Generator, n: int, folder: Path) -> dict[str, dict[str, float]]:
    """Wall and processor seconds of generating, of writing, and of both at once."""
    blocks = [generator.block(i, uncertainty=ALTERNATIVES) for i in range(KEPT_BLOCKS)]
    replay = Replay(generator, blocks)
    return {
        "generate_alone": generate_alone(generator, n),
        "write_alone": clocked(lambda: write_too(replay, n, folder / "alone")),
        "both": clocked(lambda: write_too(generator, n, folder / "both")),
    }


def overlap(figures: dict[str, dict[str, float]]) -> dict[str, float]:
    """What follows from the times of *writing*."""
    names = ("generate_alone", "write_alone", "both")
    made, wrote, both = (figures[name]["seconds"] for name in names)
    return {
        "total_over_slower": both / max(made, wrote),
        "total_over_sum": both / (made + wrote),
        "cores_that_writing_alone_uses": figures["write_alone"]["cpu_seconds"] / wrote,
    }


def writing_claims(found: dict[str, float]) -> list[Claim]:
    """The whole against the slower of its parts."""
    what = "generating and writing over the slower of the two alone"
    return [Claim(what, found["total_over_slower"], "<", 1.2, "x")]


def measure_writing(setup: Setup) -> Measured:
    """Whether writing hides behind generating at 128 x 128, or the other way round."""
    cache = phantom_cache(setup.work, LARGE_PATIENTS, LARGE_SEED, CacheSettings(size=LARGE))
    train = {"images": 64 if setup.quick else 640, "batch": 16}  # its speed depends on neither
    config = resolve({"data": {"name": "phantom", "size": LARGE}, "train": train})
    generator = Generator.from_pretrained(fit(config, cache, setup.work / "brief-128").run)
    n = LARGE_SAMPLES if generator.device.type == "cuda" else LARGE_ON_CPU
    n = 48 if setup.quick else n
    with tempfile.TemporaryDirectory(dir=setup.work) as folder:
        figures = overlapping(generator, n, Path(folder))
    found = overlap(figures)
    note = f"{LARGE} x {LARGE}, K = {ALTERNATIVES}, NIfTI with gzip, weights trained for a moment."
    return Measured(writing_claims(found), {**figures, **found}, n, 0, note)


def blocks_of_both(path: str, kept: str, alternatives: int, pairs: int) -> dict[str, Any]:
    """Seconds a block of both, of the first compiled one, and their distance from float32 in HU."""
    os.environ[CACHE] = kept
    plain, compiled, exact = (Generator.from_pretrained(path, "cpu") for _ in range(3))
    exact.precision = "float32"

    def first() -> None:
        compiled.compile()
        compiled.block(0, uncertainty=1)

    first_block = clocked(first)["seconds"]
    plain.block(0, uncertainty=1)

    def block(source: Generator, number: int) -> tuple[float, float]:
        before = time.perf_counter()
        drawn = source.block(number, uncertainty=alternatives)
        seconds = time.perf_counter() - before
        wanted = exact.block(number, uncertainty=0)
        pairs = zip(wanted, drawn, strict=True)
        return seconds, float(
            np.mean([np.abs(a.image - b.image.astype(float)).mean() for a, b in pairs])
        )

    sides = {"plain": plain, "compiled": compiled}
    found = in_turns({k: lambda turn, s=s: block(s, turn) for k, s in sides.items()}, pairs)
    return {
        "first_block_seconds": first_block,
        "block_seconds": {side: [seconds for seconds, _ in told] for side, told in found.items()},
        "precision": plain.precision,
        "mean_error_hu": {
            side: float(np.mean([error for _, error in told])) for side, told in found.items()
        },
        "block_size": plain.block_size,
    }


def gain(found: dict[str, Any]) -> float:
    """The median of the paired ratios."""
    return ratio(*(found["block_seconds"][side] for side in ("plain", "compiled")))


def pays_back_after(found: dict[str, Any]) -> float:
    """Samples whose drawing saves what the first block took; infinite where nothing is saved."""
    plain, compiled = (median(found["block_seconds"][side]) for side in ("plain", "compiled"))
    saved = (plain - compiled) / found["block_size"]
    return found["first_block_seconds"] / saved if saved > 0 else float("inf")


def compiled_claims(cold: dict[str, Any], warm: dict[str, Any]) -> list[Claim]:
    """What the switch promises: it gains, and it pays back within the README's 5000 samples."""
    errors = (1e-3 + cold["mean_error_hu"][side] for side in ("compiled", "plain"))
    farther = next(errors) / next(errors)
    return [
        Claim("drawing, as written over compiled, time", gain(cold), ">=", 1.1, "x"),
        Claim("samples after which compiling has paid back", pays_back_after(cold), "<=", 5000),
        Claim("the same, with what is kept from a run before", pays_back_after(warm), "<=", 500),
        Claim("distance from float32, compiled over as written", farther, "<=", 1.2, "x"),
    ]


def measure_compiled(setup: Setup) -> Measured:
    """Drawing by ``torch.compile``, with nothing kept and with what that left."""
    alternatives, pairs = (1, 2) if setup.quick else (ALTERNATIVES, PAIRS)
    path, kept = weights(setup), setup.work / "compiled"
    shutil.rmtree(kept, ignore_errors=True)
    cold, warm = (
        fresh("drawing", "blocks_of_both", path, kept, alternatives, pairs) for _ in range(2)
    )
    shutil.rmtree(kept)
    note = (
        f"Blocks of {cold['block_size']} samples at 64 x 64 with {alternatives} alternatives, the "
        f"shipped phantom weights, {pairs} pairs in turns; paying back counts compiling and the "
        "first block against what later ones save."
    )
    figures = {"nothing kept": cold, "kept from a run before": warm}
    return Measured(compiled_claims(cold, warm), figures, pairs, 0, note)


def write_slices(cache: SliceCache, folder: Path) -> list[tuple[Path, Path]]:
    """Every training slice of the cache as an image and a label file, one slice thick."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name in cache.split["train"]:
        case = cache.cases[name]
        for z in range(len(case.image)):
            image, label = (folder / f"{name}_{z:03d}_{kind}.nii.gz" for kind in ("image", "label"))
            for path, array in ((image, case.image[z]), (label, case.label[z])):
                if not path.exists():
                    volume = nibabel.Nifti1Image(array.T[:, :, None].copy(), case.affine)
                    nibabel.save(volume, path)
            files.append((image, label))
    return files


def augmentation(ours: list[Any]) -> tio.Compose:
    """A usual augmentation of CT slices, with ``ours`` before it."""
    return tio.Compose(
        [
            *ours,
            tio.RandomAffine(scales=(0.9, 1.1, 0.9, 1.1, 1, 1), degrees=(0, 0, 0, 0, -10, 10)),
            tio.RandomNoise(std=(0, 10)),
            tio.Clamp(-160, 240),
            tio.RescaleIntensity((-1, 1), in_min_max=(-160, 240)),
        ]
    )


def augmented(files: list[tuple[Path, Path]], ours: list[Any], count: int) -> float:
    """Slices a second, from the first batch on, of ``count`` slices in new workers."""
    listed = [files[i % len(files)] for i in range(count)]
    subjects = [tio.Subject(ct=tio.ScalarImage(a), organ=tio.LabelMap(b)) for a, b in listed]
    torch.manual_seed(SEED)
    data = tio.SubjectsDataset(subjects, transform=augmentation(ours))
    batches = iter(tio.SubjectsLoader(data, batch_size=BATCH, num_workers=WORKERS))
    next(batches)
    started = time.perf_counter()
    done = sum(len(batch["ct"]["data"]) for batch in batches)
    return done / (time.perf_counter() - started)


def pipelines(
    files: list[tuple[Path, Path]], bank: Path, count: int, repeats: int
) -> dict[str, list[float]]:
    """Speeds by what is measured, in turns."""

    def side(ours: list[Any]) -> Callable[[int], float]:
        return lambda _: augmented(files, ours, count)

    ours = {f"p = {p:g}": side([RandomSynthesis(bank, p=p)]) for p in PROBABILITIES}
    return in_turns({"without": side([]), **ours}, repeats)


def pipeline_claims(found: dict[str, list[float]]) -> list[Claim]:
    """The median of the paired ratios, for each probability of replacing."""
    what = f"slices a second over the same without, {WORKERS} workers"
    ratios = {name: ratio(speeds, found["without"]) for name, speeds in found.items()}
    del ratios["without"]
    return [Claim(f"{what}, {name}", value, ">=", 0.8, "x") for name, value in ratios.items()]


def measure_pipeline(setup: Setup) -> Measured:
    """A torchio pipeline with our transform, over the same one without it."""
    files = write_slices(phantom_cache(setup.work), setup.work / "slices")
    few, bank = setup.work / "few.safetensors", setup.work / "bank"
    if not few.exists():
        with_few_steps(weights(setup), few)
    synthesize(Generator.from_pretrained(few), BANK, bank, uncertainty=1)
    count = 128 if setup.quick else SLICES
    found = pipelines(files, bank, count, 2 if setup.quick else REPEATS)
    note = (
        f"64 x 64, batch {BATCH}, {WORKERS} workers, {BANK} samples in the bank, new workers each "
        "time; affine, noise, clamp and rescaling follow. Medians of paired ratios, in turns."
    )
    return Measured(pipeline_claims(found), found, count, SEED, note)
