"""Copies planted on purpose, to know how copies score: mirrored, shifted, bent, noised."""

import numpy as np
import torch

from medaug.data.warp import field, warp
from medaug.seeds import derive, generator
from medaug.types import HU

BEND = {"rotate": 0.03, "scale": 0.03, "shift": 2 / 64, "elastic": 0.004}
"""See ``medaug.data.warp.field``."""

NOISE_HU = 30.0


def planted(images: HU, window_hu: tuple[float, float], seed: int, per_hu: float = 1.0) -> HU:
    """Near-copies of slices (n, y, x): every second mirrored, all bent, shifted and noised.

    Up to 2 pixels of 64 and 0.03 rad, 3 % in size, noise of 30 HU times ``per_hu``, that of
    ``medaug.modality``; clipped to the window.
    """
    low, high = window_hu
    x = torch.from_numpy(np.array(images)).float()
    x[::2] = x[::2].flip(2)
    x = (x - low) * (2 / (high - low)) - 1
    draws = generator(seed, "planted")
    moved = warp(x[:, None], field(len(x), (x.shape[1], x.shape[2]), draws, **BEND))[:, 0]
    grain = np.random.default_rng(derive(seed, "noise")).normal(0, NOISE_HU * per_hu, moved.shape)
    changed = (moved.numpy() + 1) * ((high - low) / 2) + low + grain
    return np.rint(changed).clip(low, high).astype(np.int16)
