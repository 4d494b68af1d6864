"""How slices of one case that lie on each other differ, of synthetic stacks and of real scans."""

from dataclasses import dataclass

import numpy as np

from medaug.data.continuity import continuity
from medaug.evaluate.evidence import SliceSet
from medaug.evaluate.shapes import Values

STEP_TOLERANCE = 0.25
"""How near a multiple of the real slices' distance must come to that of the stacks' slices."""


@dataclass(frozen=True)
class Pairs:
    """What was measured of each pair, (pairs,); see ``medaug.data.continuity``."""

    hu: Values
    dice: Values
    cases: list[str]


def stride(slices: SliceSet, step_mm: float) -> int | None:
    """How many slices of a set make up ``step_mm``, or None where no number of them is near it."""
    count = max(1, round(step_mm / slices.step_mm))
    near = abs(count * slices.step_mm - step_mm) <= STEP_TOLERANCE * step_mm
    return count if near else None


def pairs(slices: SliceSet, stride: int = 1) -> Pairs:
    """The slices of one case that are ``stride`` slices apart."""
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
