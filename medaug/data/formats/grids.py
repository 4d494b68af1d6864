"""Compare the grids of an image and its label, and turn volumes to RAS order."""

from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from medaug.core.errors import DataError
from medaug.core.types import Affine

AFFINE_TOLERANCE = 1e-3
NEGLIGIBLE = 1e-9
"""Share of an axis along another one that is taken as rounding."""
_FORWARD, _BACKWARD = slice(None), slice(None, None, -1)


def check_geometry(
    image_shape: tuple[int, ...],
    image_affine: Affine,
    label_shape: tuple[int, ...],
    label_affine: Affine,
) -> None:
    """Refuse a label that does not lie on its image's grid.

    Args:
        image_shape: voxels along each axis.
        image_affine: maps voxel indices to RAS+ mm.
        label_shape: voxels along each axis.
        label_affine: maps voxel indices to RAS+ mm.

    Raises:
        DataError: the shapes differ, or the affines by more than 1e-3 anywhere.
    """
    if image_shape != label_shape:
        ends = ""
        if image_shape[:2] == label_shape[:2] and label_shape[2] == image_shape[2] + 1:
            ends = f"slice {label_shape[2]} is missing at the end of the series, or "
        raise DataError(
            f"label has shape {label_shape}, image {image_shape}; "
            f"{ends}pair by PatientID, not by list position"
        )
    worst = np.unravel_index(np.argmax(np.abs(image_affine - label_affine)), (4, 4))
    if abs(image_affine[worst] - label_affine[worst]) > AFFINE_TOLERANCE:
        row, column = (int(i) for i in worst)
        raise DataError(
            f"label has another affine than the image: entry [{row}, {column}] is "
            f"{label_affine[worst]:.6g}, image {image_affine[worst]:.6g}; "
            "the label belongs to another scan or lost its header"
        )


def check_pair(
    image_shape: tuple[int, ...],
    image_affine: Affine,
    label_shape: tuple[int, ...],
    label_affine: Affine,
) -> None:
    """Refuse a label that does not lie on its image's grid once both are turned to RAS.

    Converters store the same voxels in other orders: dcm2niix turns the rows and slices of DICOM.

    Args:
        image_shape: voxels along each axis.
        image_affine: maps voxel indices to RAS+ mm.
        label_shape: voxels along each axis.
        label_affine: maps voxel indices to RAS+ mm.

    Raises:
        DataError: the shapes differ, or the affines by more than 1e-3 anywhere.
    """
    grids = (image_shape, image_affine), (label_shape, label_affine)
    if len({nibabel.aff2axcodes(affine) for _, affine in grids}) > 1:
        grids = _turned(*grids[0]), _turned(*grids[1])
    check_geometry(*grids[0], *grids[1])


def _turned(shape: tuple[int, ...], affine: Affine) -> tuple[tuple[int, ...], Affine]:
    """The grid of the same voxels in RAS order."""
    orientation = io_orientation(affine)
    turned = tuple(shape[axis] for axis in np.argsort(orientation[:, 0]))
    return turned, affine @ inv_ornt_aff(orientation, shape)


def to_ras(values: npt.NDArray[Any], affine: Affine) -> tuple[npt.NDArray[Any], Affine]:
    """Turn a volume so that its axes run to the right, to the front and up, as nearly as they can.

    It happens in place where it can: MONAI's ``Orientationd`` fills a second array, and to have
    that memory first touched costs several times the turning.

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
