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
    """Draw the voxels whose signed distance to the lesion's border is at most a random threshold.

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
    region = np.zeros_like(lesion)
    if not lesion.any():
        return region, 0.0
    (box,) = ndimage.find_objects(lesion.view(np.uint8))
    # one voxel around the lesion counts as outside, also where the image ends
    inside = ndimage.distance_transform_edt(np.pad(lesion[box], 1), sampling=spacing)
    inside = inside[tuple(slice(1, -1) for _ in box)]
    depth = float(inside.max())
    threshold = share * depth if grows else -share * depth / 2
    if not grows:
        region[box] = lesion[box] & (inside >= -threshold)
        return region, threshold
    margins = [int(np.ceil(depth / step)) for step in spacing]
    wide = tuple(slice(max(0, s.start - m), s.stop + m) for s, m in zip(box, margins, strict=True))
    outside = ndimage.distance_transform_edt(~lesion[wide], sampling=spacing)
    region[wide] = outside <= threshold
    return region, threshold


def carvemix(
    mine: Scan,
    other: Scan,
    rng: np.random.Generator,
    *,
    labels: Collection[int] | None = None,
) -> Scan:
    """Put the region around the lesion of ``other`` into ``mine``, image and label map alike.

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
    """Mark the voxels (*space) with one of the ids, or with any but 0."""
    return np.asarray(label != 0 if labels is None else np.isin(label, sorted(labels)), bool)
