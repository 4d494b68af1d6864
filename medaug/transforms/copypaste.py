"""Copy-paste: the labelled voxels of another case, cut out exactly and laid over this one.

Ghiasi et al., Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation,
CVPR 2021; for organs and tumours, Yang et al., TumorCP, MICCAI 2021.
"""

from collections.abc import Collection

import numpy as np

from medaug.core.errors import ConfigError
from medaug.transforms.carvemix import chosen
from medaug.transforms.scan import Scan, put


def copypaste(
    mine: Scan,
    other: Scan,
    rng: np.random.Generator,
    *,
    labels: Collection[int] | None = None,
    shift_mm: float = 0.0,
) -> Scan:
    """Lay the labelled voxels of ``other`` over ``mine``, each with its own id.

    Labels of ``mine`` stay where nothing is laid over them.

    Args:
        mine: stays as it is.
        other: where the objects come from; without any, nothing changes.
        rng: where the draws come from.
        labels: ids to copy; None for all but 0.
        shift_mm: largest shift along each axis, mm, uniformly drawn and rounded to voxels; what
            leaves the image is cut off.

    Raises:
        ConfigError: ``other`` has no label map, a negative shift, or the two do not fit.
    """
    if not shift_mm >= 0:
        raise ConfigError(f"shift_mm must not be negative, got {shift_mm}")
    label = other.need_label("copy-paste")
    moved = [round(rng.uniform(-shift_mm, shift_mm) / step) for step in other.spacing]
    moved = [0 if n == 1 else by for n, by in zip(other.space, moved, strict=True)]
    region = chosen(label, labels)
    if other.known is not None:
        region &= other.known
    here = np.argwhere(region)
    there = here + moved
    stays = ((there >= 0) & (there < other.space)).all(1)
    taken, laid = tuple(here[stays].T), tuple(there[stays].T)
    image, ids = np.zeros_like(other.image), np.zeros_like(label)
    image[:, *laid] = other.image[:, *taken]
    ids[laid] = label[taken]
    return put(mine, Scan(image, ids, other.spacing), ids != 0)
