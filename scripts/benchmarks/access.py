"""Slices a second in random order, of the two real scans: from the cache, from MONAI's data sets.

The rivals are set up as their documentation has it.  ``PersistentDataset`` keeps whole volumes on
disk, and ``RandSpatialCropd`` takes one slice of the volume it loads.  ``GridPatchDataset`` walks
over such volumes with ``PatchIterd``, slice by slice, and ``ShuffleBuffer`` mixes what comes; it
has no random access.  Both keep what ``prepare`` makes of a scan, int16 and uint8, 128 x 128
pixels, so neither reads DICOM nor resamples here, and all hand out the same float32 and uint8
tensors [1, y, x], which is checked.

All run in turns in this process, in batches, from a warm page cache; what is timed begins with the
first batch, so starting workers does not count.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from monai.data import (
    CacheDataset,
    DataLoader,
    GridPatchDataset,
    MetaTensor,
    PatchIterd,
    PersistentDataset,
    ShuffleBuffer,
)
from monai.transforms import (
    CastToTyped,
    Compose,
    RandSpatialCropd,
    SelectItemsd,
    SqueezeDimd,
    Transform,
    Transposed,
)
from prepare import pancreas_ct, unpack
from results import Claim, asked, report
from torch.utils.data import RandomSampler

from medaug.core.types import Case
from medaug.data import SliceDataset, open_source
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
from medaug.data.cache.slicing import cut

BATCH, SEED, WORKERS, BUFFER = 64, 0, (0, 2), 30
KEYS = ["image", "label"]
OURS, PERSISTENT, GRID = "SliceDataset", "PersistentDataset", "GridPatchDataset"
WHOLE = "SliceDataset with case, number and affine"
IN_MEMORY = "GridPatchDataset of a CacheDataset"
CLAIMED = (PERSISTENT, GRID)

Loaders = dict[str, Callable[[int, int], Iterable[dict[str, Any]]]]


class CutScan(Transform):
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
            key: MetaTensor(torch.from_numpy(volume.transpose(2, 1, 0).copy())[None])
            for key, volume in volumes.items()
            if volume is not None
        }


def as_slices() -> list[Any]:
    """From (1, x, y, 1) to what `SliceDataset` hands out."""
    types = (torch.float32, torch.uint8)
    return [SqueezeDimd(KEYS, dim=-1), Transposed(KEYS, (0, 2, 1)), CastToTyped(KEYS, types)]


def loaders(cache: SliceCache, cases: list[Case], scratch: Path) -> Loaders:
    """By name, what makes a loader of at least so many slices with so many workers."""
    volume = Compose([CutScan(cases, cache)])
    files = [{"id": case.id} for case in cases]
    one = RandSpatialCropd(KEYS, (-1, -1, 1), random_size=False)
    drawn = PersistentDataset(
        files, Compose([*volume.transforms, one, *as_slices()]), scratch / "drawn"
    )
    kept = PersistentDataset(files, volume, scratch / "kept")
    held = CacheDataset(files, volume, progress=False)
    ours = SliceDataset(cache, "all", transform=SelectItemsd(KEYS))
    epoch = len(ours)

    def random(data: Any) -> Callable[[int, int], Iterable[dict[str, Any]]]:
        def load(count: int, workers: int) -> Iterable[dict[str, Any]]:
            sampler = RandomSampler(data, replacement=True, num_samples=count)
            return DataLoader(data, batch_size=BATCH, sampler=sampler, num_workers=workers)

        return load

    def walked(volumes: Any) -> Callable[[int, int], Iterable[dict[str, Any]]]:
        def load(count: int, workers: int) -> Iterable[dict[str, Any]]:
            each = PatchIterd(KEYS, patch_size=(None, None, 1), start_pos=(0, 0, 0))
            patches = GridPatchDataset(
                volumes, each, transform=Compose(as_slices()), with_coordinates=False
            )
            mixed = ShuffleBuffer(patches, buffer_size=BUFFER, seed=SEED, epochs=-(-count // epoch))
            return DataLoader(mixed, batch_size=BATCH, num_workers=workers)

        return load

    return {
        OURS: random(ours),
        WHOLE: random(SliceDataset(cache, "all")),
        PERSISTENT: random(drawn),
        GRID: walked(kept),
        IN_MEMORY: walked(held),
    }


def agree(cache: SliceCache, ways: Loaders) -> None:
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


def speed(loader: Iterable[dict[str, Any]]) -> float:
    """Slices a second from the first batch on."""
    batches = iter(loader)
    next(batches)
    started, done = time.perf_counter(), 0
    for batch in batches:
        done += len(batch["image"])
    return done / (time.perf_counter() - started)


def measure(ways: Loaders, counts: dict[str, int], repeats: int) -> dict[str, list[float]]:
    """Speeds by way and workers, in turns; every other turn runs backwards."""
    asked_for = [(name, workers) for name in ways for workers in WORKERS]
    told: dict[str, list[float]] = {_name(*one): [] for one in asked_for}
    for turn in range(repeats):
        for name, workers in asked_for[:: 1 if turn % 2 == 0 else -1]:
            torch.manual_seed(SEED + turn)
            told[_name(name, workers)].append(speed(ways[name](counts[name], workers)))
    return told


def _name(way: str, workers: int) -> str:
    return f"{way}, {workers} workers"


def claims(told: dict[str, list[float]]) -> list[Claim]:
    """The median of the paired ratios to each rival."""
    return [
        Claim(
            f"random slices a second over {rival}, {workers} workers",
            median(
                a / b
                for a, b in zip(
                    told[_name(OURS, workers)], told[_name(rival, workers)], strict=True
                )
            ),
            ">=",
            20,
            "x",
        )
        for rival in CLAIMED
        for workers in WORKERS
    ]


def main() -> int:
    """Measure and report."""
    how = asked()
    data = pancreas_ct("access")
    with tempfile.TemporaryDirectory(dir=how.work) as folder:
        root = Path(folder)
        _, both = unpack(data, root)
        source = open_source("pancreas", both)
        assert source.kind == "ct"
        prepare(source, root / "cache", CacheSettings(holdout=0), workers=0)
        cache = SliceCache.open(root / "cache")
        ways = loaders(cache, source.cases()[0], root)
        agree(cache, ways)  # warms the page cache, and has the rivals keep their volumes
        counts = dict.fromkeys(ways, 512 if how.quick else 4096)
        counts |= dict.fromkeys((OURS, WHOLE), 16 * counts[OURS])
        told = measure(ways, counts, 1 if how.quick else 5)
    note = (
        f"The two scans of Pancreas-CT (Roth et al. 2016, doi 10.7937/K9/TCIA.2016.tNB1kqBU, CC BY "
        f"3.0), {sum(len(case.image) for case in cache.cases.values())} slices of 128 x 128 pixels "
        f"with labels, batches of {BATCH}, warm page cache. All hand out image and label; what "
        "SliceDataset tells beside them is in the figures. The rivals keep volumes on disk that "
        f"are cut to this size already; GridPatchDataset comes in order, mixed by a ShuffleBuffer "
        f"of {BUFFER}. Of a CacheDataset, which keeps all volumes in memory, it is in the figures. "
        "Medians of paired ratios, in turns."
    )
    return report(how, "access", claims(told), told, n=counts[OURS], seed=SEED, note=note)


if __name__ == "__main__":
    sys.exit(main())
