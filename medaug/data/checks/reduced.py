"""A scan at a few millimetres in-plane, every slice kept: what the checks look at.

Means over blocks take the noise out, and make the whole battery cost less than reading the scan.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from medaug import geometry
from medaug.data.checks.body import find_body
from medaug.modality import CT, Modality
from medaug.types import HU, Affine

PITCH_MM = 4.0
_ROWS = 16


@dataclass(frozen=True)
class Reduced:
    """Block means of a RAS volume.

    Attributes:
        hu: float32 ``[x, y, z]``.
        pitch_mm: block size along x and y, slice distance along z.
        block: voxels of the full grid in a block along x and y.
        modality: of the scan; MR is in thousandths of its range, not in HU.
    """

    hu: npt.NDArray[np.float32]
    pitch_mm: tuple[float, float, float]
    block: tuple[int, int]
    modality: Modality = CT

    @cached_property
    def body(self) -> npt.NDArray[np.bool_]:
        """Where the body is, gas within it included, couch and clothes left out."""
        return find_body(self.hu, CT.body if self.modality is CT else self.modality.body_in_slice)


def reduce(image: HU, affine: Affine, modality: Modality = CT) -> Reduced:
    """The block means of ``image`` ``[x, y, z]``; a rest at the far edges is left out."""
    pitch = geometry.spacing(affine)
    across, along = (
        max(1, min(round(PITCH_MM / p), n)) for p, n in zip(pitch[:2], image.shape, strict=False)
    )
    columns, rows = image.shape[0] // across, image.shape[1] // along
    hu = np.empty((columns, rows, image.shape[2]), np.float32)
    for first in range(0, columns, _ROWS):
        last = min(first + _ROWS, columns)
        part = image[first * across : last * across, : rows * along]
        shape = (last - first, across, rows, along, image.shape[2])
        hu[first:last] = part.reshape(shape).mean(axis=(1, 3), dtype=np.float32)
    return Reduced(hu, (pitch[0] * across, pitch[1] * along, pitch[2]), (across, along), modality)
