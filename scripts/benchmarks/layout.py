"""Layout mode on phantom patients: HU under each given label, and whether a segmenter finds it.

The generator learns from some patients, the segmenter from others, and both are held against a
third group.  MaskSummary are those of the generator's patients under random deformation.
"""

from typing import Any

import numpy as np
import torch
from material import organ_cache
from planted import KNOWN_PATIENTS, SIZE, STRANGERS, UNSEEN, slices
from results import Claim, Measured, Setup

from medaug.core.codec import CTCodec
from medaug.core.config import DataConfig, resolve
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


def found_back(segmenter: Segmenter, images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Mean Dice of each label over the slices that show at least a few pixels of it."""
    ids = segmenter.codec.labels
    scores = dice(segmenter.predict(images, batch=16), labels, list(ids.values()))
    shown = [(labels == number).sum((1, 2)) >= LEAST_PIXELS for number in ids.values()]
    return {name: float(scores[shown[k], k].mean()) for k, name in enumerate(ids)}


def measure_layout(setup: Setup) -> Measured:
    """HU under given masks, and whether a segmenter finds them."""
    few = setup.quick
    images = 1500 if few else IMAGES
    train = {"images": images, "batch": 32, "snapshot_every": images // 4, "ema_half_life": 2000}
    masks = {"size": SIZE, "masks": "layout", "augment": {"shift": 0.04}}
    known = organ_cache(setup.work, 4 if few else LEARNED_PATIENTS, LEARNED)
    run = setup.work / "layout-run"
    trained = fit(resolve({"data": masks, "train": train}), known, run)
    generator = Generator.from_pretrained(run)
    n = 32 if few else SAMPLES
    samples = list(generator.generate(n, uncertainty=0))
    images = np.stack([s.image for s in samples])
    labels = np.stack([s.label for s in samples if s.label is not None])
    teachers = organ_cache(setup.work, 4 if few else KNOWN_PATIENTS, TEACHERS)
    plain = DataConfig(size=SIZE)
    taught = Feed(teachers, plain, codec_for(teachers, plain), seed=0, device=torch.device("cpu"))
    segmenter = train_on(taught, count=400 if few else SEGMENTED)
    strangers = organ_cache(setup.work, 6 if few else STRANGERS, UNSEEN)
    codec = codec_for(strangers, plain)
    assert isinstance(codec, CTCodec)
    real = slices(strangers, codec, plain)
    hu, scores = {}, {}
    for which, x, y in (("synthetic", images, labels), ("unseen", real.image, real.label)):
        hu[which] = {name: float(np.median(x[y == id])) for name, id in codec.labels.items()}
        scores[which] = found_back(segmenter, x, y)
    off = max(abs(hu["synthetic"][name] - hu["unseen"][name]) for name in codec.labels)
    means = {which: float(np.mean(list(found.values()))) for which, found in scores.items()}
    figures: dict[str, Any] = {
        "hu_median": hu,
        "dice": scores,
        "dice_mean": means,
        "images_trained": generator.images,
        "train_seconds": None if trained.resumed else trained.seconds,
        "patients": {"generator": LEARNED, "segmenter": TEACHERS, "unseen": UNSEEN},
        "slices_unseen": len(real.image),
        "precision": generator.precision,
    }
    grid(images[:16], labels[:16], setup.results / "layout.png", window=codec.window_hu)
    what = "median HU under a label, largest difference from unseen patients"
    short = "Dice on synthetic images against the given masks, short of that on unseen patients"
    claims = [
        Claim(what, off, "<=", 15, "HU"),
        Claim(short, means["unseen"] - means["synthetic"], "<=", 0.05),
    ]
    note = (
        "Masks of the generator's patients, deformed at strength 1. The segmenter has seen other "
        "patients than the generator; unseen are patients that neither has. Dice is the mean over "
        f"labels of the mean over slices with at least {LEAST_PIXELS} pixels of the label."
    )
    return Measured(claims, figures, n, 0, note)
