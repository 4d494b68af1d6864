"""Layout mode on phantom patients: HU under each given label, and whether a segmenter finds it.

The generator learns from some patients, the segmenter from others, and both are held against a
third group.  Masks are those of the generator's patients under random deformation.
"""

import sys
from typing import Any

import numpy as np
import torch
from filter import PATIENTS, SIZE, STRANGERS, UNSEEN
from material import organ_cache
from results import Asked, Claim, asked, report

from medaug.core.codec import CTCodec
from medaug.core.config import Config, DataConfig, resolve
from medaug.data.cache.prepare import CacheSettings, SliceCache
from medaug.data.feed.feed import Feed, codec_for
from medaug.runtime.pictures import grid
from medaug.synthesis.generator import Generator
from medaug.training.loop import fit
from medaug.training.segmenter import Segmenter, dice, train_on

TEACHERS = 20261124
"""Seed of the patients that the segmenter learns from."""
LEARNED, LEARNED_PATIENTS = 20261125, 32
"""Those the generator learns from: so many, that their own medians are near those of others."""
IMAGES = 120_000
SAMPLES = 480
SEGMENTED = 12_000
LEAST_PIXELS = 10


def config(quick: bool) -> Config:
    """The run: the default model given its masks, at 64 pixels."""
    images = 1500 if quick else IMAGES
    train = {"images": images, "batch": 32, "snapshot_every": images // 4, "ema_half_life": 2000}
    data = {"size": SIZE, "masks": "layout", "augment": {"shift": 0.04}}
    return resolve({"data": data, "train": train})


def slices(cache: SliceCache) -> tuple[np.ndarray, np.ndarray, CTCodec]:
    """Images and label maps (n, y, x) of all slices that show a label, and their codec."""
    data = DataConfig(size=SIZE, augment=None)
    codec = codec_for(cache, data)
    assert isinstance(codec, CTCodec)
    feed = Feed(cache, data, codec, seed=0, device=torch.device("cpu"))
    assert feed.label_maps is not None
    low, high = codec.window_hu
    return feed.images.numpy().clip(low, high), feed.label_maps.numpy(), codec


def found_back(segmenter: Segmenter, images: np.ndarray, labels: np.ndarray) -> list[float]:
    """Mean Dice of each label over the slices that show at least a few pixels of it."""
    ids = list(segmenter.codec.labels.values())
    scores = dice(segmenter.predict(images, batch=16), labels, ids)
    shown = np.stack([(labels == number).sum((1, 2)) >= LEAST_PIXELS for number in ids], 1)
    return [float(scores[shown[:, k], k].mean()) for k in range(len(ids))]


def under(images: np.ndarray, labels: np.ndarray, ids: list[int]) -> list[float]:
    """Median HU under each label."""
    return [float(np.median(images[labels == number])) for number in ids]


def main() -> int:
    """Measure and report."""
    how: Asked = asked()
    few = how.quick
    settings = CacheSettings(size=SIZE, holdout=0)
    known = organ_cache(how.work, 4 if few else LEARNED_PATIENTS, LEARNED, settings)
    run = how.work / "layout-run"
    trained = fit(config(few), known, run)
    generator = Generator.from_pretrained(run)
    n = 32 if few else SAMPLES
    samples = list(generator.generate(n, uncertainty=0))
    images = np.stack([s.image for s in samples])
    labels = np.stack([s.label for s in samples if s.label is not None])
    teachers = organ_cache(how.work, 4 if few else PATIENTS, TEACHERS, settings)
    plain = DataConfig(size=SIZE)
    taught = Feed(teachers, plain, codec_for(teachers, plain), seed=0, device=torch.device("cpu"))
    segmenter = train_on(taught, count=400 if few else SEGMENTED)
    strangers = organ_cache(how.work, 6 if few else STRANGERS, UNSEEN, settings)
    real, marks, codec = slices(strangers)
    names, ids = list(codec.labels), list(codec.labels.values())
    hu = {
        "synthetic": dict(zip(names, under(images, labels, ids), strict=True)),
        "unseen": dict(zip(names, under(real, marks, ids), strict=True)),
    }
    scores = {
        "synthetic": dict(zip(names, found_back(segmenter, images, labels), strict=True)),
        "unseen": dict(zip(names, found_back(segmenter, real, marks), strict=True)),
    }
    off = max(abs(hu["synthetic"][name] - hu["unseen"][name]) for name in names)
    means = {which: float(np.mean(list(found.values()))) for which, found in scores.items()}
    figures: dict[str, Any] = {
        "hu_median": hu,
        "dice": scores,
        "dice_mean": means,
        "images_trained": generator.images,
        "train_seconds": None if trained.resumed else trained.seconds,
        "patients": {"generator": LEARNED, "segmenter": TEACHERS, "unseen": UNSEEN},
        "slices_unseen": len(real),
        "precision": generator.precision,
    }
    grid(images[:16], labels[:16], how.results / "layout.png", window=codec.window_hu)
    claims = [
        Claim("median HU under a label, largest difference from unseen patients", off, "<=", 15,
              "HU"),
        Claim("Dice on synthetic images against the given masks, short of that on unseen patients",
              means["unseen"] - means["synthetic"], "<=", 0.05),
    ]  # fmt: skip
    note = (
        "Masks of the generator's patients, deformed at strength 1. The segmenter has seen other "
        "patients than the generator; unseen are patients that neither has. Dice is the mean over "
        f"labels of the mean over slices with at least {LEAST_PIXELS} pixels of the label."
    )
    return report(how, "layout", claims, figures, n=n, seed=0, note=note)


if __name__ == "__main__":
    sys.exit(main())
