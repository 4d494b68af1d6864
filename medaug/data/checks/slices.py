"""Check the voxels for slices that are there twice, blank, out of order or missing.

DICOM headers show these faults too, and are checked first; a NIfTI file has no headers per slice.
A single slice missing among thin ones cannot be seen in the voxels.
"""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medaug.data.checks.reduced import Reduced, Verdict

FARTHER = 1.5
"""A slice is out of order if another is nearer to it by this factor than both neighbours."""
MISPLACED_DOUBTFUL, MISPLACED_REFUSED = 0.0, 0.1
"""Share of slices out of order.  None is in real scans, nine of ten in shuffled or interleaved."""
JUMP_DOUBTFUL, JUMP_REFUSED = 2.5, 4.0
"""Largest difference between neighbours over the usual one; up to 1.6 in sound real scans."""
BLANK_HU = 1.0
_POOL = 4
_FEWEST = 6
_TISSUE_HU = (-200.0, 250.0)


def check_slices(reduced: Reduced) -> tuple[Verdict, str]:
    """Judge the stack of slices: a verdict, and the reason; slices count from 1 at the feet."""
    hu = reduced.hu
    blank = np.ptp(hu, axis=(0, 1)) < BLANK_HU
    if blank.all():
        return "refused", "every slice is blank"
    inside = np.flatnonzero(~blank)
    within = blank[inside[0] : inside[-1]]
    if within.any():
        first = int(inside[0] + np.argmax(within))
        return "refused", f"slice {first + 1} and {within.sum() - 1} more within the scan are blank"
    stack = hu[:, :, inside]
    twice = np.flatnonzero((stack[:, :, 1:] == stack[:, :, :-1]).all(axis=(0, 1)))
    if len(twice):
        at = int(inside[twice[0]]) + 1
        return "refused", f"slices {at} and {at + 1} are the same, voxel for voxel"
    if len(inside) >= _FEWEST:
        pooled = ndimage.uniform_filter(np.clip(stack, *_TISSUE_HU), (_POOL, _POOL, 0))
        verdict, reason = _order(pooled[_POOL // 2 :: _POOL, _POOL // 2 :: _POOL], inside)
        if verdict != "ok":
            return verdict, reason
    if blank.any():
        return "doubtful", f"{int(blank.sum())} slices at the ends are blank"
    return "ok", ""


def _order(stack: npt.NDArray[np.float32], places: npt.NDArray[np.intp]) -> tuple[Verdict, str]:
    """Judge whether slices are nearest to their neighbours, and steps about equally large."""
    flat = stack.reshape(-1, stack.shape[2]).T
    count = len(flat)
    apart = np.array([np.abs(flat - one).mean(axis=1) for one in flat])
    steps = np.diag(apart, 1)
    beside = np.minimum(np.append(steps, np.inf), np.insert(steps, 0, np.inf))
    np.fill_diagonal(apart, np.inf)
    misplaced = float((beside > FARTHER * apart.min(axis=1)).mean())
    if misplaced > MISPLACED_DOUBTFUL:
        return "refused" if misplaced > MISPLACED_REFUSED else "doubtful", (
            f"{misplaced:.0%} of the {count} slices are nearer to others than to their neighbours; "
            "the slices are out of order"
        )
    usual = float(np.median(steps))
    at = int(np.argmax(steps))
    if usual > 0 and steps[at] > JUMP_DOUBTFUL * usual:
        first = int(places[at]) + 1
        return "refused" if steps[at] > JUMP_REFUSED * usual else "doubtful", (
            f"slices {first} and {first + 1} differ {steps[at] / usual:.1f} times as much as "
            "neighbours do; slices are missing between them"
        )
    return "ok", ""
