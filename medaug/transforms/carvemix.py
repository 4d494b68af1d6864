"""CarveMix: a region of another case that follows its lesion, of random extent.

Zhang et al., CarveMix: A Simple Data Augmentation Method for Brain Lesion Segmentation, MICCAI
2021.
"""

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medaug.transforms.scan import Region, Scan, put


def carve(
    lesion: Region, spacing: tuple[float, ...], rng: np.random.Generator
) -> tuple[Region, float]:
    """The voxels whose signed distance to the lesion's border is at most a random threshold.

    Distances in mm are negative inside.  With d the largest depth of the lesion, the threshold is
    drawn from (-d/2, 0) or from (0, d), each half of the time.

    Args:
        lesion: (*space).
        spacing: voxel sizes in mm.
        rng: where the draws come from.

    Returns:
        The region (*space), empty where there is no lesion, and the threshold in mm.
    """
    grows, share = rng.random() < 0.5, rng.random()
    if not lesion.any():
        return np.zeros_like(lesion), 0.0
    # a lesion without a border has no distances: one voxel beyond the edge counts as outside
    padded = np.pad(lesion, 1)
    inside = ndimage.distance_transform_edt(padded, sampling=spacing)
    outside = ndimage.distance_transform_edt(~padded, sampling=spacing)
    depth = float(inside.max())
    threshold = share * depth if grows else -share * depth / 2
    signed = np.where(padded, -inside, outside)[tuple(slice(1, -1) for _ in lesion.shape)]
    return signed <= threshold, threshold


def carvemix(
    mine: Scan,
    other: Scan,
    rng: np.random.Generator,
    *,
    labels: Collection[int] | None = None,
) -> Scan:
    """``mine`` with the region around the lesion of ``other``, image and label map alike.

    Args:
        mine: stays as it is.
        other: where the lesion comes from; without one, nothing changes.
        rng: where the draws come from.
        labels: ids that are the lesion; None for all but 0.

    Raises:
        ConfigError: ``other`` has no label map, or the two do not fit.
    """
    lesion = chosen(other.need_label("CarveMix"), labels)
    region, _ = carve(lesion, other.spacing, rng)
    return put(mine, other, region)


def chosen(label: npt.NDArray[np.generic], labels: Collection[int] | None) -> Region:
    """The voxels (*space) with one of the ids, or with any but 0."""
    return np.asarray(label != 0 if labels is None else np.isin(label, sorted(labels)), bool)
