"""What the filter refuses: planted bad samples and copies, and unseen real slices.

Built on phantom patients with five labels at 64 px.  The patients it is judged on have a seed of
their own, which no threshold was chosen on.  With MEDAUG_TEST_DATA also on the two real scans,
each judged by a filter that knows the other alone; those figures are held against no bound.
"""

import os
import shutil
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from material import organ_cache
from prepare import unpack
from results import Asked, Claim, asked, report

from medaug.core.config import DataConfig
from medaug.data import open_source
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
from medaug.data.feed.feed import Feed
from medaug.synthesis.filter import Filter, open_filter
from medaug.synthesis.filter.settings import FilterConfig

KNOWN, PATIENTS = 20261122, 16
UNSEEN, STRANGERS = 20261123, 24
EACH = 40
SIZE = 64
SOURCE = (
    "Roth et al. 2016, Data From Pancreas-CT (Version 2), The Cancer Imaging Archive, "
    "doi 10.7937/K9/TCIA.2016.tNB1kqBU, CC BY 3.0."
)

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Slices:
    """HU clipped to the window, as a generator draws it, and label ids, both (n, y, x)."""

    image: Array
    label: Array

    def pick(self, index: Array) -> "Slices":
        """The slices at ``index``."""
        return Slices(self.image[index], self.label[index])


def slices(cache: SliceCache, filter: Filter, data: DataConfig) -> Slices:
    """The training slices of a cache that ``data`` asks for, through the filter's codec."""
    plain = data.model_copy(update={"augment": None})
    feed = Feed(cache, plain, filter.codec, seed=0, device=torch.device("cpu"))
    assert feed.label_maps is not None
    low, high = filter.codec.window_hu
    return Slices(feed.images.numpy().clip(low, high), feed.label_maps.numpy())


def outside(real: Slices, air: float) -> Array:
    """The masks moved to where there is most air under them, away from their own place."""
    moved = []
    for image, label in zip(real.image, real.label, strict=True):
        h, w = label.shape
        views = [np.roll(label, (y, x), (0, 1)) for y in range(0, h, 4) for x in range(0, w, 4)]
        moved.append(max(views, key=lambda view: float((image[view > 0] <= air).mean())))
    return np.stack(moved)


def planted(base: Slices, train: Slices, window: tuple[float, float], seed: int) -> dict[str, Any]:
    """Bad samples by kind: the reason that should be given, and the slices.

    HU is off by 100, up or down, in the whole slice or under the mask alone, a quarter each; noise
    has a standard deviation of 40 to 120 HU on a real slice, or is all there is (a quarter).
    """
    rng = np.random.default_rng(seed)
    low, high = window
    parts = {}
    order = np.resize(rng.permutation(len(base.image)), 4 * EACH)
    for place, kind in enumerate(("empty", "outside_body", "hu", "noise")):
        parts[kind] = base.pick(order[place * EACH : (place + 1) * EACH])
    parts["copy"] = train.pick(np.resize(rng.permutation(len(train.image)), EACH))
    hu, noise = parts["hu"], parts["noise"]
    n = len(hu.image)
    sign = np.where(np.arange(n) % 2, 100, -100)[:, None, None]
    where = np.where((np.arange(n) // 2 % 2 == 0)[:, None, None], 1, hu.label > 0)
    spread = rng.uniform(40, 120, (n, 1, 1))
    grain = noise.image + rng.normal(0, 1, noise.image.shape) * spread
    grain[::4] = rng.uniform(low, high, grain[::4].shape)
    return {
        "empty": Slices(parts["empty"].image, np.zeros_like(parts["empty"].label)),
        "outside_body": Slices(
            parts["outside_body"].image, outside(parts["outside_body"], low)
        ),
        "hu": Slices((hu.image + sign * where).clip(low, high), hu.label),
        "noise": Slices(grain.clip(low, high).round(), noise.label),
        "copy": parts["copy"],
    }  # fmt: skip


def tried(filter: Filter, train: Slices, unseen: Slices, real: int, seed: int) -> dict[str, Any]:
    """Verdicts on planted samples by kind, and on ``real`` unseen slices."""
    rng = np.random.default_rng(seed)
    chosen = unseen.pick(np.sort(rng.permutation(len(unseen.image))[:real]))
    started = time.monotonic()
    verdicts = filter.judge(chosen.image, chosen.label)
    each = (time.monotonic() - started) / len(verdicts)
    kinds = {
        kind: Counter(filter.judge(some.image, some.label))
        for kind, some in planted(unseen, train, filter.codec.window_hu, seed + 1).items()
    }
    return {
        "planted": {kind: dict(sorted(found.items())) for kind, found in kinds.items()},
        "right": sum(found[kind] for kind, found in kinds.items()),
        "refused": sum(n for found in kinds.values() for why, n in found.items() if why),
        "unseen": dict(sorted(Counter(verdicts).items())),
        "unseen_refused": sum(1 for why in verdicts if why),
        "unseen_slices": len(verdicts),
        "judge_ms": 1000 * each,
    }


def build(
    where: Path, cache: SliceCache, data: DataConfig, config: FilterConfig
) -> tuple[Filter, float]:
    """A filter made anew, and the seconds that took."""
    where.unlink(missing_ok=True)
    started = time.monotonic()
    return open_filter(where, config, cache=cache, data=data), time.monotonic() - started


def real_scans(how: Asked, data: Path, config: FilterConfig) -> dict[str, Any]:
    """Each of the two real scans judged by a filter that was built on the other."""
    work = how.work / "filter-real"
    shutil.rmtree(work, ignore_errors=True)
    _, both = unpack(data / "pancreas-ct", work / "scans")
    settings = CacheSettings(size=SIZE, fov_mm=360, holdout=0)
    prepare(open_source("pancreas", both), work / "cache", settings)
    whole = SliceCache.open(work / "cache")
    asked_for = DataConfig(size=SIZE, fov_mm=360, min_label_pixels=10)
    found = {}
    for known, other in (sorted(whole.cases), sorted(whole.cases, reverse=True)):
        alone = _only(whole, known)
        filter, seconds = build(work / f"{known}.safetensors", alone, asked_for, config)
        train, unseen = (
            slices(_only(whole, name), filter, asked_for) for name in (known, other)
        )  # fmt: skip
        found[f"built on {known}, judging {other}"] = {
            **tried(filter, train, unseen, 200, seed=1),
            "training_slices": len(train.image),
            "build_seconds": seconds,
        }
    return found


def _only(cache: SliceCache, name: str) -> SliceCache:
    """The cache with one scan alone."""
    return replace(
        cache,
        cases={name: cache.cases[name]},
        split={"train": [name], "heldout": []},
        fingerprint=cache.cases[name].digest,
    )


def main() -> int:
    """Measure and report."""
    how = asked()
    settings = CacheSettings(size=SIZE, holdout=0)
    config = FilterConfig(segmenter_images=300) if how.quick else FilterConfig()
    data = DataConfig(size=SIZE)
    known = organ_cache(how.work, 4 if how.quick else PATIENTS, KNOWN, settings)
    filter, seconds = build(how.work / "filter.safetensors", known, data, config)
    train = slices(known, filter, data)
    strangers = organ_cache(how.work, 6 if how.quick else STRANGERS, UNSEEN, settings)
    unseen = slices(strangers, filter, data)
    result = tried(filter, train, unseen, 200, seed=0)
    everyone = filter.judge(unseen.image, unseen.label)
    figures = {
        "phantom": {
            **result,
            "build_seconds": seconds,
            "training_slices": len(train.image),
            "patients": [4, 6] if how.quick else [PATIENTS, STRANGERS],
            "patients_seeds": [KNOWN, UNSEEN],
            "labels": list(filter.labels),
            "all_unseen": dict(sorted(Counter(everyone).items())),
        },
        "settings": config.model_dump(mode="json"),
    }
    if root := os.environ.get("MEDAUG_TEST_DATA"):
        figures["real"] = {**real_scans(how, Path(root), config), "source": SOURCE}
    right, wrong = result["right"], result["unseen_refused"]
    claims = [
        Claim("planted bad samples refused for the right reason, of 200", right, ">=", 195),
        Claim("unseen real slices refused, of 200", wrong, "<=", 10),
    ]
    note = (
        "Phantom patients of a seed of their own; planted samples are made of their slices, copies "
        "of the training slices. The two real scans are each judged by a filter built on the other."
    )
    return report(how, "filter", claims, figures, n=5 * EACH, seed=0, note=note)


if __name__ == "__main__":
    sys.exit(main())
