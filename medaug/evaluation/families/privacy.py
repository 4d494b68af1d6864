"""Measure privacy: is a synthetic slice somebody's scan?

Figures are distances, authenticity, membership and suspected copies.  Distances are measured in
``pixels`` (slices averaged to at most 64 a side), in ``cells`` (16 x 16 thumbnails), and in the
feature spaces given.  The real value of a figure is that of training slices in the place of the
synthetic ones, each compared with the training slices of other patients: what slices of a patient
outside the training set would give.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.stats import beta
from torch import Tensor

from medaug.core.types import HU
from medaug.evaluation.families.membership import Loss, by_loss
from medaug.evaluation.families.proximity import Space, proximity
from medaug.evaluation.figures import Bound, Family, Figure
from medaug.evaluation.metrics.copies import Match, Search, Threshold, aligned, planted, threshold
from medaug.evaluation.metrics.copies import reduced as pixels
from medaug.evaluation.slices.evidence import Evidence
from medaug.evaluation.slices.seen import Seen
from medaug.runtime.pictures import Picture, grey, upright
from medaug.synthesis.filter.measures import descriptor

BOUNDS: Mapping[str, Bound] = {
    "privacy.copies": Bound(most=0.03),
    "privacy.copies_found": Bound(least=0.8),
    "privacy.membership_auc.pixels": Bound(most=0.9),
}
"""Real slices may give a share of copies of 1 %; the rest allows for small numbers.  With few
held-out patients the attack's area is far from 0.5 by chance, so only a large one fails."""

REAL = 1000
"""Real slices, of each kind, that the threshold of copies and its check are taken from."""

PLANTED = 200
"""Training slices that are copied on purpose."""

PAIRS = 8
"""Pairs of slices shown."""


def measure(
    evidence: Evidence,
    *,
    seen: Seen | None = None,
    spaces: Mapping[str, Space] | None = None,
    loss: Loss | str | None = None,
    bounds: Mapping[str, Bound] | None = None,
) -> Family:
    """Measure the figures of the family privacy.

    Args:
        evidence: the slices.
        seen: slices among which copies are sought; by default the training slices.
        spaces: feature spaces beside pixels and cells, by name.
        loss: of the generator; None without its weights, or a sentence that says why it has none.
        bounds: by name of the figure, in addition to ``BOUNDS``.
    """
    allowed = {**BOUNDS, **(bounds or {})}
    patients = len(set(evidence.train.cases))
    seen = seen or Seen.of(evidence.train, evidence.window_hu)
    skipped = list(seen.unknown)
    if patients < 2:
        skipped.append(
            "Real values of distances and copies need two training patients or more; there is one."
        )
    if len(evidence.heldout) < 100:
        skipped.append(
            f"With {len(evidence.heldout)} held-out slices, fewer than 100, no false positive is "
            "allowed where 1 % is meant: true positive rates are lower than at 1 %."
        )
    figures: list[Figure] = []
    for name, space in {"pixels": _flat, "cells": _cells, **(spaces or {})}.items():
        figures += proximity(evidence, name, space)
    if not isinstance(loss, Loss):
        reason = loss or "it needs its weights and an encoder"
        skipped.append(f"Membership by the model's own loss: {reason}.")
    else:
        figures += by_loss(evidence, loss)
    copies, pictures, details = _copies(evidence, seen)
    figures = [replace(figure, bound=allowed.get(figure.name)) for figure in (*copies, *figures)]
    return Family("privacy", figures, pictures, details=details, skipped=skipped)


def _flat(images: HU) -> Tensor:
    return torch.from_numpy(pixels(images)).flatten(1)


def _cells(images: HU) -> Tensor:
    return descriptor(torch.from_numpy(pixels(images)))


def _copies(evidence: Evidence, seen: Seen) -> tuple[list[Figure], list[Picture], dict[str, Any]]:
    """The share of suspected copies, the likeliest pairs, and the list of all suspects."""
    synthetic, train, low = evidence.synthetic, evidence.train, evidence.window_hu[0]
    search = Search(seen.parts(), seen.cases, low)
    heldout = evidence.heldout.some(REAL, evidence.seed)
    some = train.some(PLANTED, evidence.seed).images
    copied = planted(some, evidence.window_hu, evidence.seed, evidence.modality.per_hu)
    line = threshold(search.scores(heldout.images), search.scores(copied))
    matches = search.match(synthetic.images)
    scores = np.array([m.score for m in matches])
    real = None
    if len(set(train.cases)) > 1:
        queries = train.some(min(REAL, len(synthetic)), evidence.seed)
        again = search.scores(queries.images, queries.cases)
        real = float(np.mean([m > line.value for m in again]))
    order = np.argsort(-scores, kind="stable")
    listed = [_pair(evidence, seen, int(i), matches[i]) for i in order if scores[i] > line.value]
    space = f"detail at {search.shape[0]} x {search.shape[1]} px"
    low_end, high_end = exact_interval(len(listed), len(synthetic))
    figure = Figure(
        "privacy.copies",
        len(listed) / len(synthetic),
        real,
        "Share of synthetic slices that show a training slice again, even if shifted by a few "
        "pixels, mirrored, noisier or slightly bent; slices of patients who were never trained on "
        "give at most 1 %, and anything clearly above that means patients' scans are being passed "
        "on: look at the listed pairs.",
        len(synthetic),
        len(seen),
        evidence.seed,
        space,
        low_end,
        high_end,
    )
    shown = [(int(i), matches[i], bool(scores[i] > line.value)) for i in order[:PAIRS]]
    details = {
        "copies": {
            "threshold": line.value,
            "unseen": line.unseen,
            "planted": line.planted,
            "calibrated_on": len(heldout),
            "listed": listed,
        },
    }
    found = Figure(
        "privacy.copies_found",
        line.found,
        None,
        "Share of copies, made of training slices on purpose, that this search lists; well below "
        "0.95 it is too blunt for these slices, and a short list of suspects says little.",
        len(copied),
        len(seen),
        evidence.seed,
        space,
        *exact_interval(round(line.found * len(copied)), len(copied)),
    )
    return [figure, found], [_pictures(evidence, seen, shown, line)], details


def exact_interval(count: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of a share ``count`` / ``n`` (Clopper and Pearson 1934)."""
    tail = (1 - level) / 2
    low = beta.ppf(tail, count, n - count + 1) if count else 0.0
    high = beta.ppf(1 - tail, count + 1, n - count) if count < n else 1.0
    return float(low), float(high)


def _pair(evidence: Evidence, seen: Seen, index: int, match: Match) -> dict[str, Any]:
    """One suspect as JSON values; its distance is to the training slice moved onto it."""
    synthetic = evidence.synthetic
    moved = aligned(seen.image(match.index), match, evidence.window_hu[0])
    apart = synthetic.images[index].astype(float) - moved
    return {
        "synthetic": synthetic.cases[index],
        "synthetic_slice": int(synthetic.heights[index]),
        "training": seen.cases[match.index],
        "training_slice": int(seen.heights[match.index]),
        "correlation": match.score,
        "mirrored": match.mirrored,
        f"rms_{evidence.modality.unit.lower()}": float(np.sqrt(np.square(apart).mean())),
    }


def _pictures(
    evidence: Evidence, seen: Seen, shown: list[tuple[int, Match, bool]], line: Threshold
) -> Picture:
    """Rows of synthetic slice, training slice moved onto it, and their difference."""
    low, high = evidence.window_hu
    rows, names = [], []
    for index, match, suspect in shown:
        image = evidence.synthetic.images[index]
        moved = aligned(seen.image(match.index), match, low)
        apart = image.astype(np.float32) - moved
        half = (high - low) / 2
        rows.append(
            [
                upright(grey(image.astype(np.float32), (low, high))),
                upright(grey(moved.astype(np.float32), (low, high))),
                upright(grey(apart, (-half, half))),
            ]
        )
        verdict = "suspected copy" if suspect else "no copy"
        case = seen.cases[match.index]
        names.append(f"{verdict}: correlation {match.score:.3f} with a slice of {case}")
    return Picture(
        "The synthetic slices most like a training slice",
        "Each synthetic slice, the training slice it is most like, shifted and mirrored onto it, "
        f"and their difference, grey where they agree. Above a correlation of {line.value:.3f} of "
        "their detail, which hardly any slice of an unseen patient reaches, a slice is suspected "
        "to be a copy.",
        rows,
        names,
    )
