"""What the tissue looks like, whatever the anatomy: levels and histogram, noise, sharpness.

These see blur, noise and shifted HU, so their names and their bounds are fidelity's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import ndimage
from scipy.stats import wasserstein_distance

from medaug.data.feed.tissues import BLUR_PIXELS
from medaug.evaluation.figures import Bound, Curve, Figure
from medaug.evaluation.metrics.intervals import Weights, interval, mean
from medaug.evaluation.metrics.mask_shapes import Masks, Values
from medaug.evaluation.metrics.noise_spectrum import Spectra, log_distance, sharpness, spectra
from medaug.evaluation.slices.evidence import Evidence, SliceSet

BOUNDS: Mapping[str, Bound] = {
    "fidelity.level.fat": Bound(least=-12, most=12, of="difference"),
    "fidelity.level.soft": Bound(least=-20, most=20, of="difference"),
    "fidelity.noise": Bound(most=1.5, of="difference"),
    "fidelity.sharpness": Bound(least=0.8, most=1.25, of="ratio"),
}

FEWEST = 20
"""Pixels of a tissue whose median is taken."""


@dataclass(frozen=True)
class Looks:
    """What a set of slices looks like.

    Attributes:
        histogram: pixels of the body at each HU of the window (n, levels).
        fat: median of each slice's fat (n,), by the bands of its modality; of MR, of what is dark.
        soft: of its soft tissue; of MR, of what is neither dark nor bright.
        sharpness: see ``medaug.evaluation.metrics.noise_spectrum``.
        spectra: see ``medaug.evaluation.metrics.noise_spectrum``.
        cases: of each slice.
    """

    histogram: Values
    fat: Values
    soft: Values
    sharpness: Values
    spectra: Spectra
    cases: list[str]


def looks(slices: SliceSet, window_hu: tuple[float, float]) -> Looks:
    """Measure a set, within the body."""
    inside = slices.bodies
    low, levels = int(window_hu[0]), int(window_hu[1]) - int(window_hu[0]) + 1
    histogram = [
        np.bincount(image[within] - low, minlength=levels)[:levels]
        for image, within in zip(slices.images, inside, strict=True)
    ]
    fat, soft = _levels(slices, inside)
    return Looks(
        np.array(histogram, np.float64),
        fat,
        soft,
        sharpness(slices, inside),
        spectra(slices, inside),
        list(slices.cases),
    )


def _levels(slices: SliceSet, inside: Masks) -> Values:
    """Median (2, n) of the body where, blurred, it is as bright as fat, and as soft tissue."""
    bands = slices.modality.bands
    found = np.full((len(bands) - 1, len(slices)), np.nan)
    for i, (image, within) in enumerate(zip(slices.images, inside, strict=True)):
        smooth = ndimage.gaussian_filter(image.astype(np.float32), BLUR_PIXELS)
        for k, (low, high) in enumerate(pairwise(bands)):
            values = image[within & (smooth >= low) & (smooth < high)]
            if len(values) >= FEWEST:
                found[k, i] = np.median(values)
    return found


def figures(
    evidence: Evidence, bounds: Mapping[str, Bound] = BOUNDS
) -> tuple[list[Figure], list[Curve], list[str]]:
    """Figures, curves and what was skipped, for the family fidelity.

    Args:
        evidence: labels are not needed.
        bounds: by name of the figure.
    """
    n = min(len(evidence.synthetic), len(evidence.train))
    synthetic, train, heldout = (
        looks(part, evidence.window_hu)
        for part in (
            evidence.synthetic, evidence.train.some(n, evidence.seed), evidence.heldout
        )
    )  # fmt: skip
    made, skipped = [], []
    for name, unit, of, sentence in _FIGURES:
        value = of(synthetic, heldout)
        if not np.isfinite(value):
            skipped.append(f"{name}: the slices show too little of it to measure.")
            continue
        resampled = _resampled(of, synthetic, heldout)
        low, high = interval(
            value, resampled, (synthetic.cases, heldout.cases), evidence.seed, name
        )
        real = of(train, heldout)
        made.append(
            Figure(
                name, value, real if np.isfinite(real) else None, sentence,
                len(evidence.synthetic), len(evidence.heldout), evidence.seed,
                low=low, high=high, unit=unit, bound=bounds.get(name),
            )
        )  # fmt: skip
    return made, _curves(synthetic, train, heldout), skipped


Of = Callable[..., float]


def _resampled(of: Of, synthetic: Looks, heldout: Looks) -> Of:
    def statistic(a: Weights, b: Weights) -> float:
        return of(synthetic, heldout, a, b)

    return statistic


def _histogram(a: Looks, b: Looks, wa: Weights | None = None, wb: Weights | None = None) -> float:
    """1-Wasserstein distance of the HU in the body, all slices pooled."""
    one, other = _total(a, wa), _total(b, wb)
    if not one.sum() or not other.sum():
        return float("nan")
    levels = np.arange(len(one))
    return float(wasserstein_distance(levels, levels, one, other))


def _total(part: Looks, weight: Weights | None) -> Values:
    total: Values = part.histogram.sum(0) if weight is None else weight @ part.histogram
    return total


def _gap(name: str) -> Of:
    """Difference of the means over slices of one attribute."""

    def gap(a: Looks, b: Looks, wa: Weights | None = None, wb: Weights | None = None) -> float:
        return mean(getattr(a, name), wa) - mean(getattr(b, name), wb)

    return gap


def _sharp(a: Looks, b: Looks, wa: Weights | None = None, wb: Weights | None = None) -> float:
    return mean(a.sharpness, wa)


def _noise(a: Looks, b: Looks, wa: Weights | None = None, wb: Weights | None = None) -> float:
    one, other = average(a.spectra, wa), average(b.spectra, wb)
    if one is None or other is None or not (one > 0).all() or not (other > 0).all():
        return float("nan")
    return log_distance(one, other)


def average(found: Spectra, weight: Weights | None = None) -> Values | None:
    """Mean spectrum (rings,) of the slices that have one, or None where none has."""
    kept = np.isfinite(found.power[:, 0])
    share = (np.ones(len(kept)) if weight is None else weight)[kept]
    if not share.sum():
        return None
    power: Values = share @ found.power[kept] / share.sum()
    return power


_FIGURES: tuple[tuple[str, str, Of, str], ...] = (
    (
        "fidelity.histogram", "HU", _histogram,
        "How far, on average, the HU of the body would have to be moved to have the histogram of "
        "the held-out patients; well above the real value means wrong densities or too much fat.",
    ),
    (
        "fidelity.level.fat", "HU", _gap("fat"),
        "How much brighter fat is than in held-out patients; it hardly differs between real "
        "people, so that more than a few HU either way means that HU are wrong.",
    ),
    (
        "fidelity.level.soft", "HU", _gap("soft"),
        "How much brighter soft tissue is than in held-out patients; far from 0 means wrong HU or "
        "another contrast phase.",
    ),
    (
        "fidelity.noise", "dB", _noise,
        "How far the noise of flat tissue, coarse and fine, is from that of held-out patients; 3 "
        "dB is a doubling or halving, and much above the real value means too smooth or too noisy.",
    ),
    (
        "fidelity.sharpness", "HU/mm", _sharp,
        "How steep the edges of organs are; well below the real value pictures are blurred, well "
        "above it sharpened or full of seams.",
    ),
)  # fmt: skip


def _curves(synthetic: Looks, train: Looks, heldout: Looks) -> list[Curve]:
    lines = {}
    for name, part in (("synthetic", synthetic), ("training", train), ("held-out", heldout)):
        power = average(part.spectra)
        if power is not None:
            lines[name] = part.spectra.frequency.tolist(), power.tolist()
    if not lines:
        return []
    return [
        Curve(
            "Noise power spectrum",
            "Of the flattest tissue in the body. Below the real lines at the right end: fine noise "
            "is missing, as in blurred pictures.",
            "cycles per mm",
            "HU^2 mm^2",
            lines,
        )
    ]
