"""Bring a case to the grid of another: reorient, resample axis by axis, align the middles."""

from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform
from scipy import ndimage, sparse

from medaug.core.errors import ConfigError
from medaug.core.geometry import resampling_matrix, spacing
from medaug.core.types import Affine
from medaug.transforms.scan import Scan

_SAME = 1e-3
"""Relative difference below which voxel sizes count as equal."""

Turn = npt.NDArray[np.float64]


def turn(affine: Affine, to: Affine) -> Turn:
    """Find the permutation and flips (3, 2), as nibabel writes them, between two orientations."""
    return np.asarray(ornt_transform(io_orientation(affine), io_orientation(to)))


def turned(array: npt.NDArray[Any], how: Turn) -> npt.NDArray[Any]:
    """Permute and flip the last three axes of a volume (..., x, y, z)."""
    lead = array.ndim - 3
    moved = np.moveaxis(array, range(lead), range(3, array.ndim))
    return np.moveaxis(apply_orientation(moved, how), range(3, array.ndim), range(lead))


def turned_affine(affine: Affine, shape: tuple[int, ...], how: Turn) -> Affine:
    """Find the affine of a volume of ``shape`` (x, y, z) after `turned`."""
    return np.asarray(affine @ inv_ornt_aff(how, shape), np.float64)


def canonical(affine: Affine) -> Turn:
    """Find the turn to RAS+."""
    return turn(affine, np.eye(4))


def linear(
    array: npt.NDArray[Any], axis: int, n: int, start: float, step: float
) -> npt.NDArray[Any]:
    """Interpolate ``n`` points of one axis, antialiased; the edge values continue outside."""
    weights, outside = resampling_matrix(array.shape[axis], n, start, step)
    kept = 1 - outside
    weights[kept > 0] /= kept[kept > 0, None]
    lost = np.flatnonzero(kept <= 0)
    weights[lost, np.where(start + step * lost < 0, 0, array.shape[axis] - 1)] = 1
    dtype = np.result_type(array, np.float32)
    moved = np.moveaxis(np.asarray(array, dtype), axis, 0)
    result = sparse.csr_matrix(weights.astype(dtype)) @ moved.reshape(len(moved), -1)
    return np.moveaxis(result.reshape(n, *moved.shape[1:]), 0, axis)


def nearest(
    array: npt.NDArray[Any], axis: int, n: int, start: float, step: float
) -> npt.NDArray[Any]:
    """Take ``n`` points of one axis, each the value of the nearest voxel."""
    where = np.rint(start + step * np.arange(n)).astype(int)
    return array.take(np.clip(where, 0, array.shape[axis] - 1), axis)


def covered(size: int, n: int, start: float, step: float) -> npt.NDArray[np.bool_]:
    """Mark which of ``n`` points lie in a voxel of an axis of ``size`` voxels."""
    points = start + step * np.arange(n)
    return (points >= -0.5) & (points <= size - 0.5)


def onto(
    image: npt.NDArray[Any],
    label: npt.NDArray[Any] | None,
    affine: Affine,
    shape: tuple[int, int, int],
    target: Affine,
    rng: np.random.Generator,
    middle: tuple[float, ...] | None = None,
) -> Scan:
    """Bring a case to the voxels of another: orientation, voxel size, middle on middle.

    The image is interpolated linearly, label ids are taken from the nearest voxel.  A case with
    several slices gives one, a labelled one where there are any, to a target of a single slice.

    Args:
        image: (channels, x, y, z).
        label: (x, y, z), or None.
        affine: theirs, (4, 4).
        shape: of the target, (x, y, z).
        target: the target's affine.
        rng: where the choice of a slice comes from.
        middle: where in the target, in voxels, to put the middle of the case's labels; None puts
            the middle of the case on that of the target.

    Raises:
        ConfigError: a case of one slice cannot fill a volume.
    """
    how = turn(affine, target)
    affine = turned_affine(affine, image.shape[1:], how)
    image = turned(image, how)
    label = None if label is None else turned(label, how)
    for axis in range(3):
        if shape[axis] == 1 and image.shape[axis + 1] > 1:
            at = _one_slice(label, image.shape[axis + 1], axis, rng)
            image = image.take([at], axis + 1)
            label = None if label is None else label.take([at], axis)
        elif shape[axis] > 1 and image.shape[axis + 1] == 1:
            raise ConfigError(
                f"the other case is one slice thick, and the subject has the shape {shape}; give "
                "a source of volumes, or mix slices"
            )
    theirs, mine = spacing(affine), spacing(target)
    marked = None if label is None or middle is None else label_middle(label)
    known = np.ones(shape, bool)
    for axis, n in enumerate(shape):
        size, step = image.shape[axis + 1], mine[axis] / theirs[axis]
        start = (size - 1) / 2 - step * (n - 1) / 2
        if middle is not None and marked is not None:
            start = marked[axis] - step * middle[axis]
        if abs(step - 1) < _SAME:
            start, step = round(start), 1.0
        if n == 1 or (n == size and start == 0 and step == 1):
            continue
        image = linear(image, axis + 1, n, start, step)
        label = None if label is None else nearest(label, axis, n, start, step)
        inside = covered(size, n, start, step)
        known &= inside.reshape([n if a == axis else 1 for a in range(3)])
    return Scan(image, label, mine, None if known.all() else known)


def label_middle(label: npt.NDArray[Any]) -> tuple[float, ...] | None:
    """Find the middle of the box around all labels, in voxels; None where there are none."""
    if not label.any():
        return None
    (box,) = ndimage.find_objects((label != 0).view(np.uint8))
    return tuple((s.start + s.stop - 1) / 2 for s in box)


def _one_slice(
    label: npt.NDArray[Any] | None, count: int, axis: int, rng: np.random.Generator
) -> int:
    slices = np.arange(count)
    if label is not None:
        marked = label.any(axis=tuple(a for a in range(3) if a != axis))
        slices = np.flatnonzero(marked) if marked.any() else slices
    return int(rng.choice(slices))
