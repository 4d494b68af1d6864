"""Whether masks lie where the image shows the organ: a segmenter of real slices is the witness.

It is trained on real training slices as they are, and once more blurred, noised and shifted in HU,
so that it judges where the organ lies and not how the picture looks.
"""

import numpy as np
import torch
from scipy import ndimage

from medaug.codec import CTCodec
from medaug.evaluate.evidence import SliceSet
from medaug.evaluate.segmenter import IMAGES, Segmenter, train_segmenter
from medaug.progress import Progress
from medaug.seeds import derive
from medaug.types import HU

BLUR_PIXELS, NOISE_HU, SHIFT_HU = 1.5, 40.0, 60.0
"""Largest change of the second copy of a slice."""


def witness(
    train: SliceSet,
    window_hu: tuple[float, float],
    *,
    count: int = IMAGES,
    seed: int = 0,
    device: str | torch.device = "cpu",
    bar: Progress | None = None,
) -> Segmenter:
    """A segmenter of real training slices.

    Args:
        train: with label maps.
        window_hu: what it sees.
        count: slices it sees, of at most half as many different ones.
        seed: of all draws.
        device: where it trains.
        bar: told of every batch.

    Raises:
        ConfigError: no labels, or nothing to train on.
    """
    codec = CTCodec(window_hu, dict(train.names), modality=train.modality.name)
    train = train.some(max(1, count // 2), seed)
    assert train.labels is not None
    images = np.concatenate(
        [train.images, altered(train.images, window_hu, seed, train.modality.per_hu)]
    )
    labels = np.concatenate([train.labels, train.labels])
    return train_segmenter(images, labels, codec, count=count, seed=seed, device=device, bar=bar)


def altered(images: HU, window_hu: tuple[float, float], seed: int, per_hu: float = 1.0) -> HU:
    """Each slice (n, y, x) blurred, noised and shifted by its own amounts, then clipped again.

    ``per_hu`` is that of ``medaug.modality``.
    """
    made = np.empty_like(images)
    for i, image in enumerate(images):
        rng = np.random.default_rng(derive(seed, "witness", i))
        blur, noise = rng.uniform(0, BLUR_PIXELS), rng.uniform(0, NOISE_HU) * per_hu
        shift = rng.uniform(-SHIFT_HU, SHIFT_HU) * per_hu
        changed = ndimage.gaussian_filter(image.astype(np.float64), blur)
        changed += shift + noise * rng.standard_normal(image.shape)
        made[i] = np.clip(changed.round(), *window_hu)
    return made
