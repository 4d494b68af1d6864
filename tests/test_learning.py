"""Every model learns: in a small fixed budget its samples come closer to held-out data.

The measure is the unbiased squared MMD (Gretton et al. 2012) with one RBF kernel, its bandwidth
the median distance of the real pictures, on pictures pooled to 7 x 7 or 8 x 8.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from medaug.config import resolve
from medaug.data import open_source
from medaug.data.cache import CacheSettings, SliceCache, prepare
from medaug.data.feed import Feed, codec_for
from medaug.generator import Generator
from medaug.train import fit
from medaug.workflow import PICTURES

COUNT = 256
FLOOR = 0.5
MODELS: dict[str, dict[str, Any]] = {
    "vaegan-modern": {"prior_width": 32, "prior_steps": 12},
    "vaegan-author": {"preset": "author", "latent_dim": 16},
    "wgan_gp-modern": {"name": "wgan_gp", "width": 16},
    "wgan_gp-author": {
        "name": "wgan_gp", "preset": "author", "width": 24, "lr": 4e-4, "critic_lr": 4e-4,
    },
}  # fmt: skip
SLOW = pytest.mark.slow
PHANTOM = [
    ("vaegan-modern", 6000),
    pytest.param("vaegan-author", 20000, marks=SLOW),
    pytest.param("wgan_gp-modern", 60000, marks=SLOW),
    pytest.param("wgan_gp-author", 60000, marks=SLOW),
]
DIGITS = [
    ("vaegan-modern", 6000),
    pytest.param("vaegan-author", 20000, marks=SLOW),
    pytest.param("wgan_gp-modern", 30000, marks=SLOW),
    ("wgan_gp-author", 8000),
]


def mmd2(a: torch.Tensor, b: torch.Tensor) -> float:
    distance = torch.cdist(b, b).flatten()
    gamma = 0.5 / distance[distance > 0].median().square()

    def kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (-gamma * torch.cdist(x, y).square()).exp()

    n, m = len(a), len(b)
    within_a = (kernel(a, a).sum() - n) / (n * (n - 1))
    within_b = (kernel(b, b).sum() - m) / (m * (m - 1))
    return float(within_a + within_b - 2 * kernel(a, b).mean())


def pooled(images: np.ndarray, low: float, high: float) -> torch.Tensor:
    grey = (torch.from_numpy(images.astype(np.float32)).clamp(low, high) - low) / (high - low)
    return F.avg_pool2d(grey[:, None], 4).flatten(1)


def gain(
    model: str, budget: int, cache: SliceCache, run: Path, bounds: tuple[float, float]
) -> float:
    """The MMD of trained samples over that of untrained ones, each against held-out slices."""
    base = PICTURES if cache.kind == "image" else {"data": {"size": cache.settings.size}}
    scores = []
    for images in (32, budget):
        train = {"images": images, "batch": 32, "precision": "float32"}
        config = resolve(base, {"model": MODELS[model], "train": train})
        folder = run / str(images)
        fit(config, cache, folder, device="cpu")
        generator = Generator.from_pretrained(folder, "cpu")
        drawn = np.stack([s.image for s in generator.generate(COUNT, uncertainty=0)])
        feed = Feed(
            cache, config.data, codec_for(cache, config.data), seed=1, device=torch.device("cpu")
        )
        if cache.kind == "image":
            real = np.array(cache.cases["test"].image[:COUNT])
        else:
            real = feed.images.numpy()
        scores.append(mmd2(pooled(drawn, *bounds), pooled(real, *bounds)))
    return scores[1] / scores[0]


@pytest.mark.parametrize(("model", "budget"), PHANTOM)
def test_on_the_phantom(model: str, budget: int, phantom_cache: Path, tmp_path: Path) -> None:
    cache = SliceCache.open(phantom_cache)
    assert gain(model, budget, cache, tmp_path, (-160, 240)) < FLOOR


@pytest.fixture(scope="module")
def digits(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> SliceCache:
    cache = tmp_path_factory.mktemp("digits") / "cache"
    prepare(open_source("mnist", real_data / "mnist"), cache, CacheSettings(size=None), 0)
    return SliceCache.open(cache)


@pytest.mark.real
@pytest.mark.parametrize(("model", "budget"), DIGITS)
def test_on_real_digits(model: str, budget: int, digits: SliceCache, tmp_path: Path) -> None:
    assert gain(model, budget, digits, tmp_path, (0, 255)) < FLOOR
