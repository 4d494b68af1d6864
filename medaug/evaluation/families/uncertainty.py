"""Measure uncertainty: does the spread of alternatives say where a model is wrong, and how much?

The alternatives that the model draws for held-out slices are compared with what was scanned.  Only
pixels of the body count.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from medaug.evaluation.figures import Bound, Curve, Family, Figure
from medaug.evaluation.metrics.calibration import (
    BINS,
    STEPS,
    covered,
    energy_distance,
    gaps,
    rank_correlation,
    remaining,
    sparsification_error,
)
from medaug.evaluation.metrics.intervals import Statistic, Weights, bootstrap, mean
from medaug.evaluation.metrics.mask_shapes import Masks, Values
from medaug.evaluation.page.overlays import heated, plain
from medaug.evaluation.slices.alternatives import Alternatives
from medaug.evaluation.slices.evidence import Evidence
from medaug.runtime.pictures import Picture

BOUNDS: Mapping[str, Bound] = {
    "uncertainty.rank": Bound(least=0.1),
    "uncertainty.sparsification": Bound(most=0.95),
    "uncertainty.coverage.90": Bound(least=0.6),
}
"""The spread must point to the error better than chance does, and not be far too small."""

LEVELS = (50, 90)
SHOWN = 4
"""Held-out slices in the picture."""


@dataclass(frozen=True)
class Measured:
    """Figures of each slice (n,) by name, and the curves (n, STEPS) of its sparsification."""

    values: Mapping[str, Values]
    by_std: Values
    by_error: Values


def measure(
    evidence: Evidence,
    alternatives: Alternatives | str,
    bounds: Mapping[str, Bound] = BOUNDS,
) -> Family:
    """Measure the figures of the family uncertainty.

    Args:
        evidence: gives the window and the seed.
        alternatives: of held-out slices, or a sentence that says why there are none.
        bounds: by name of the figure.
    """
    if isinstance(alternatives, str):
        return Family("uncertainty", [], skipped=[alternatives])
    low, high = evidence.window_hu
    inside = alternatives.real.bodies
    if not inside.any():
        return Family("uncertainty", [], skipped=["The held-out slices show no body."])
    found = _images(alternatives, inside, low, high)
    skipped = []
    if alternatives.labels is None:
        skipped.append("Masks: the model draws none for held-out slices, so none are calibrated.")
    figures = []
    for name, values in {**found.values, **_energies(alternatives)}.items():

        def statistic(weights: Weights, values: Values = values) -> float:
            return mean(values, weights)

        n = int(np.isfinite(values).sum())
        made = _figure(name, statistic, n, alternatives, evidence.seed, bounds)
        if not made:
            skipped.append(f"{name}: no held-out slice shows anything to compare.")
        figures += made
    figures += _calibrated(alternatives, evidence.seed, bounds)
    details = {
        "how": alternatives.how,
        "alternatives": alternatives.images.shape[1],
        "masks_seen": alternatives.masks_seen,
    }
    curves = [_curve(found)] if np.isfinite(found.by_std).any() else []
    pictures = [_picture(alternatives, inside, evidence)]
    return Family("uncertainty", figures, pictures, curves, details, skipped)


def _images(part: Alternatives, inside: Masks, low: float, high: float) -> Measured:
    names = ("rank", "sparsification", "ause", "ause.random", "scale",
             *(f"coverage.{level}" for level in LEVELS))  # fmt: skip
    values = {f"uncertainty.{name}": np.full(len(part.real), np.nan) for name in names}
    by_std, by_error = np.full((2, len(part.real), STEPS), np.nan)
    for i, within in enumerate(inside):
        if within.sum() < STEPS:
            continue
        draws = np.clip(part.images[i][:, within], low, high).astype(np.float64)
        real = np.clip(part.real.images[i][within], low, high).astype(np.float64)
        std, error = draws.std(0, ddof=1), np.abs(draws.mean(0) - real)
        ause, chance = sparsification_error(error, std)
        spread, k = float(np.square(std).mean()), len(draws)
        row = {
            "rank": rank_correlation(std, error),
            "ause": ause,
            "ause.random": chance,
            "sparsification": ause / chance if chance > 0 else float("nan"),
            "scale": float(np.sqrt(np.square(error).mean() / (spread * (1 + 1 / k))))
            if spread
            else float("nan"),
        }
        for level in LEVELS:
            row[f"coverage.{level}"] = float(covered(draws, real, level / 100).mean())
        for name, value in row.items():
            values[f"uncertainty.{name}"][i] = value
        if error.any():
            by_std[i], by_error[i] = remaining(error, std), remaining(error, error)
    return Measured(values, by_std, by_error)


def _energies(part: Alternatives) -> dict[str, Values]:
    """Energy distance (n,) of each label's alternative masks, and of the first of them alone."""
    found: dict[str, Values] = {}
    if part.labels is None or part.real.labels is None:
        return found
    for name, label in part.real.names.items():
        energy, single = np.full((2, len(part.real)), np.nan)
        for i, (drawn, given) in enumerate(zip(part.labels, part.real.labels, strict=True)):
            votes, real = drawn.reshape(len(drawn), -1) == label, given.ravel() == label
            if votes.any() or real.any():
                energy[i] = energy_distance(votes, real[None])
                single[i] = energy_distance(votes[:1], real[None])
        found[f"uncertainty.energy.{name}"] = energy
        found[f"uncertainty.single.{name}"] = single
    return found


def _calibrated(part: Alternatives, seed: int, bounds: Mapping[str, Bound]) -> list[Figure]:
    """Calibration error of each label's votes.

    Of the pixels that the real mask or any alternative holds, all slices pooled: over whole slices
    the sure background would hide every error, and one slice has too few pixels for bins.
    """
    made: list[Figure] = []
    if part.labels is None or part.real.labels is None:
        return made
    for name, label in part.real.names.items():
        gap, count = np.zeros((len(part.real), BINS)), np.zeros(len(part.real))
        for i, (drawn, given) in enumerate(zip(part.labels, part.real.labels, strict=True)):
            votes, real = drawn == label, given == label
            near = votes.any(0) | real
            gap[i] = gaps(votes[:, near].mean(0), real[near])
            count[i] = near.sum()

        def error(weights: Weights, gap: Values = gap, count: Values = count) -> float:
            total = float(weights @ count)
            return float(np.abs(weights @ gap).sum()) / total if total else float("nan")

        name, n = f"uncertainty.calibration.{name}", int((count > 0).sum())
        made += _figure(name, error, n, part, seed, bounds)
    return made


def _figure(
    name: str,
    statistic: Statistic,
    n: int,
    part: Alternatives,
    seed: int,
    bounds: Mapping[str, Bound],
) -> list[Figure]:
    """The figure of a statistic of weighted slices; none where it is not a number."""
    value = bootstrap(statistic, (part.real.cases,), seed, name)
    if not np.isfinite(value.value):
        return []
    kind = name.removeprefix("uncertainty.")
    sentence = next(text for key, text in _SENTENCES if kind.startswith(key))
    return [
        Figure(
            name, value.value, None, sentence, n, n, part.seed,
            low=value.low, high=value.high, bound=bounds.get(name),
        )
    ]  # fmt: skip


_SENTENCES = (
    (
        "rank",
        "Rank correlation of spread and error, pixel by pixel within held-out slices: 1 if the "
        "spread is largest where the model is most wrong, 0 if it says nothing of it, below 0 if "
        "it misleads.",
    ),
    (
        "sparsification",
        "How much of the error is missed when the most uncertain pixels are left out first: 0 for "
        "a perfect order, 1 for a random one; above 1 the uncertainty misleads.",
    ),
    (
        "ause.random",
        "The same area for a random order of the pixels: what an uncertainty without any value "
        "gets.",
    ),
    (
        "ause",
        "Area between the sparsification curve of the spread and that of the error itself; 0 is "
        "perfect, the value of a random order is worthless.",
    ),
    (
        "scale",
        "How many times larger the error is than the spread says; 1 is right, above 1 the model "
        "is too sure of itself, and its spread is no error bar.",
    ),
    (
        "coverage.50",
        "Share of pixels whose scanned value lies in the 50 % interval of the alternatives; should "
        "be 0.5, and much less means that the model is too sure of itself.",
    ),
    (
        "coverage.90",
        "Share of pixels whose scanned value lies in the 90 % interval of the alternatives; should "
        "be 0.9, and much less means that the model is too sure of itself.",
    ),
    (
        "calibration",
        "How far, on average, the share of alternatives that mark a pixel is from how often such "
        "pixels are marked in truth; 0 is calibrated, and much above it the votes are no "
        "probabilities.",
    ),
    (
        "single",
        "The energy distance of one alternative alone, as if the model were certain; the several "
        "should do better than it.",
    ),
    (
        "energy",
        "How far the alternative masks together are from the real one, their variety counted in "
        "their favour; 0 is right and certain, 2 is disjoint and certain.",
    ),
)


def _curve(found: Measured) -> Curve:
    share = (np.arange(STEPS) / STEPS).tolist()
    lines = {
        "by the spread": (share, np.nanmean(found.by_std, 0).tolist()),
        "by the error itself": (share, np.nanmean(found.by_error, 0).tolist()),
        "at random": (share, [1.0] * STEPS),
    }
    return Curve(
        "Sparsification",
        "The error that is left when the most uncertain pixels are left out first, over that of "
        "all pixels. A useful uncertainty falls below the random line.",
        "share of pixels left out",
        "mean error left",
        lines,
    )


def _picture(part: Alternatives, inside: Masks, evidence: Evidence) -> Picture:
    chosen = np.unique(np.linspace(0, len(part.real) - 1, SHOWN).round().astype(int))
    low, high = window = evidence.window_hu
    std, error = [], []
    for i in chosen:
        draws = np.clip(part.images[i], low, high).astype(np.float64)
        std.append(np.where(inside[i], draws.std(0, ddof=1), 0))
        real = np.clip(part.real.images[i], low, high)
        error.append(np.where(inside[i], np.abs(draws.mean(0) - real), 0))
    most = float(np.percentile(np.stack([*std, *error]), 99.5))
    rows = []
    for i, spread, wrong in zip(chosen, std, error, strict=True):
        shown = part.real.images[i]
        rows.append([
            plain(shown, window),
            heated(shown, window, spread, most),
            heated(shown, window, wrong, most),
        ])  # fmt: skip
    return Picture(
        "Uncertainty and error on held-out slices",
        f"The slice, the spread of its alternatives, and how far their mean is from the slice; "
        f"both maps from 0 to {most:.0f} {evidence.modality.unit}. They should be bright in the "
        "same places.",
        rows,
        [part.real.cases[i] for i in chosen],
    )
