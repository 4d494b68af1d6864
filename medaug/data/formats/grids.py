"""Check by the headers that a label lies on its image."""

import nibabel
import numpy as np

from medaug.core.errors import DataError
from medaug.core.types import Affine

AFFINE_TOLERANCE = 1e-3


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
    axes = nibabel.io_orientation(affine)
    turned = [0] * len(shape)
    for size, (place, _) in zip(shape, axes, strict=True):
        turned[int(place)] = size
    return tuple(turned), affine @ nibabel.orientations.inv_ornt_aff(axes, shape)
