"""Score pictures of a model of small pictures: a row of figures, and one for real pictures."""

from dataclasses import dataclass
from typing import Any

import torch
from classifier import Classifier, inception_score
from torch import Tensor

from medaug.core.errors import ConfigError
from medaug.core.seeds import generator
from medaug.evaluation.metrics.distances import (
    Mmd,
    bandwidths,
    frechet,
    gaussian,
    linear_floor,
    linear_gaps,
)
from medaug.evaluation.metrics.ms_ssim import similarities
from medaug.evaluation.metrics.neighbours import held, radii

MMD_COUNT = 2000
LINEAR_BATCH = 32


@dataclass(frozen=True)
class Reference:
    """Real pictures and their features, as many as the samples that are scored against them.

    Attributes:
        classifier: trained on ``train``.
        train: grey levels uint8 (n, s, s) of the training set.
        test: as many of the test set, which samples are compared with.
        floor: Frechet distance of ``train`` from ``test``: what a perfect copy scores.
    """

    classifier: Classifier
    train: Tensor
    test: Tensor
    test_features: Tensor
    floor: float

    @classmethod
    def of(cls, classifier: Classifier, train: Tensor, test: Tensor, n: int) -> "Reference":
        """Draw ``n`` of each, the same at every call."""
        train, test = (some(pictures, n, part) for part, pictures in enumerate((train, test)))
        features, _ = classifier.look(test)
        floor = frechet(classifier.look(train)[0], features)
        return cls(classifier, train, test, features, floor)


def score(drawn: Tensor, real: Reference) -> dict[str, Any]:
    """One row for pictures uint8 (n, s, s), against the real test set.

    Frechet distance, MMD on features and precision to coverage are in the classifier's features;
    ``frechet_ratio`` is over the distance of real training from real test pictures at the same n.

    Raises:
        ConfigError: another n than the reference's, at which a Frechet distance does not compare.
    """
    if len(drawn) != len(real.test):
        raise ConfigError(
            f"{len(drawn)} samples cannot be scored against {len(real.test)} real ones"
        )
    features, probabilities = real.classifier.look(drawn)
    inception, deviation = inception_score(probabilities)
    distance = frechet(features, real.test_features)
    pixels, real_pixels = flat(drawn), flat(real.test)
    histogram = probabilities.argmax(1).bincount(minlength=real.classifier.classes).double()
    share = histogram / histogram.sum()
    uneven = (share * (share * len(share)).clamp_min(1e-12).log()).sum().item()
    similar, real_similar = (pair_similarity(x.double() / 255) for x in (drawn, real.test))
    return {
        "n": len(drawn),
        "inception_score": inception,
        "inception_score_std": deviation,
        "frechet": distance,
        "frechet_ratio": distance / real.floor,
        "mmd_rbf_pixels": _mmd(pixels, real_pixels),
        "mmd_rbf_features": _mmd(features, real.test_features),
        "mmd_rbf_n": min(len(drawn), MMD_COUNT),
        "mmd_linear": _mmd_linear(_shuffled(pixels), real_pixels),
        "mmd_linear_floor": linear_floor(real_pixels, LINEAR_BATCH),
        "mmd_linear_batch": LINEAR_BATCH,
        "ms_ssim": similar,
        "ms_ssim_real": real_similar,
        **cover(real.test_features, features),
        "class_kl": uneven,
    }


def _shuffled(rows: Tensor) -> Tensor:
    """Rows in a fixed random order: samples come class by class, and batches must not."""
    return rows[torch.randperm(len(rows), generator=generator(0, "shuffled"))]


def real_row(real: Reference) -> dict[str, Any]:
    """The same figures for real training pictures: what to read every other row by."""
    return score(real.train, real)


def some(images: Tensor, n: int, part: int) -> Tensor:
    """``n`` of the pictures, the same for the same ``part``."""
    order = torch.randperm(len(images), generator=generator(0, "reference", part))
    return images[order[:n]]


def flat(images: Tensor) -> Tensor:
    """Grey levels uint8 (n, s, s) as rows in [-1, 1]."""
    return images.flatten(1).float() / 127.5 - 1


def reconstruction_error(images: Tensor, rebuilt: Tensor) -> float:
    """Mean squared error per pixel in [-1, 1] units of grey levels uint8 (n, s, s).

    A quarter of it is the error in [0, 1] units.
    """
    return (flat(images).double() - flat(rebuilt).double()).square().mean().item()


@torch.inference_mode()
def _mmd(a: Tensor, b: Tensor) -> float:
    """Unbiased squared MMD under the mean of Gaussian kernels, of the first rows of each."""
    ours, theirs = a[:MMD_COUNT], b[:MMD_COUNT]
    kernel = gaussian(bandwidths(theirs))
    return Mmd(theirs, kernel, middle=theirs.double().mean(0)).of(ours).value


def _mmd_linear(a: Tensor, b: Tensor) -> float:
    """The "MMD" of the GVAE papers: squared distance of the means of mini-batches, averaged."""
    return torch.stack(linear_gaps(a, b, LINEAR_BATCH)).mean().item()


def cover(real: Tensor, fake: Tensor, k: int = 5) -> dict[str, float]:
    """How features (n, d) and (m, d) lie in each other's balls, which reach to neighbour ``k``.

    Precision and recall (Kynkaanniemi et al. 2019): share of fakes in a real ball, of reals in a
    fake one.  Density and coverage (Naeem et al. 2020): real balls around a fake, over k; share of
    reals whose ball holds a fake.
    """
    by_real = held(real, radii(real, k), fake)
    by_fake = held(fake, radii(fake, k), real)
    return {
        "precision": (by_real.around > 0).double().mean().item(),
        "recall": (by_fake.around > 0).double().mean().item(),
        "density": by_real.around.double().mean().item() / k,
        "coverage": by_real.holds.double().mean().item(),
    }


def pair_similarity(images: Tensor, pairs: int = 1000, seed: int = 0) -> float:
    """Mean MS-SSIM of ``pairs`` random pairs of different pictures (n, s, s) in [0, 1]."""
    draws = generator(seed, "pairs")
    first = torch.randint(len(images), (pairs,), generator=draws)
    step = torch.randint(1, len(images), (pairs,), generator=draws)
    return similarities(images.__getitem__, first, (first + step) % len(images)).mean().item()
