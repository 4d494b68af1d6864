"""Dice, Hausdorff distance and surface Dice of one scan, its slices stacked.

Distances are MONAI's, between surfaces of voxels, in mm.  Taha and Hanbury 2015 for the first two,
Nikolov et al. 2018, arXiv 1809.04430, for the surface Dice.
"""

import math
import warnings
from collections.abc import Mapping

import numpy as np
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice

from medaug.core.types import LabelMap

METRICS = {"dice": 1, "hd95": -1, "surface_dice": 1}
"""Name to whether more (1) or less (-1) is better."""

Scores = dict[str, dict[str, float]]


def case_scores(
    found: LabelMap,
    truth: LabelMap,
    labels: Mapping[str, int],
    spacing_mm: tuple[float, float, float],
    tolerance_mm: float,
) -> Scores:
    """Each metric of each label that either stack shows: ``{"dice": {"pancreas": 0.8}, ...}``.

    Where only one of the two shows a label, both Dice are 0 and the distance is the diagonal of
    the stack.  A stack of one slice is measured in its plane.

    Args:
        found: label ids (z, y, x).
        truth: of the same shape.
        labels: name to id.
        spacing_mm: along z, y, x.
        tolerance_mm: how far apart surfaces may be to count as the same in the surface Dice.
    """
    scores: Scores = {name: {} for name in METRICS}
    diagonal = math.hypot(*(n * step for n, step in zip(truth.shape, spacing_mm, strict=True)))
    for name, number in labels.items():
        mine, real = found == number, truth == number
        if not (mine.any() or real.any()):
            continue
        scores["dice"][name] = float(2.0 * (mine & real).sum() / (mine.sum() + real.sum()))
        if not (mine.any() and real.any()):
            scores["hd95"][name], scores["surface_dice"][name] = diagonal, 0.0
            continue
        scores["hd95"][name], scores["surface_dice"][name] = _surfaces(
            mine, real, spacing_mm, tolerance_mm
        )
    return scores


def _surfaces(
    mine: np.ndarray, real: np.ndarray, spacing: tuple[float, ...], tolerance: float
) -> tuple[float, float]:
    """95th percentile of surface distances in mm, and the share of surface within tolerance."""
    if len(mine) == 1:
        mine, real, spacing = mine[0], real[0], spacing[1:]
    a, b = (torch.from_numpy(part)[None, None].float() for part in (mine, real))
    steps = list(spacing)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI's, about a default of its own
        far = compute_hausdorff_distance(
            a, b, include_background=True, percentile=95, spacing=steps
        )
        near = compute_surface_dice(a, b, [tolerance], include_background=True, spacing=steps)
    return float(far), float(near)


def mean_scores(scores: Scores) -> dict[str, float]:
    """Each metric's mean over the labels of a case; empty where it has none."""
    return {
        name: math.fsum(values.values()) / len(values) for name, values in scores.items() if values
    }
