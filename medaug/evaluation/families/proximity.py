"""Measure how near synthetic slices lie to training and to held-out ones in a feature space."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from torch import Tensor

from medaug.core.types import HU
from medaug.evaluation.families.membership import attack
from medaug.evaluation.figures import Figure
from medaug.evaluation.metrics.nearest import alone, authentic, by_case, closer, expected
from medaug.evaluation.slices.evidence import Evidence, SliceSet

Space = Callable[[HU], Tensor]
"""HU (n, y, x) to features (n, d)."""

Index = npt.NDArray[np.int64]
Statistic = Callable[[Index, Index, Index], float]
"""Of some synthetic slices against some training and some held-out patients, by index."""

DRAWS = 200

TO_TRAIN = (
    "Typical distance from a synthetic slice to the nearest training slice, when looked for among "
    "as many training patients as unseen ones; well below the distance to unseen patients, or the "
    "real value, it means that the output clings to the patients it was made from."
)
TO_HELDOUT = (
    "Typical distance from a synthetic slice to the nearest slice of patients who were never "
    "trained on, among as many of them as training patients: what the distance to training slices "
    "should be like."
)
CLOSER = (
    "Share of synthetic slices that are closer to a training patient than to an unseen one, as if "
    "there were as many of each; 0.5 is ideal, and towards 1 the output repeats its training data."
)
AUTHENTIC = (
    "Share of synthetic slices that are farther from their nearest training slice than that slice "
    "is from its own neighbour; 1 is best, and what is missing to the real value are slices that "
    "look like slightly changed training slices."
)
AUC = (
    "How well someone who sees only the synthetic slices could tell whether a patient's slice was "
    "trained on: 0.5 is a coin toss and safe, 1 gives every member away."
)


def proximity(evidence: Evidence, name: str, space: Space) -> list[Figure]:
    """Measure one space: the nearest slices, authenticity, membership by distance."""
    synthetic, train, heldout = evidence.synthetic, evidence.train, evidence.heldout
    features = {id(part): space(part.images) for part in (synthetic, train, heldout)}
    ours, theirs, unseen = (features[id(part)] for part in (synthetic, train, heldout))
    several = len(set(train.cases)) > 1
    stand_in = train.some(len(synthetic), evidence.seed) if several else None
    other = None
    if stand_in is not None:
        other = theirs if stand_in is train else space(stand_in.images)

    to_train, to_heldout = by_case(ours, theirs, train.cases), by_case(ours, unseen, heldout.cases)
    p, q = to_train.shape[1], to_heldout.shape[1]
    sides = [expected(side, min(p, q)) for side in (to_train, to_heldout)]
    between = alone(theirs)
    new = authentic(ours, theirs, train.cases, between)
    real: list[float | None] = [None] * 4
    if stand_in is not None and other is not None:
        again = by_case(other, theirs, train.cases, stand_in.cases)
        opposite = by_case(other, unseen, heldout.cases)
        count = min(p - 1, q)
        real = [
            *(float(np.median(expected(side, count))) for side in (again, opposite)),
            closer(again, opposite),
            float(authentic(other, theirs, train.cases, between, stand_in.cases).mean()),
        ]
    unit = evidence.modality.unit if name in ("pixels", "cells") else ""
    statistics: list[tuple[str, str, str, Statistic]] = [
        ("nearest_train", TO_TRAIN, unit, lambda rows, *_: float(np.median(sides[0][rows]))),
        ("nearest_heldout", TO_HELDOUT, unit, lambda rows, *_: float(np.median(sides[1][rows]))),
        (
            "closer",
            CLOSER,
            "",
            lambda rows, i, j: closer(to_train[rows][:, i], to_heldout[rows][:, j]),
        ),
        ("authenticity", AUTHENTIC, "", lambda rows, *_: float(new[rows].mean())),
    ]
    everything = np.arange(len(synthetic)), np.arange(p), np.arange(q)
    draws = _draws(synthetic, p, q, evidence.seed)
    figures = []
    for (what, sentence, unit, statistic), beside in zip(statistics, real, strict=True):
        low, high = np.quantile([statistic(*draw) for draw in draws], [0.025, 0.975])
        figures.append(
            Figure(
                f"privacy.{what}.{name}",
                statistic(*everything),
                beside,
                sentence,
                len(synthetic),
                len(train) + len(heldout),
                evidence.seed,
                name,
                float(low),
                float(high),
                unit,
            )
        )
    return figures + _membership(evidence, name, features, stand_in, other)


def _draws(synthetic: SliceSet, p: int, q: int, seed: int) -> list[tuple[Index, Index, Index]]:
    """Resamples: slices of synthetic cases, training patients, held-out patients, by index."""
    names, number = np.unique(np.array(synthetic.cases), return_inverse=True)
    groups = [np.flatnonzero(number == k) for k in range(len(names))]
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(DRAWS):
        cases = rng.integers(len(groups), size=len(groups))
        rows = np.concatenate([groups[i] for i in cases])
        draws.append((rows, rng.integers(p, size=p), rng.integers(q, size=q)))
    return draws


def _membership(
    evidence: Evidence,
    name: str,
    features: dict[int, Tensor],
    stand_in: SliceSet | None,
    other: Tensor | None,
) -> list[Figure]:
    """Attack by the distance of real slices to the nearest synthetic one."""
    synthetic, train, heldout = evidence.synthetic, evidence.train, evidence.heldout
    ours, theirs, unseen = (features[id(part)] for part in (synthetic, train, heldout))
    one = ["synthetic"] * len(synthetic)
    scores = by_case(theirs, ours, one)[:, 0], by_case(unseen, ours, one)[:, 0]
    real = None
    if stand_in is not None and other is not None:
        known = by_case(theirs, other, stand_in.cases, train.cases)
        new = by_case(unseen, other, stand_in.cases)
        if count := new.shape[1] - 1:
            real = expected(known, count), expected(new, count)
    return attack(name, scores, real, AUC, evidence, len(synthetic), name)
