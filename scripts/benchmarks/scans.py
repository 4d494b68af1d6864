"""Scans into the cache, and slices out of it: time, memory, and what a kill leaves.

*prepare*: a real 512 x 512 x 240 scan, against SimpleITK reading the same files.  Both read from a
warm page cache and in turns, best of three; ``prepare`` finds and checks the scan, reads,
resamples, writes and syncs.

*preparing*: the command runs on 10, 20, 40 and 80 phantom patients in the layout of Pancreas-CT,
with two workers, as a user would type it.  Then it is killed, workers and all, at moments drawn
over its whole duration, and called again each time: every file of the finished cache must have the
bytes of one that was not interrupted.

*access*: slices a second in random order, of the two real scans, from the cache and from MONAI's
data sets, set up as their documentation has it.  ``PersistentDataset`` keeps whole volumes on disk,
and ``RandSpatialCropd`` takes one slice of the volume it loads.  ``GridPatchDataset`` walks over
such volumes with ``PatchIterd``, slice by slice, and ``ShuffleBuffer`` mixes what comes; it has no
random access.  Both keep what ``prepare`` makes of a scan, int16 and uint8, 128 x 128 pixels, so
neither reads DICOM nor resamples here, and all hand out the same float32 and uint8 tensors
[1, y, x], which is checked.  All take turns, in batches, from a warm page cache, timed from the
first batch on, so that starting workers does not count.

*real*: the whole road on the two real scans: train shortly from the shipped phantom weights, write
200 samples, read back with SimpleITK.  Two patients prove that the road is passable, not that the
model generalises: the masks are compared with the scans it was trained on.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from material import CASE, SHAPE, SOURCE, SPACING_MM, pancreas_ct, unpack
from monai import data as md
from monai import transforms as mt
from processes import fresh, medaug, peak_bytes, watch
from results import ROOT, Claim, Measured, Setup
from timing import clocked, in_turns, ratio
from torch.utils.data import RandomSampler

from medaug.cli.demonstration import SHIPPED
from medaug.core.types import Case
from medaug.data import SliceDataset, open_source
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
from medaug.data.cache.slicing import cut
from medaug.data.cache.store import read_index
from medaug.data.sources.pancreas import PancreasCT
from medaug.data.sources.phantom.source import Phantom, Shape, Spacing
from medaug.evaluation.metrics.mask_shapes import MaskSummary, real_masks, summary
from medaug.synthesis.generator import Generator
from medaug.synthesis.synthesize import synthesize
from medaug.training.workflow import train

ROTH = "Pancreas-CT (Roth et al. 2016, doi 10.7937/K9/TCIA.2016.tNB1kqBU, CC BY 3.0)"
BEST_OF = 3
COUNTS, KILLS, KILLED, SEED = (10, 20, 40, 80), 50, 10, 20261210
EVERY_S = 0.03
SETTINGS = CacheSettings(size=64)
BATCH, ACCESS_SEED, WORKERS, BUFFER = 64, 0, (0, 2), 30
KEYS = ["image", "label"]
OURS, PERSISTENT, GRID = "SliceDataset", "PersistentDataset", "GridPatchDataset"
WHOLE = "SliceDataset with case, number and affine"
IN_MEMORY = "GridPatchDataset of a CacheDataset"
REAL_SAMPLES, REAL_IMAGES = 200, 60_000
REAL_CONFIG: dict[str, Any] = {
    "data": {
        "size": 64,
        "fov_mm": 360,
        "min_label_pixels": 10,
        "augment": {"rotate": 0.1, "scale": 0.1, "shift": 0.04, "elastic": 0.02},
    },
    "model": {"phases": [0.35, 0.65]},
    "train": {"batch": 32, "snapshot_every": 10_000, "ema_half_life": 3000},
}

Loader = Callable[[int, int], Iterable[dict[str, Any]]]
"""Makes a loader of at least so many slices with so many workers."""


def read_with_simpleitk(one: Path) -> tuple[int, ...]:
    """Read series and label as SimpleITK's own example does; returns the size."""
    series = next((one / CASE).rglob("*.dcm")).parent
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series)))
    image = reader.Execute()
    label = sitk.ReadImage(str(one / "label0001.nii.gz"))
    assert image.GetSize() == label.GetSize()
    return tuple(image.GetSize())


def slice_it(source: Path, cache: Path) -> None:
    """Prepare the scans in ``source`` in this process, as the default config slices them."""
    done = prepare(open_source(str(source)), cache, CacheSettings(), workers=0)
    assert done.done
    assert not done.failed


def peak_of(source: str, cache: str) -> int:
    """The peak memory of a process that prepares ``source``."""
    slice_it(Path(source), Path(cache))
    return peak_bytes()


def seconds(work: Callable[[], object]) -> float:
    """How long ``work`` takes."""
    return clocked(work)["seconds"]


def against_simpleitk(one: Path, both: Path, caches: Path, repeats: int) -> dict[str, Any]:
    """All times and the peak of *prepare*."""
    size = read_with_simpleitk(one)  # warms the page cache and SimpleITK
    slice_it(one, caches / "warm")
    times: dict[str, list[float]] = {"simpleitk_seconds": [], "prepare_seconds": []}
    for i in range(repeats):
        times["simpleitk_seconds"].append(seconds(partial(read_with_simpleitk, one)))
        times["prepare_seconds"].append(seconds(partial(slice_it, one, caches / f"one-{i}")))
    command = [ROOT / ".venv" / "bin" / "medaug", "prepare", both, "--workers", "2"]
    command += ["--cache", caches / "both"]
    together = seconds(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
    return {
        "size": size,
        **times,
        "both_scans_two_workers_seconds_with_start": together,
        "peak_bytes": fresh("scans", "peak_of", one, caches / "peak"),
    }


def prepare_claims(figures: dict[str, Any]) -> list[Claim]:
    """The ratio of the best times, and the peak."""
    best = min(figures["prepare_seconds"]) / min(figures["simpleitk_seconds"])
    return [
        Claim("time over SimpleITK reading series and label", best, "<", 5, "x"),
        Claim("peak memory of a worker", figures["peak_bytes"] / 1e9, "<", 1.5, "GB"),
    ]


def measure_prepare(setup: Setup) -> Measured:
    """What it costs to slice a real scan."""
    data = pancreas_ct("prepare")
    with tempfile.TemporaryDirectory(dir=setup.work) as folder:
        root = Path(folder)
        one, both = unpack(data, root)
        figures = against_simpleitk(one, both, root / "caches", 1 if setup.quick else BEST_OF)
    note = (
        f"{CASE} of {ROTH}, from $MEDAUG_TEST_DATA. The time of both scans includes starting "
        "Python and two workers."
    )
    return Measured(prepare_claims(figures), figures, 1, None, note)


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


def watched(scans: Path, cache: Path) -> dict[str, float]:
    """``medaug prepare`` with two workers into a new cache, seen from outside."""
    shutil.rmtree(cache, ignore_errors=True)
    words = ("prepare", scans, "--cache", cache, "--size", SETTINGS.size, "--workers", 2)
    begun = (cache / "cases").glob
    return watch(medaug(*words), lambda: any(begun("PANCREAS_*")), EVERY_S)


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
    whole, durations, found = contents(scratch / "whole"), [], []
    for _ in range(3):
        durations.append(seconds(lambda: killed(scans, scratch / "timed", 600)))
        shutil.rmtree(scratch / "timed")
    for number, part in enumerate(np.random.default_rng(SEED).uniform(0, 1, kills)):
        cache = scratch / f"cut-{number}"
        came = killed(scans, cache, float(part) * min(durations))
        prepare(PancreasCT(scans), cache, SETTINGS, workers=0)
        found.append({**came, "same": contents(cache) == whole})
        shutil.rmtree(cache)
    return found


def further(sizes: Sequence[int], times: Sequence[float]) -> float:
    """Seconds for one more scan among the larger half of scans, over those before it."""
    (first, *_, half, last), (fast, *_, middle, slow) = sizes, times
    return ((slow - middle) / (last - half)) / ((middle - fast) / (half - first))


def preparing_claims(figures: dict[str, Any]) -> list[Claim]:
    """Linear time, flat memory, and nothing lost to a kill."""
    runs, kills = figures["runs"], figures["kills"]
    sizes = sorted(int(n) for n in runs)
    few, many, all_of_them = sizes[0], sizes[-2], sizes[-1]
    best = [min(run["seconds"] for run in runs[str(n)]) for n in sizes]
    peaks = [min(run["peak_bytes"] for run in runs[str(n)]) for n in sizes]
    differing = sum(not kill["same"] for kill in kills)
    midway = 100 * sum(not kill["complete"] for kill in kills) / len(kills)
    time = f"time of a further scan, from {many} to {all_of_them} over from {few} to {many}"
    memory = f"peak memory of all processes, {all_of_them} scans over {few}"
    return [
        Claim(time, further(sizes, best), "<=", 1.2, "x"),
        Claim(memory, peaks[-1] / peaks[0], "<=", 1.1, "x"),
        Claim(f"caches that differ after one of {len(kills)} kills", differing, "<=", 0),
        Claim("kills that came before the end", midway, ">=", 80, "%"),
    ]


def measure_preparing(setup: Setup) -> Measured:
    """What `prepare` costs as scans are added, and what is left of it when it is killed."""
    sizes, kills, repeats = ((2, 4, 8, 16), 5, 1) if setup.quick else (COUNTS, KILLS, BEST_OF)
    work = setup.work / "preparing"
    folders = {n: people(work, n) for n in sizes}
    runs: dict[str, list[dict[str, float]]] = {str(n): [] for n in sizes}
    for _ in range(repeats):
        for n, folder in folders.items():
            found = watched(folder, work / "cache")
            runs[str(n)].append({key: found[key] for key in ("seconds", "peak_bytes")})
    scratch = work / "kills"
    shutil.rmtree(scratch, ignore_errors=True)
    few = folders[sizes[1]] if setup.quick else people(work, KILLED)
    figures = {"runs": runs, "kills": interrupted(few, scratch, kills)}
    shutil.rmtree(scratch)
    note = (
        f"Phantoms of {' x '.join(map(str, SHAPE))} voxels, slices of {SETTINGS.size} pixels, two "
        f"workers, best of {repeats}; the time includes starting Python. Killed with SIGKILL, the "
        "whole process group, at moments drawn evenly over the duration of an undisturbed run."
    )
    return Measured(preparing_claims(figures), figures, max(sizes), SEED, note)


class CutScan(mt.Transform):
    """A case as the volumes (1, x, y, z) that ``prepare`` makes of it, by its id."""

    def __init__(self, cases: list[Case], cache: SliceCache) -> None:
        self.cases, self.labels = {case.id: case for case in cases}, cache.labels
        settings = cache.settings
        assert settings.size is not None
        self.how = settings.size, settings.fov_mm, settings.center

    def __call__(self, data: dict[str, str]) -> dict[str, Any]:
        """Cut the case whose ``id`` is in ``data``."""
        found = cut(self.cases[data["id"]], self.labels, *self.how)
        volumes = {"image": found.image, "label": found.labels}
        return {
            key: md.MetaTensor(torch.from_numpy(volume.transpose(2, 1, 0).copy())[None])
            for key, volume in volumes.items()
            if volume is not None
        }


def as_slices() -> list[Any]:
    """From (1, x, y, 1) to what `SliceDataset` hands out."""
    slices = [mt.SqueezeDimd(KEYS, dim=-1), mt.Transposed(KEYS, (0, 2, 1))]
    return [*slices, mt.CastToTyped(KEYS, (torch.float32, torch.uint8))]


def loaders(cache: SliceCache, cases: list[Case], scratch: Path) -> dict[str, Loader]:
    """What makes a loader of each kind."""
    volume = mt.Compose([CutScan(cases, cache)])
    files = [{"id": case.id} for case in cases]
    one = mt.RandSpatialCropd(KEYS, (-1, -1, 1), random_size=False)
    slices = mt.Compose([*volume.transforms, one, *as_slices()])
    ours = SliceDataset(cache, "all", transform=mt.SelectItemsd(KEYS))
    epoch = len(ours)

    def random(data: Any) -> Loader:
        def load(count: int, workers: int) -> Iterable[dict[str, Any]]:
            sampler = RandomSampler(data, replacement=True, num_samples=count)
            return md.DataLoader(data, batch_size=BATCH, sampler=sampler, num_workers=workers)

        return load

    def walked(volumes: Any) -> Loader:
        def load(count: int, workers: int) -> Iterable[dict[str, Any]]:
            each = md.PatchIterd(KEYS, patch_size=(None, None, 1), start_pos=(0, 0, 0))
            change = mt.Compose(as_slices())
            patches = md.GridPatchDataset(volumes, each, change, with_coordinates=False)
            epochs = -(-count // epoch)
            mixed = md.ShuffleBuffer(patches, buffer_size=BUFFER, seed=ACCESS_SEED, epochs=epochs)
            return md.DataLoader(mixed, batch_size=BATCH, num_workers=workers)

        return load

    return {
        OURS: random(ours),
        WHOLE: random(SliceDataset(cache, "all")),
        PERSISTENT: random(md.PersistentDataset(files, slices, scratch / "drawn")),
        GRID: walked(md.PersistentDataset(files, volume, scratch / "kept")),
        IN_MEMORY: walked(md.CacheDataset(files, volume, progress=False)),
    }


def agree(cache: SliceCache, ways: dict[str, Loader]) -> None:
    """Check that every way hands out slices of the cache, to the last bit.

    Raises:
        AssertionError: one does not.
    """
    known = {_bytes(item["image"], item["label"]) for item in SliceDataset(cache, "all")}
    for name, load in ways.items():
        seen = 0
        for batch in load(2 * BATCH, 0):
            for image, label in zip(batch["image"], batch["label"], strict=True):
                assert (image.dtype, label.dtype) == (torch.float32, torch.uint8), name
                assert _bytes(image, label) in known, f"{name}: another slice"
                seen += 1
        assert seen >= 2 * BATCH, name


def _bytes(image: torch.Tensor, label: torch.Tensor) -> bytes:
    return np.asarray(image).tobytes() + np.asarray(label).tobytes()


def speeds(ways: dict[str, Loader], counts: dict[str, int], repeats: int) -> dict[str, list[float]]:
    """Slices a second from the first batch on, by way and workers, in turns."""

    def side(load: Loader, count: int, workers: int) -> Callable[[int], float]:
        def speed(turn: int) -> float:
            torch.manual_seed(ACCESS_SEED + turn)
            batches = iter(load(count, workers))
            next(batches)
            started = time.perf_counter()
            done = sum(len(batch["image"]) for batch in batches)
            return done / (time.perf_counter() - started)

        return speed

    sides = {
        _name(way, workers): side(load, counts[way], workers)
        for way, load in ways.items()
        for workers in WORKERS
    }
    return in_turns(sides, repeats)


def _name(way: str, workers: int) -> str:
    return f"{way}, {workers} workers"


def access_claims(found: dict[str, list[float]]) -> list[Claim]:
    """The median of the paired ratios to each rival."""
    claims = []
    for rival in (PERSISTENT, GRID):
        for workers in WORKERS:
            times = ratio(found[_name(OURS, workers)], found[_name(rival, workers)])
            what = f"random slices a second over {_name(rival, workers)}"
            claims.append(Claim(what, times, ">=", 20, "x"))
    return claims


def measure_access(setup: Setup) -> Measured:
    """Random slices from the cache against MONAI's data sets."""
    data = pancreas_ct("access")
    with tempfile.TemporaryDirectory(dir=setup.work) as folder:
        root = Path(folder)
        _, both = unpack(data, root)
        source = open_source("pancreas", both)
        assert source.kind == "ct"
        prepare(source, root / "cache", CacheSettings(holdout=0), workers=0)
        cache = SliceCache.open(root / "cache")
        ways = loaders(cache, source.cases()[0], root)
        agree(cache, ways)  # warms the page cache, and has the rivals keep their volumes
        counts = dict.fromkeys(ways, 512 if setup.quick else 4096)
        counts |= dict.fromkeys((OURS, WHOLE), 16 * counts[OURS])
        found = speeds(ways, counts, 1 if setup.quick else 5)
    note = (
        f"The two scans of {ROTH}, {sum(len(case.image) for case in cache.cases.values())} slices "
        f"of 128 x 128 pixels with labels, batches of {BATCH}, warm page cache. All hand out image "
        "and label; what SliceDataset tells beside them is in the figures. The rivals keep volumes "
        "on disk that are cut to this size already; GridPatchDataset comes in order, mixed by a "
        f"ShuffleBuffer of {BUFFER}. Of a CacheDataset, which keeps all volumes in memory, it is "
        "in the figures. Medians of paired ratios, in turns."
    )
    return Measured(access_claims(found), found, counts[OURS], ACCESS_SEED, note)


def read_back(folder: Path, label: int) -> tuple[MaskSummary, int]:
    """The masks as another library reads them, and how many pairs are out of register."""
    pairs, apart, pixel = [], 0, 0.0
    for path in sorted((folder / "labelsTr").glob("*.nii.gz")):
        mask = sitk.ReadImage(str(path))
        name = path.name.replace(".nii.gz", "_0000.nii.gz")
        image = sitk.ReadImage(str(folder / "imagesTr" / name))
        same = (
            image.GetSize() == mask.GetSize()
            and np.allclose(image.GetSpacing(), mask.GetSpacing())
            and np.allclose(image.GetOrigin(), mask.GetOrigin())
            and np.allclose(image.GetDirection(), mask.GetDirection())
        )
        apart += not same
        pixel = mask.GetSpacing()[0] * mask.GetSpacing()[1]
        pairs.append((sitk.GetArrayFromImage(image)[0], sitk.GetArrayFromImage(mask)[0]))
    return summary(pairs, label, pixel), apart


def measure_real(setup: Setup) -> Measured:
    """The real scans from archive to samples."""
    data = pancreas_ct("real")
    work = setup.work / "real"
    shutil.rmtree(work, ignore_errors=True)
    _, both = unpack(data, work / "scans")
    images = 1200 if setup.quick else REAL_IMAGES
    config = {**REAL_CONFIG, "train": {**REAL_CONFIG["train"], "images": images}}
    _, trained = train(
        "pancreas", config, root=both, cache=work / "cache", run=work / "run", init=SHIPPED
    )
    generator = Generator.from_pretrained(trained.run)
    n = 16 if setup.quick else REAL_SAMPLES
    synthesize(generator, n, work / "synthetic")
    setup.results.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(work / "synthetic" / "preview.png", setup.results / "real.png")
    label = generator.labels["pancreas"]
    synthetic, apart = read_back(work / "synthetic", label)
    data_config, cache = generator.settings.data, SliceCache.open(work / "cache")
    least = data_config.min_label_pixels
    real = real_masks(cache, label, data_config.window_hu, "train", least)
    figures = {
        "real": asdict(real),
        "synthetic": asdict(synthetic),
        "images_trained": trained.images,
        "train_seconds": trained.seconds,
        "source": f"{SOURCE}; the slices shown are synthetic.",
    }
    claims = [Claim("pairs out of register, read by SimpleITK", apart, "<=", 0)]
    note = "Picture: real.png. Compared with the two scans trained on; see the file's docstring."
    return Measured(claims, figures, n, 0, note)
