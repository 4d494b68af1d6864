"""The nouns that travel between layers, with axes and units stated once.

Conventions, everywhere in medaug:

- A *volume* array is indexed ``[x, y, z]`` in RAS+ order: x grows to the patient's Right, y to
  Anterior, z to Superior.  ``affine`` (4, 4) maps voxel indices ``(x, y, z, 1)`` to RAS+ mm.
- A *slice* array is indexed ``[y, x]``; a stack of slices ``[z, y, x]``.
- CT intensities are Hounsfield units (HU) as int16; label maps are uint8, 0 is background.
- Lengths are millimetres.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

HU = npt.NDArray[np.int16]
LabelMap = npt.NDArray[np.uint8]
Affine = npt.NDArray[np.float64]

AIR_HU = -1024


@dataclass(frozen=True)
class Case:
    """One scan as a source lists it, before any pixel is read.

    ``image`` holds the files of a DICOM series in slice order, or a single NIfTI file.
    """

    id: str
    image: tuple[Path, ...]
    label: Path | None = None


@dataclass(frozen=True)
class Problem:
    """A scan that cannot be used, and why, in one sentence."""

    case: str
    reason: str

    def __str__(self) -> str:
        return f"{self.case}: {self.reason}"


@dataclass(frozen=True)
class Sample:
    """One synthetic case, in the units its readers expect.

    ``image`` is HU int16 for CT and uint8 grey levels for pictures, shape (y, x).  ``label`` is a
    uint8 label map of the same shape, or None where the model draws no mask.  ``alternatives``
    (K, y, x) and ``alternative_labels`` are further draws that share what defines the case.
    ``std`` (y, x) is their voxel-wise standard deviation in the image's unit, ``entropy`` (y, x)
    the entropy in bits of the label votes.  ``affine`` maps (x, y, z=0) to RAS+ mm.
    ``origin`` says where it came from: how it was drawn, and, when it goes to a writer, also the
    ``seed``, the fingerprint of the ``weights`` and the ``labels``, name to id.
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
