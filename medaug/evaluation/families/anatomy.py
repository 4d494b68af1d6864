"""Measure anatomy: are the masks an organ's, in form, place and HU, and do pictures show them?

A shift of all HU, blur and noise are fidelity's, and these figures do not react to them: the HU
under a mask are taken against the body's median, and the segmenter has learned from slices with all
three.  Repeated slices are diversity's: they count once.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import ndimage
from scipy.stats import wasserstein_distance

from medaug.core.codec import CTCodec
from medaug.core.seeds import derive
from medaug.core.types import HU, LabelMap
from medaug.data.feed.continuity import continuity
from medaug.evaluation.families.common import Comparison, compared
from medaug.evaluation.figures import Bound, Family, Figure, intensities
from medaug.evaluation.metrics.distances import histogram_distance
from medaug.evaluation.metrics.intervals import Weights, bootstrap, mean
from medaug.evaluation.metrics.mask_shapes import Shapes, Values, shapes
from medaug.evaluation.page.overlays import outlined, plain
from medaug.evaluation.slices.evidence import Evidence, SliceSet
from medaug.runtime.pictures import Picture
from medaug.runtime.progress import Progress
from medaug.training.segmenter import IMAGES, Segmenter, dice, train_segmenter

BOUNDS: Mapping[str, Bound] = {
    "anatomy.area": Bound(most=1.0, of="difference"),
    "anatomy.elongation": Bound(most=1.0, of="difference"),
    "anatomy.components": Bound(most=1.0, of="difference"),
    "anatomy.across": Bound(most=1.0, of="difference"),
    "anatomy.down": Bound(most=1.0, of="difference"),
    "anatomy.level": Bound(most=40.0, of="difference"),
    "anatomy.inside": Bound(least=-0.1, of="difference"),
    "anatomy.shown": Bound(least=-0.2, of="difference"),
    "anatomy.agreement": Bound(least=-0.15, of="difference"),
    "anatomy.continuity.dice": Bound(least=-0.25, most=0.25, of="difference"),
}
"""By the name without its label, or in full for one label alone; in HU, scaled for MR."""

WORST = 4
"""Slices shown whose masks and segmenter agree least."""

MOST = 1000
"""Slices of a set that the segmenter sees."""

LEAST = 20
"""Different synthetic slices that must show a label, so that chance does not decide."""

THICK_PX = 20
"""Median area of the real masks from which their HU are bounded: blur changes those of thinner."""

STEP_TOLERANCE = 0.25
"""Largest share by which a multiple of the real slices' distance may miss that of the stacks."""

BLUR_PIXELS, NOISE_HU, SHIFT_HU = 1.5, 40.0, 60.0
"""Largest changes of the slices that the segmenter learns from a second time."""

GIVEN, FOUND = (60, 220, 90), (255, 150, 40)
"""Colours of a slice's own mask and of the segmenter's."""


def measure(
    evidence: Evidence,
    segmenter: Segmenter | None = None,
    bounds: Mapping[str, Bound] = BOUNDS,
) -> Family:
    """Measure the figures of the family anatomy.

    Args:
        evidence: masks are needed in all three sets; without them nothing is measured.  Synthetic
            masks that are all empty are masks, and fail.
        segmenter: trained on real training slices and their labels; by default made here.
        bounds: by name of the figure.
    """
    figures, skipped = _continuity(evidence, bounds)
    sets = {
        "synthetic": evidence.synthetic, "training": evidence.train, "held-out": evidence.heldout,
    }  # fmt: skip
    without = [
        name
        for name, part in sets.items()
        if part.labels is None or (name != "synthetic" and not (part.labels > 0).any())
    ]
    if without or not evidence.heldout.names:
        skipped.append(f"Masks: the {' and '.join(without) or 'held-out'} slices have none.")
        return Family("anatomy", figures, skipped=skipped)
    evidence = replace(evidence, synthetic=evidence.synthetic.distinct())
    n = min(len(evidence.synthetic), len(evidence.train))
    parts = evidence.synthetic, evidence.train.some(n, evidence.seed), evidence.heldout
    measured = []
    for name, label in evidence.heldout.names.items():
        found = [_marked(part, label, evidence.window_hu) for part in parts]
        if any(not part.shapes.shown.any() for part in found[1:]):
            skipped.append(f"{name}: the real slices do not show it, so it has no figures.")
            continue
        if (shown := int(found[0].shapes.shown.sum())) < LEAST:
            skipped.append(
                f"{name}: {shown} different synthetic slices show it, and {LEAST} are needed."
            )
            if len(evidence.synthetic) >= LEAST:
                figures += _label(evidence, name, found, bounds, ("shown",))
            continue
        measured.append(name)
        figures += _label(evidence, name, found, bounds)
    if not measured:
        return Family("anatomy", figures, skipped=skipped)
    network = segmenter or witness(evidence.train, evidence.window_hu, seed=evidence.seed)
    more, pictures = _agreement(evidence, network, measured, bounds)
    return Family("anatomy", [*figures, *more], pictures, skipped=skipped)


def bound_of(name: str, bounds: Mapping[str, Bound]) -> Bound | None:
    """The bound of a figure in full, or of its name without the label."""
    return bounds.get(name) or bounds.get(name.rpartition(".")[0])


# The masks of one label: form, place, HU


@dataclass(frozen=True)
class Marked:
    """One label in a set of slices.

    Attributes:
        shapes: form, place and HU of its masks.
        body_hu: median HU over the bodies of the set.
        histogram: pixels under the mask at each HU above the lowest of the window (n, levels).
        cases: of each slice.
    """

    shapes: Shapes
    body_hu: float
    histogram: Values
    cases: list[str]


def _marked(part: SliceSet, label: int, window_hu: tuple[float, float]) -> Marked:
    assert part.labels is not None
    low, levels = int(window_hu[0]), int(window_hu[1]) - int(window_hu[0]) + 1
    histogram = [
        np.bincount(image[marks == label] - low, minlength=levels)[:levels]
        for image, marks in zip(part.images, part.labels, strict=True)
    ]
    body = part.images[part.bodies]
    return Marked(
        shapes(part, part.bodies, label),
        float(np.median(body)) if len(body) else float("nan"),
        np.array(histogram, np.float64),
        list(part.cases),
    )


Of = Comparison[Marked]


def _spread(name: str, floor: float) -> Of:
    """1-Wasserstein distance of an attribute, over the standard deviation of the second set's."""

    def distance(a: Marked, b: Marked, wa: Weights, wb: Weights) -> float:
        one, other = getattr(a.shapes, name), getattr(b.shapes, name)
        return _apart(one, other, wa, wb) / max(float(np.nanstd(other)), floor)

    return distance


def _apart(one: Values, other: Values, wa: Weights, wb: Weights) -> float:
    """1-Wasserstein distance of values (n,) and (m,), leaving out what is not a number."""
    kept, there = np.isfinite(one), np.isfinite(other)
    if not wa[kept].sum() or not wb[there].sum():
        return float("nan")
    return float(wasserstein_distance(one[kept], other[there], wa[kept], wb[there]))


def _level(a: Marked, b: Marked, wa: Weights, wb: Weights) -> float:
    return _apart(a.shapes.level - a.body_hu, b.shapes.level - b.body_hu, wa, wb)


def _histogram(a: Marked, b: Marked, wa: Weights, wb: Weights) -> float:
    return histogram_distance(wa @ a.histogram, wb @ b.histogram)


def _share(name: str) -> Of:
    return lambda a, b, wa, wb: mean(np.asarray(getattr(a.shapes, name), np.float64), wa)


_FAR = "in standard deviations of real masks; well above the real value means"

_FIGURES: tuple[tuple[str, str, Of, str], ...] = (
    (
        "area", "", _spread("area", 1.0),
        f"how far the areas of the masks are from real ones, {_FAR} organs of the wrong size.",
    ),
    (
        "elongation", "", _spread("elongation", 0.1),
        f"how far the masks are from as long and thin as real ones, {_FAR} the wrong form.",
    ),
    (
        "components", "", _spread("components", 1.0),
        f"how far the masks are from as many parts as real ones, {_FAR} torn or merged masks.",
    ),
    (
        "across", "", _spread("across", 0.02),
        f"how far the organ is from its place between left and right, {_FAR} the wrong place.",
    ),
    (
        "down", "", _spread("down", 0.02),
        f"how far the organ is from its place between front and back, {_FAR} the wrong place.",
    ),
    (
        "level", "{unit}", _level,
        "how far the {values} under the masks, above the body's median, are from real ones; well "
        "above the real value, the mask lies on something else, or the organ has the wrong "
        "contrast.",
    ),
    (
        "histogram", "{unit}", _histogram,
        "how far the {values} of all pixels under the masks would have to be moved to have the "
        "real histogram; it also holds whatever the family fidelity says of {values} and noise.",
    ),
    (
        "inside", "", _share("inside"),
        "share of the mask that lies in the body; below the real value, masks reach into the air.",
    ),
    (
        "shown", "", _share("shown"),
        "share of slices that show the organ at all; below the real value, some have no mask to "
        "learn from.",
    ),
)  # fmt: skip

KINDS = tuple(kind for kind, *_ in _FIGURES)


def _label(
    evidence: Evidence,
    label: str,
    found: list[Marked],
    bounds: Mapping[str, Bound],
    kinds: Collection[str] = KINDS,
) -> list[Figure]:
    """The figures of one label, or those of them in ``kinds``."""
    modality = evidence.modality
    pixels = float(np.nanmedian(found[2].shapes.area)) / evidence.heldout.pixel_mm**2
    made = []
    for kind, unit, of, sentence in _FIGURES:
        if kind not in kinds:
            continue
        name = f"anatomy.{kind}.{label}"
        value, real = compared(of, found, evidence.seed, name, 0.0)
        if not np.isfinite(value.value):
            continue
        bound = None if kind == "level" and pixels < THICK_PX else bound_of(name, bounds)
        made.append(
            Figure(
                name,
                value.value,
                real,
                f"{label}: {sentence.format(values=intensities(modality))}",
                len(found[0].cases),
                len(found[2].cases),
                evidence.seed,
                low=value.low,
                high=value.high,
                unit=unit.format(unit=modality.unit),
                bound=bound.for_unit(modality) if bound is not None and unit else bound,
            )
        )
    return made


# Masks and pictures: does a segmenter of real slices find the masks where they are?


def witness(
    train: SliceSet,
    window_hu: tuple[float, float],
    *,
    count: int = IMAGES,
    seed: int = 0,
    device: str | torch.device = "cpu",
    bar: Progress | None = None,
) -> Segmenter:
    """Train a segmenter of real slices, as they are and once more blurred, noised and shifted.

    So it judges where the organ lies and not how the picture looks.

    Args:
        train: real training slices with label maps.
        window_hu: (low, high) of its input.
        count: slices it sees, of at most half as many different ones.
        seed: of all draws.
        device: where it trains.
        bar: progress, advanced with every batch.

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
    """Blur, noise and shift each slice (n, y, x) by its own amounts, then clip it to the window.

    ``per_hu`` stored units weigh as one HU of CT.
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


def _agreement(
    evidence: Evidence, network: Segmenter, labels: Sequence[str], bounds: Mapping[str, Bound]
) -> tuple[list[Figure], list[Picture]]:
    """Dice of each label's masks with those that the segmenter finds, and the worst of them."""
    synthetic = evidence.synthetic.some(MOST, evidence.seed)
    heldout = evidence.heldout.some(MOST, evidence.seed)
    ids = [evidence.heldout.names[label] for label in labels]
    assert synthetic.labels is not None
    assert heldout.labels is not None
    found = network.predict(synthetic.images)
    scores = dice(found, synthetic.labels, ids)
    real_scores = dice(network.predict(heldout.images), heldout.labels, ids)
    figures = []
    for label, ours, theirs in zip(labels, scores.T, real_scores.T, strict=True):
        name = f"anatomy.agreement.{label}"
        figures += _of_slices(
            evidence, name, ours, theirs, synthetic.cases, len(heldout),
            f"{label}: Dice of the masks with those that a segmenter of real training slices "
            "finds in the same pictures, beside its Dice on held-out patients; well below "
            "that, the masks do not lie where the pictures show the organ.",
            bound_of(name, bounds),
            extractor="segmenter of real training slices",
        )  # fmt: skip
    return figures, [_worst(synthetic, found, np.nan_to_num(scores, nan=1.0).min(1), evidence)]


def _worst(slices: SliceSet, found: LabelMap, scores: Values, evidence: Evidence) -> Picture:
    assert slices.labels is not None
    rows = []
    for i in np.argsort(scores, kind="stable")[:WORST]:
        image, window = slices.images[i], evidence.window_hu
        rows.append([
            plain(image, window),
            outlined(image, window, slices.labels[i] > 0, GIVEN),
            outlined(image, window, found[i] > 0, FOUND),
        ])  # fmt: skip
    return Picture(
        "Where mask and picture agree least",
        "The synthetic slice, its mask (green), and what a segmenter of real slices finds in it "
        "(orange).",
        rows,
    )


# Stacks: how much slices of one case that lie on each other differ


@dataclass(frozen=True)
class Pairs:
    """Pairs of slices of one case.

    Attributes:
        hu: mean difference in HU of each pair (pairs,).
        dice: Dice of the masks of each pair (pairs,).
        cases: of each pair.
    """

    hu: Values
    dice: Values
    cases: list[str]


def stride(slices: SliceSet, step_mm: float) -> int | None:
    """How many slices of a set make up ``step_mm``, or None where no number of them is near it."""
    count = max(1, round(step_mm / slices.step_mm))
    near = abs(count * slices.step_mm - step_mm) <= STEP_TOLERANCE * step_mm
    return count if near else None


def pairs(slices: SliceSet, stride: int = 1) -> Pairs:
    """Compare the slices of one case that are ``stride`` slices apart."""
    places = {
        place: i for i, place in enumerate(zip(slices.cases, slices.heights.tolist(), strict=True))
    }
    hu, dice, cases = [], [], []
    for (case, height), i in places.items():
        other = places.get((case, height + stride))
        if other is None:
            continue
        both = [i, other]
        found = continuity(
            slices.images[both],
            None if slices.labels is None else slices.labels[both],
            slices.modality,
        )
        hu.append(found.hu[0])
        dice.append(found.dice[0])
        cases.append(case)
    return Pairs(np.array(hu, np.float64), np.array(dice, np.float64), cases)


def _continuity(evidence: Evidence, bounds: Mapping[str, Bound]) -> tuple[list[Figure], list[str]]:
    """How much adjoining slices of a synthetic case differ, and real ones as far apart."""
    synthetic, train, modality = evidence.synthetic, evidence.train, evidence.modality
    found = pairs(synthetic)
    if not found.cases:
        return [], [
            "Through-plane continuity: no synthetic case has slices that lie on each other."
        ]
    apart = stride(train, synthetic.step_mm)
    real = None if apart is None else pairs(train, apart)
    if real is None or not real.cases:
        return [], [
            f"Through-plane continuity: no real slices lie {synthetic.step_mm:g} mm apart, as "
            "those of the synthetic cases do."
        ]
    levels = _of_slices(
        evidence, "anatomy.continuity.hu", found.hu, real.hu, found.cases, len(real.cases),
        f"Mean difference in {intensities(modality)} of slices that lie on each other; well above "
        "the real value, organs jump from slice to slice, well below it the stack hardly changes.",
        bound_of("anatomy.continuity.hu", bounds), unit=modality.unit,
    )  # fmt: skip
    masks = _of_slices(
        evidence, "anatomy.continuity.dice", found.dice, real.dice, found.cases, len(real.cases),
        "Dice of the masks of slices that lie on each other; well below the real value, masks jump "
        "from slice to slice, well above it the organ hardly changes.",
        bound_of("anatomy.continuity.dice", bounds),
    )  # fmt: skip
    name = f"anatomy.continuity.{modality.unit.lower()}"
    return [*(replace(figure, name=name) for figure in levels), *masks], []


def _of_slices(
    evidence: Evidence,
    name: str,
    ours: Values,
    theirs: Values,
    cases: Sequence[str],
    n_real: int,
    sentence: str,
    bound: Bound | None,
    *,
    unit: str = "",
    extractor: str | None = None,
) -> list[Figure]:
    """The figure of the mean of values (n,) and real ones (m,); none where a mean is no number."""
    value = bootstrap(lambda weights: mean(ours, weights), (cases,), evidence.seed, name, 0.0)
    real = mean(theirs)
    if not np.isfinite(value.value) or not np.isfinite(real):
        return []
    return [
        Figure(
            name, value.value, real, sentence, len(ours), n_real, evidence.seed, extractor,
            value.low, value.high, unit, bound,
        )
    ]  # fmt: skip
