"""Volumes turned to RAS order in place.

``Orientationd`` gives the same voxels in a second array; for a scan, to have that memory first
touched costs several times the turning.
"""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

NEGLIGIBLE = 1e-9
"""Of an axis, elsewhere."""
_FORWARD, _BACKWARD = slice(None), slice(None, None, -1)


class Canonicald(MapTransform):
    """Single-channel volumes ``(1, x, y, z)`` with their axes nearest to right, anterior, superior.

    Affines follow.  Volumes whose axes need reversing alone are overwritten.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Turn the volumes."""
        return {**data, **{key: _turned(data[key]) for key in self.keys}}


def _turned(volume: MetaTensor) -> MetaTensor:
    values, affine = volume.as_tensor()[0].numpy(), np.asarray(volume.affine, float).copy()
    _drop_negligible(affine[:3, :3])
    orientation = io_orientation(affine)
    axes, signs = orientation.T
    affine = affine @ inv_ornt_aff(orientation, values.shape)
    if list(axes) == [0, 1, 2]:
        _reverse(values, [bool(sign < 0) for sign in signs])
    else:
        values = np.ascontiguousarray(apply_orientation(values, orientation))
    turned = MetaTensor(torch.from_numpy(values)[None], meta=dict(volume.meta))
    turned.affine = torch.from_numpy(affine)
    return turned


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
