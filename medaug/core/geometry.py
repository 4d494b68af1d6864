"""Compute affines, spacings and in-plane resampling, from arrays to arrays.

Voxel coordinates follow the pixel-centre convention: index 0 is the centre of the first voxel.
Arrays are ``[x, y, z]`` in RAS+ order; affines (4, 4) map voxel indices ``(x, y, z, 1)`` to mm.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse

from medaug.core.modality import CT, Modality
from medaug.core.types import HU, Affine, LabelMap

HU_RANGE = CT.limits
_BLOCK_BYTES = 32 * 2**20

Weights = npt.NDArray[np.float32]


def spacing(affine: Affine) -> tuple[float, float, float]:
    """Return the voxel size in mm along x, y, z."""
    x, y, z = np.linalg.norm(np.asarray(affine, float)[:3, :3], axis=0)
    return float(x), float(y), float(z)


def _window(
    affine: Affine, center_xy: tuple[float, float], fov_mm: float, size: int
) -> tuple[list[float], list[float]]:
    """Start and step, in input voxels along x and y, of a square window's pixel centres."""
    steps = [fov_mm / size / pitch for pitch in spacing(affine)[:2]]
    starts = [c - (size - 1) / 2 * step for c, step in zip(center_xy, steps, strict=True)]
    return starts, steps


def window_affine(
    affine: Affine, center_xy: tuple[float, float], fov_mm: float, size: int
) -> Affine:
    """Return the affine of a square in-plane window; z stays as it is.

    Args:
        affine: of the volume.
        center_xy: centre of the window in voxel coordinates of ``affine``, which becomes the
            coordinate ``(size - 1) / 2`` of the new grid.
        fov_mm: length of each side, in mm.
        size: pixels along each side.
    """
    (start_x, start_y), (step_x, step_y) = _window(affine, center_xy, fov_mm, size)
    onto_input = np.diag([step_x, step_y, 1.0, 1.0])
    onto_input[:2, 3] = start_x, start_y
    return np.asarray(affine, float) @ onto_input


def resampling_matrix(
    n_in: int, n_out: int, start: float, step: float
) -> tuple[Weights, npt.NDArray[np.float32]]:
    """Return antialiased linear resampling of one axis as a matrix.

    Output ``j`` is at input coordinate ``start + j * step`` and averages the inputs under a
    triangle of half-width ``max(step, 1)``: linear interpolation where it magnifies.

    Args:
        n_in: voxels of the input.
        n_out: pixels of the output.
        start: input coordinate of the first output, in voxels.
        step: distance of two outputs, in voxels of the input.

    Returns:
        ``weights`` (n_out, n_in) and ``outside`` (n_out,), the share of each output's weight that
        falls beyond the input; each row of ``weights`` sums to ``1 - outside``.
    """
    width = max(step, 1.0)
    centres = start + step * np.arange(n_out)
    taps = np.floor(centres - width)[:, None] + np.arange(int(np.ceil(2 * width)) + 2)
    share = np.clip(1 - np.abs(taps - centres[:, None]) / width, 0, None)
    share /= share.sum(axis=1, keepdims=True)
    inside = (taps >= 0) & (taps < n_in) & (share > 0)
    weights = np.zeros((n_out, n_in))
    rows = np.nonzero(inside)[0]
    np.add.at(weights, (rows, taps[inside].astype(int)), share[inside])
    outside = np.where(inside, 0, share).sum(axis=1)
    return weights.astype(np.float32), outside.astype(np.float32)


def _apply(
    volume: npt.NDArray[Any], along_x: Weights, along_y: Weights, limits: tuple[int, int] | None
) -> npt.NDArray[np.float32]:
    """Sum ``volume`` (x, y, z) by weights along x, then y, a block of rows at a time.

    The weights are applied as sparse matrices: one pass over the voxels in a fixed order, so that
    the result has the same bytes for any number of threads, which a dense product does not promise.
    """
    n_x, n_y, n_z = volume.shape
    across, down = sparse.csr_matrix(along_x), sparse.csr_matrix(along_y)
    narrowed = np.zeros((along_x.shape[0], n_y, n_z), np.float32)
    block = max(1, _BLOCK_BYTES // (4 * n_x * n_z))
    used = np.flatnonzero(along_y.any(axis=0))
    for first in range(used.min(initial=n_y), used.max(initial=-1) + 1, block):
        rows = slice(first, min(first + block, n_y))
        part = np.array(volume[:, rows], np.float32)
        if limits is not None:
            np.clip(part, *limits, out=part)
        narrowed[:, rows] = (across @ part.reshape(n_x, -1)).reshape(-1, *part.shape[1:])
    return np.stack([down @ column for column in narrowed])


def resample_image(
    volume: HU,
    affine: Affine,
    center_xy: tuple[float, float],
    fov_mm: float,
    size: int,
    modality: Modality = CT,
) -> HU:
    """Resample an image to a square in-plane window.

    Args:
        volume: stored values (x, y, z).
        affine: of the volume.
        center_xy: centre of the window in voxel coordinates.
        fov_mm: length of each side of the window, in mm.
        size: pixels along each side.
        modality: gives the value outside the volume and the limits of the result.

    Returns:
        The slices (z, y, x), int16.
    """
    starts, steps = _window(affine, center_xy, fov_mm, size)
    along_x, outside_x = resampling_matrix(volume.shape[0], size, starts[0], steps[0])
    along_y, outside_y = resampling_matrix(volume.shape[1], size, starts[1], steps[1])
    resampled = _apply(volume, along_x, along_y, modality.limits)
    air = 1 - np.outer(1 - outside_x, 1 - outside_y)
    resampled += (modality.outside * air).astype(np.float32)[:, :, None]
    resampled = np.clip(np.rint(resampled), *modality.limits)
    return np.ascontiguousarray(resampled.astype(np.int16).transpose(2, 1, 0))


def resample_labels(
    volume: LabelMap, affine: Affine, center_xy: tuple[float, float], fov_mm: float, size: int
) -> LabelMap:
    """Resample label ids to a square in-plane window.

    Every id is resampled with the same weights as the image and the largest share wins, so that
    masks stay in register with the image; background wins ties.

    Args:
        volume: label ids (x, y, z).
        affine: of the volume.
        center_xy: centre of the window in voxel coordinates.
        fov_mm: length of each side of the window, in mm.
        size: pixels along each side.

    Returns:
        The slices (z, y, x) of label ids.
    """
    starts, steps = _window(affine, center_xy, fov_mm, size)
    along = [
        resampling_matrix(n, size, start, step)[0]
        for n, start, step in zip(volume.shape, starts, steps, strict=False)
    ]
    result = np.zeros((size, size, volume.shape[2]), np.uint8)
    box = bounding_box(volume)
    if box is None:
        return np.zeros(result.shape[::-1], np.uint8)
    x, y, z = box
    along_x, along_y = along[0][:, x], along[1][:, y]
    marked = volume[box]
    largest = np.zeros((size, size, z.stop - z.start), np.float32)
    foreground = np.zeros_like(largest)
    for value in np.flatnonzero(np.bincount(marked.ravel())[1:]) + 1:
        share = _apply(marked == value, along_x, along_y, None)
        foreground += share
        wins = share > largest
        result[:, :, z][wins] = value
        largest[wins] = share[wins]
    # float32 sums of weights that add to one stay within 1e-6 of it; a tie is background
    result[:, :, z][largest <= 1 - foreground + 1e-6] = 0
    return np.ascontiguousarray(result.transpose(2, 1, 0))


def body_center(volume: HU, affine: Affine, modality: Modality = CT) -> tuple[float, float]:
    """Return the in-plane centre (x, y) of the body, without the couch, in voxel coordinates.

    The body is the largest connected component above -300 HU (of MR: above 0) on a grid of about
    4 mm, after an opening that separates thin couch shells; its centre is the median over slices of
    the middle of its extent.  Without a body it is the middle of the volume.
    """
    stride = [max(1, round(4.0 / pitch)) for pitch in spacing(affine)]
    coarse = volume[:: stride[0], :: stride[1], :: stride[2]] > modality.body
    opened = ndimage.binary_opening(coarse, np.ones((3, 3, 1), bool))
    pieces, count = ndimage.label(opened)
    middle = tuple((n - 1) / 2 for n in volume.shape[:2])
    if count == 0:
        return middle[0], middle[1]
    body = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    centre = []
    for axis in (0, 1):
        profile = body.any(axis=1 - axis)
        profile = profile[:, profile.any(axis=0)]
        first = np.argmax(profile, axis=0)
        last = profile.shape[0] - 1 - np.argmax(profile[::-1], axis=0)
        centre.append(float(np.median((first + last) / 2)) * stride[axis])
    return centre[0], centre[1]


def bounding_box(labels: LabelMap) -> tuple[slice, slice, slice] | None:
    """Return the smallest box around all labels (x, y, z), or None where there are none."""
    across = np.asarray(labels.any(axis=2))
    if not across.any():
        return None
    x, y = (_extent(across, 1 - axis) for axis in (0, 1))
    return x, y, _extent(labels[x, y], (0, 1))


def _extent(marked: npt.NDArray[Any], over: int | tuple[int, int]) -> slice:
    first, last = np.flatnonzero(marked.any(axis=over))[[0, -1]]
    return slice(int(first), int(last) + 1)


def label_center(labels: LabelMap) -> tuple[float, float] | None:
    """Return the middle (x, y) of the in-plane box around all labels, None without labels."""
    box = bounding_box(labels)
    if box is None:
        return None
    x, y = ((s.start + s.stop - 1) / 2 for s in box[:2])
    return x, y
