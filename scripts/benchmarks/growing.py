"""What the row `growth` works on: large caches made of phantom slices, and one small generator."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from material import phantom_cache

from medaug.core.config import DataConfig, resolve
from medaug.data.cache.fill import write_case
from medaug.data.cache.prepare import SliceCache
from medaug.data.cache.store import INDEX, fingerprint, read_case, read_index
from medaug.data.feed.feed import Feed
from medaug.runtime.files import write_json
from medaug.training.loop import fit
from medaug.training.run import weights_path

SCAN = 100
"""Slices of each scan."""
NOISE_HU = 12
LEAST = DataConfig().min_label_pixels
MODEL = {"width": 8, "prior": {"width": 16, "steps": 2}}
WISHES = {"model": MODEL, "train": {"batch": 64, "snapshot_every": 10**9}}


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


def small_weights(work: Path) -> Path:
    """A generator of the default kind in small, trained for a moment."""
    wishes = {"data": {"name": "phantom", "size": 64}, "train": {"images": 256}}
    return weights_path(fit(resolve(WISHES, wishes), phantom_cache(work), work / "small").run)


def train(cache: str, run: str, images: str, sign: str) -> None:
    """Train on a cache from the first image to the last; the file ``sign`` appears at the first."""
    drawn, place = Feed.drawn, Path(sign)

    def noted(self: Feed, position: int, *asked: Any) -> Any:
        if not position:
            place.touch()
        return drawn(self, position, *asked)

    slices = SliceCache.open(Path(cache))
    data = {"name": "phantom", "size": slices.settings.size}
    wishes = {"data": data, "train": {"images": int(images)}}
    with patch.object(Feed, "drawn", noted):
        done = fit(resolve(WISHES, wishes), slices, run, device="cpu")
    assert done.images >= int(images)
