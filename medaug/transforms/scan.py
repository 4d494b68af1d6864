"""An image with its label map as arrays, and how a part of one is put into another."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medaug.core.errors import ConfigError

Region = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Scan:
    """A slice or a volume, whatever its orientation.

    ``image`` is (channels, *space) in any unit, ``label`` (*space) of ids, 0 for background, or
    None.  ``space`` has two or three axes and ``spacing`` their voxel sizes in mm.  ``known``
    (*space) marks the voxels that were measured, None for all of them.
    """

    image: npt.NDArray[Any]
    label: npt.NDArray[Any] | None
    spacing: tuple[float, ...]
    known: Region | None = None

    def __post_init__(self) -> None:
        space = self.image.shape[1:]
        if len(space) not in (2, 3) or len(self.spacing) != len(space):
            raise ConfigError(
                f"image: a shape (channels, *space) with two or three axes in space and as many "
                f"spacings is needed, got {self.image.shape} and {self.spacing}"
            )
        for what, array in (("label", self.label), ("known", self.known)):
            if array is not None and array.shape != space:
                raise ConfigError(
                    f"{what}: the image needs the shape {space}, got {tuple(array.shape)}"
                )

    @property
    def space(self) -> tuple[int, ...]:
        """Voxels along each axis."""
        return self.image.shape[1:]

    def need_label(self, why: str) -> npt.NDArray[Any]:
        """The label map.

        Raises:
            ConfigError: there is none, which ``why`` needs.
        """
        if self.label is None:
            raise ConfigError(f"{why} needs a label map, and the case has none")
        return self.label


def put(mine: Scan, other: Scan, region: Region, ids: npt.NDArray[Any] | None = None) -> Scan:
    """Put the voxels of ``other`` in ``region`` into ``mine``, image and label map alike.

    Data types are those of ``mine`` where they can hold the values, else a wider one.

    Args:
        mine: stays as it is.
        other: of the same shape and channels.
        region: (*space) which voxels to take; what ``other`` does not know is left out.
        ids: label ids (*space) to write there, those of ``other`` unless given.

    Raises:
        ConfigError: shapes or channels differ, or only one of the two has a label map.
    """
    if mine.image.shape != other.image.shape:
        raise ConfigError(
            f"the other case has the shape {other.image.shape} (channels first), "
            f"{mine.image.shape} is needed"
        )
    if other.known is not None:
        region = region & other.known
    label = mine.label
    if label is not None:
        label = _blend(label, other.need_label("the mixture") if ids is None else ids, region)
    return Scan(_blend(mine.image, other.image, region), label, mine.spacing, mine.known)


def _blend(mine: npt.NDArray[Any], other: npt.NDArray[Any], region: Region) -> npt.NDArray[Any]:
    """Take ``other`` inside ``region``, ``mine`` outside; widen the type where necessary."""
    taken = other[..., region]
    kept = fitting(taken, mine.dtype)
    result = mine.astype(np.result_type(mine, kept))
    result[..., region] = kept
    return result


def fitting(values: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Convert ``values`` to ``dtype``; to a wider one where an integer type cannot hold them."""
    if dtype.kind not in "iu" or not values.size:
        return values.astype(dtype)
    rounded = np.rint(values)
    for integer in (dtype, np.dtype(np.int16), np.dtype(np.int32)):
        limits = np.iinfo(integer)
        if limits.min <= rounded.min() and rounded.max() <= limits.max:
            return rounded.astype(integer)
    return values
