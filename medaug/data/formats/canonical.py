"""Turn volumes to RAS order in place.

MONAI's ``Orientationd`` gives the same voxels in a second array; for a scan, to have that memory
first touched costs several times the turning.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from medaug.core.types import Affine

NEGLIGIBLE = 1e-9
"""Share of an axis along another one that is taken as rounding."""
_FORWARD, _BACKWARD = slice(None), slice(None, None, -1)


def to_ras(values: npt.NDArray[Any], affine: Affine) -> tuple[npt.NDArray[Any], Affine]:
    """Turn a volume so that its axes run to the right, to the front and up, as nearly as they can.

    Args:
        values: ``[x, y, z]``; overwritten where axes need only be reversed.
        affine: maps its indices to RAS+ mm.

    Returns:
        the turned volume, and its affine.
    """
    affine = np.array(affine, float)
    _drop_negligible(affine[:3, :3])
    orientation = io_orientation(affine)
    axes, signs = orientation.T
    affine = affine @ inv_ornt_aff(orientation, values.shape)
    if list(axes) != [0, 1, 2]:
        return np.ascontiguousarray(apply_orientation(values, orientation)), affine
    _reverse(values, [bool(sign < 0) for sign in signs])
    return values, affine


def _drop_negligible(axes: npt.NDArray[np.float64]) -> None:
    """Zero what a stored rotation leaves of an axis elsewhere; no voxel moves by a micrometre."""
    axes[np.abs(axes) < NEGLIGIBLE * np.abs(axes).max(0)] = 0


def _reverse(values: npt.NDArray[Any], along: list[bool]) -> None:
    """Reverse ``values`` along some of its axes, a plane at a time."""
    if not any(along):
        return
    plane = tuple(_BACKWARD if backward else _FORWARD for backward in along[1:])
    last = len(values) - 1
    for x in range(len(values)):
        there = last - x if along[0] else x
        if there < x:
            return
        kept = values[x][plane].copy()
        if there != x:
            values[x] = values[there][plane]
        values[there] = kept
