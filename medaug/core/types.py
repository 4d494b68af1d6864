"""Define the types that packages exchange, with their axes and units.

Conventions, everywhere in medaug:

- A *volume* array is indexed ``[x, y, z]`` in RAS+ order: x increases to the patient's Right, y to
  Anterior, z to Superior.  ``affine`` (4, 4) maps voxel indices ``(x, y, z, 1)`` to RAS+ mm.
- A *slice* array is indexed ``[y, x]``; a stack of slices ``[z, y, x]``.
- Alternatives are the first axis: ``[k, y, x]`` of a slice, ``[k, z, y, x]`` of a stack.
- A picture is grey, ``[y, x]``, or RGB with its channels last, ``[y, x, 3]``; levels are uint8.
- CT intensities are Hounsfield units (HU) as int16, MR ones thousandths of the scan's own range as
  int16 (`medaug.core.modality`); label maps are uint8, 0 is background.
- Lengths are millimetres.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

HU = npt.NDArray[np.int16]
LabelMap = npt.NDArray[np.uint8]
Affine = npt.NDArray[np.float64]

AIR_HU = -1024


def is_rgb(array: npt.NDArray[Any]) -> bool:
    """Whether an array is RGB [..., y, x, 3], not grey [..., y, x]; no picture is 3 pixels wide."""
    return array.dtype == np.uint8 and array.ndim > 2 and array.shape[-1] == 3


@dataclass(frozen=True)
class LabelFiles:
    """The files with the labels of one scan, before any of them is read.

    Attributes:
        files: of the labels.
        ids: value in the files to label id; other values become background.  None: values are
            ids, and one that is not a label's id is an error.
        strict: whether a value that is not in ``ids`` is an error.
        each: the id of each file, where every file is a binary mask of one label; a later file
            covers an earlier one where they overlap.  None: the one file is a label map.
        scan: the files of the scan in slice order, where the labels are placed by them.
    """

    files: tuple[Path, ...]
    ids: Mapping[int, int] | None = None
    strict: bool = False
    each: tuple[int, ...] | None = None
    scan: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Case:
    """One scan as a source lists it, before any pixel is read.

    Attributes:
        id: its name.
        image: the files of a DICOM series in slice order, or a single volume file.
        label: the files of its labels, or None.
    """

    id: str
    image: tuple[Path, ...]
    label: LabelFiles | None = None


@dataclass(frozen=True)
class PictureBatch:
    """Pictures decoded together.

    Attributes:
        images: levels (n, y, x), or RGB (n, y, x, 3).
        classes: class ids (n,), or None.
        attributes: bool (n, attributes), or None.
        left_out: index, among all that were to be read, of each that could not be, and why.
    """

    images: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.unsignedinteger[Any]] | None
    attributes: npt.NDArray[np.bool_] | None = None
    left_out: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Problem:
    """A scan that cannot be used.

    Attributes:
        case: its id.
        reason: why, in one sentence.
    """

    case: str
    reason: str

    def __str__(self) -> str:
        return f"{self.case}: {self.reason}"


@dataclass(frozen=True)
class Sample:
    """One synthetic case, a slice or a stack of slices.

    Attributes:
        index: its number.
        image: HU int16 (y, x), or (z, y, x) of a stack; of pictures uint8 levels, grey (y, x) or
            RGB (y, x, 3).
        label: label map of the same pixels, or None where the model draws no masks.
        affine: maps (x, y, z) to RAS+ mm, with z = 0 in a slice.
        alternatives: (k, *shape), further images for the same case.
        alternative_labels: (k, *shape), their label maps, or None.
        std: (*shape), standard deviation over the alternatives in the unit of the image.
        entropy: (*shape), entropy of their labels in bits, or None.
        origin: how it was drawn and, when it goes to a writer, the ``seed``, the fingerprint of the
            ``weights`` and the ``labels``, name to id.
    """

    index: int
    image: npt.NDArray[Any]
    label: LabelMap | None
    affine: Affine
    alternatives: npt.NDArray[Any]
    alternative_labels: LabelMap | None
    std: npt.NDArray[np.float32]
    entropy: npt.NDArray[np.float32] | None
    origin: dict[str, Any] = field(default_factory=dict)

    @property
    def slices(self) -> int:
        """How many slices the stack has; 0 where the case is a slice."""
        return len(self.image) if self.image.ndim == 3 and not is_rgb(self.image) else 0

    def at(self, z: int) -> "Sample":
        """Return slice ``z`` of a stack as a case of its own, at its place."""

        def cut(array: Any) -> Any:
            return None if array is None else array[..., z, :, :]

        affine = np.array(self.affine, np.float64)
        affine[:3, 3] += z * affine[:3, 2]
        return replace(
            self,
            image=cut(self.image),
            label=cut(self.label),
            affine=affine,
            alternatives=cut(self.alternatives),
            alternative_labels=cut(self.alternative_labels),
            std=cut(self.std),
            entropy=cut(self.entropy),
        )
