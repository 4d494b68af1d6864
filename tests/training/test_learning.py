"""Every model learns: in a small fixed budget its samples come closer to held-out data.

On digits the measure is the Frechet distance in a classifier's features, over that of real
training digits.  On phantoms it is the unbiased squared MMD (Gretton et al. 2012) with one RBF
kernel, its bandwidth the median distance of the real pictures, on pictures pooled to 8 x 8.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from medaug.core.config import resolve
from medaug.data import open_source
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
from medaug.data.feed.feed import Feed, codec_for
from medaug.evaluation.metrics.distances import frechet
from medaug.synthesis.generator import Generator
from medaug.training.loop import fit
from medaug.training.workflow import PICTURES
from tests.support.script_modules import modules_of

with modules_of("reproducing"):
    from classifier import train_classifier
    from scoreboard import Reference

COUNT = 256
FLOOR = 0.5
MODELS: dict[str, dict[str, Any]] = {
    "spatial_vaegan-modern": {"prior": {"width": 32, "steps": 12}},
    "vaegan-author": {"name": "vaegan", "latent_dim": 16},
    "wgan_gp-modern": {"name": "wgan_gp", "width": 16},
    "wgan_gp-author": {
        "name": "wgan_gp", "preset": "author", "width": 24, "lr": 4e-4, "critic_lr": 4e-4,
    },
}  # fmt: skip
SLOW = pytest.mark.slow
PHANTOM = [
    ("spatial_vaegan-modern", 6000),
    pytest.param("vaegan-author", 20000, marks=SLOW),
    pytest.param("wgan_gp-modern", 60000, marks=SLOW),
    pytest.param("wgan_gp-author", 60000, marks=SLOW),
]
FRECHET_BOUND = 16.0
"""Over the distance of real training from real test digits; one picture scores 30, one a class 9.

Collapse within the classes is for coverage to see, in the tests of the score board."""
SMALL = {"width": 16}
PERCEPTRON = {"network": "mlp", "r1": 0.0}
DIGITS = [
    ("vae", {"network": "mlp"}, 20_000),
    ("wae_mmd", {"network": "mlp"}, 20_000),
    ("alpha_gan", PERCEPTRON, 30_000),
    *(
        pytest.param(name, {}, images, marks=SLOW)
        for name, images in {
            "vae": 20_000, "gan": 20_000, "vae_disl": 40_000, "vaegan": 40_000, "wgan": 200_000,
            "wgan_gp": 30_000, "alpha_gan": 20_000, "gvae": 20_000, "aaae": 60_000,
            "ali": 20_000, "alice": 20_000, "wae_mmd": 40_000, "wae_gan": 60_000,
        }.items()
    ),
]  # fmt: skip


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
    base = {"data": {"size": cache.settings.size}}
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
        scores.append(mmd2(pooled(drawn, *bounds), pooled(feed.images.numpy(), *bounds)))
    return scores[1] / scores[0]


@pytest.mark.long
@pytest.mark.parametrize(("model", "budget"), PHANTOM)
def test_on_the_phantom(model: str, budget: int, phantom_cache: Path, tmp_path: Path) -> None:
    cache = SliceCache.open(phantom_cache)
    assert gain(model, budget, cache, tmp_path, (-160, 240)) < FLOOR


@pytest.fixture(scope="module")
def digits(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> SliceCache:
    cache = tmp_path_factory.mktemp("digits") / "cache"
    prepare(open_source("mnist", real_data / "mnist"), cache, CacheSettings(size=None), 0)
    return SliceCache.open(cache)


@pytest.fixture(scope="module")
def reference(digits: SliceCache) -> Reference:
    train, test = (digits.cases[part] for part in ("train", "test"))
    images = torch.from_numpy(np.array(train.image))
    labels = torch.from_numpy(np.array(train.classes))
    classifier = train_classifier(images, labels, 10, count=6000)
    return Reference.of(classifier, images, torch.from_numpy(np.array(test.image)), 800)


def frechet_ratio(drawn: torch.Tensor, reference: Reference) -> float:
    features, _ = reference.classifier.look(drawn)
    return frechet(features, reference.test_features) / reference.floor


def drawn(run: Path, count: int = 800) -> torch.Tensor:
    generator = Generator.from_pretrained(run, "cpu")
    return torch.from_numpy(np.stack([s.image for s in generator.generate(count, uncertainty=0)]))


@pytest.mark.long
@pytest.mark.real
@pytest.mark.parametrize(("model", "arguments", "images"), DIGITS)
def test_on_real_digits(
    model: str,
    arguments: dict[str, Any],
    images: int,
    digits: SliceCache,
    reference: Reference,
    tmp_path: Path,
) -> None:
    train = {
        "images": images,
        "batch": 32,
        "snapshot_every": images,
        "ema_half_life": images // 20,
        "precision": "float32",
    }
    asked = {"model": {"name": model, **SMALL, **arguments}, "train": train}
    fit(resolve(PICTURES, {"data": {"name": "mnist"}}, asked), digits, tmp_path, device="cpu")
    assert frechet_ratio(drawn(tmp_path), reference) < FRECHET_BOUND


@pytest.mark.long
@pytest.mark.real
@pytest.mark.parametrize("model", ["vae", "gan", "wae_mmd"])
def test_the_floor_refuses_an_untrained_model(
    model: str, digits: SliceCache, reference: Reference, tmp_path: Path
) -> None:
    asked = {"model": {"name": model, **SMALL}, "train": {"images": 32, "batch": 32}}
    fit(resolve(PICTURES, {"data": {"name": "mnist"}}, asked), digits, tmp_path, device="cpu")
    assert frechet_ratio(drawn(tmp_path, 200).repeat(4, 1, 1), reference) > 1.2 * FRECHET_BOUND


@pytest.mark.real
def test_the_floor_refuses_a_collapsed_model(reference: Reference) -> None:
    one = reference.train[:1]
    assert frechet_ratio(one.expand(800, 28, 28), reference) > FRECHET_BOUND
    shaken = torch.stack([one[0].roll(k % 3 - 1, 1) for k in range(800)])
    assert frechet_ratio(shaken, reference) > FRECHET_BOUND
