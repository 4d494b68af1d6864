"""Measure what the tissue looks like, whatever the anatomy: levels and histogram, noise, sharpness.

Blur, noise and shifted HU show in these figures, so they belong to the family fidelity.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import ndimage

from medaug.core.modality import CT, Modality
from medaug.data.feed.tissues import BLUR_PIXELS
from medaug.evaluation.families.common import Comparison, compared
from medaug.evaluation.figures import Bound, Curve, Figure, intensities
from medaug.evaluation.metrics.distances import histogram_distance
from medaug.evaluation.metrics.intervals import Weights, mean
from medaug.evaluation.metrics.mask_shapes import Masks, Values
from medaug.evaluation.metrics.noise_spectrum import Spectra, log_distance, sharpness, spectra
from medaug.evaluation.slices.evidence import Evidence, SliceSet

BOUNDS: Mapping[str, Bound] = {
    "fidelity.level.fat": Bound(least=-12, most=12, of="difference"),
    "fidelity.level.soft": Bound(least=-20, most=20, of="difference"),
    "fidelity.noise": Bound(most=1.5, of="difference"),
    "fidelity.sharpness": Bound(least=0.8, most=1.25, of="ratio"),
}
"""In HU, as are those for MR before they are scaled; its levels are of dark and medium tissue."""

MR_BOUNDS = {"fidelity.histogram": Bound(most=24.0, of="difference")}
"""For MR as well: the levels of its bands, which are no tissues, hardly move when all values do."""

FEWEST = 20
"""Pixels of a tissue whose median is taken."""


@dataclass(frozen=True)
class Looks:
    """What a set of slices looks like within the body.

    Attributes:
        histogram: pixels at each value of the window (n, levels).
        levels: median of each slice's fat and soft tissue (2, n); for MR, of what is dark but no
            void, and of what is neither dark nor bright.
        sharpness: gradient at the steeper edges (n,), HU per mm.
        spectra: noise power spectra of flat tissue.
        cases: of each slice.
    """

    histogram: Values
    levels: Values
    sharpness: Values
    spectra: Spectra
    cases: list[str]


def looks(slices: SliceSet, window_hu: tuple[float, float]) -> Looks:
    """Measure a set, whose values are clipped to the window."""
    inside = slices.bodies
    low, levels = int(window_hu[0]), int(window_hu[1]) - int(window_hu[0]) + 1
    histogram = [
        np.bincount(image[within] - low, minlength=levels)[:levels]
        for image, within in zip(slices.images, inside, strict=True)
    ]
    return Looks(
        np.array(histogram, np.float64),
        _levels(slices, inside),
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
    """Measure figures, curves and what was skipped, for the family fidelity.

    Args:
        evidence: labels are not needed.
        bounds: by name of the figure, in HU.
    """
    modality = evidence.modality
    bounds = bounds if modality is CT else {**bounds, **MR_BOUNDS}
    n = min(len(evidence.synthetic), len(evidence.train))
    parts = evidence.synthetic, evidence.train.some(n, evidence.seed), evidence.heldout
    synthetic, train, heldout = (looks(part, evidence.window_hu) for part in parts)
    made, skipped = [], []
    for key, unit, of, sentence in _FIGURES:
        value, real = compared(of, (synthetic, train, heldout), evidence.seed, key)
        name = _name(key, modality)
        if not np.isfinite(value.value):
            skipped.append(f"{name}: the slices show too little of it to measure.")
            continue
        bound = bounds.get(key)
        made.append(
            Figure(
                name,
                value.value,
                real,
                _MR_SENTENCES.get(name, sentence).format(values=intensities(modality)),
                len(evidence.synthetic),
                len(evidence.heldout),
                evidence.seed,
                low=value.low,
                high=value.high,
                unit=unit.format(unit=modality.unit),
                bound=bound.for_unit(modality) if bound is not None and unit == "{unit}" else bound,
            )
        )
    return made, _curves(synthetic, train, heldout, modality.unit), skipped


def _name(key: str, modality: Modality) -> str:
    """A figure's name: a level has the name of its tissue, that of CT in ``_FIGURES``."""
    family, _, tissue = key.rpartition(".")
    if tissue not in CT.tissues:
        return key
    return f"{family}.{dict(zip(CT.tissues, modality.tissues, strict=True))[tissue]}"


Of = Comparison[Looks]


def _histogram(a: Looks, b: Looks, wa: Weights, wb: Weights) -> float:
    """1-Wasserstein distance of the values in the body, all slices pooled."""
    return histogram_distance(wa @ a.histogram, wb @ b.histogram)


def _gap(tissue: int) -> Of:
    """Difference of the means over slices of the levels of a tissue."""
    return lambda a, b, wa, wb: mean(a.levels[tissue], wa) - mean(b.levels[tissue], wb)


def _sharp(a: Looks, b: Looks, wa: Weights, wb: Weights) -> float:
    return mean(a.sharpness, wa)


def _noise(a: Looks, b: Looks, wa: Weights, wb: Weights) -> float:
    one, other = average(a.spectra, wa), average(b.spectra, wb)
    if one is None or other is None or not (one > 0).all() or not (other > 0).all():
        return float("nan")
    return log_distance(one, other)


def average(found: Spectra, weight: Weights) -> Values | None:
    """Mean spectrum (rings,) of the slices that have one, or None where none has."""
    kept = np.isfinite(found.power[:, 0])
    share = weight[kept]
    if not share.sum():
        return None
    power: Values = share @ found.power[kept] / share.sum()
    return power


_FIGURES: tuple[tuple[str, str, Of, str], ...] = (
    (
        "fidelity.histogram", "{unit}", _histogram,
        "How far, on average, the {values} of the body would have to be moved to have the "
        "histogram of the held-out patients; well above the real value means wrong densities or "
        "too much fat.",
    ),
    (
        "fidelity.level.fat", "{unit}", _gap(0),
        "How much brighter fat is than in held-out patients; it hardly differs between real "
        "people, so that more than a few HU either way means that HU are wrong.",
    ),
    (
        "fidelity.level.soft", "{unit}", _gap(1),
        "How much brighter soft tissue is than in held-out patients; far from 0 means wrong HU or "
        "another contrast phase.",
    ),
    (
        "fidelity.noise", "dB", _noise,
        "How far the noise of flat tissue, coarse and fine, is from that of held-out patients; 3 "
        "dB is a doubling or halving, and much above the real value means too smooth or too noisy.",
    ),
    (
        "fidelity.sharpness", "{unit}/mm", _sharp,
        "How steep the edges of organs are; well below the real value pictures are blurred, well "
        "above it sharpened or full of seams.",
    ),
)  # fmt: skip

_MR_LEVEL = (
    "How much brighter {tissue} is than in held-out patients; far from the real value means wrong "
    "intensities, or scans of another sequence."
)
_MR_SENTENCES = {
    "fidelity.level.dark": _MR_LEVEL.format(tissue="what is dark but no void"),
    "fidelity.level.medium": _MR_LEVEL.format(tissue="what is neither dark nor bright"),
}


def _curves(synthetic: Looks, train: Looks, heldout: Looks, unit: str) -> list[Curve]:
    lines = {}
    for name, part in (("synthetic", synthetic), ("training", train), ("held-out", heldout)):
        power = average(part.spectra, np.ones(len(part.cases)))
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
            f"{unit}^2 mm^2",
            lines,
        )
    ]
