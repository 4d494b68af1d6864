"""What the numbers of a scan mean: Hounsfield units, or thousandths of a scan's own range.

CT is stored as it is, in HU.  MR has no unit: its numbers depend on the sequence, the coil and the
scanner.  Such scans are stored as thousandths of their own range, which `thousandths` states; so
every MR scan of a cache is seen through the one window 0 to 1000.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from medaug.core.errors import ConfigError, DataError
from medaug.core.types import AIR_HU

Name = Literal["CT", "MR"]

BACKGROUND = 0.1
PERCENTILES = (1.0, 99.0)
_NO_AIR_HU = -50
_AIR_HU = -500


def _named(*tissues: str) -> Mapping[str, int]:
    """Tissues by name, with the ids 251, 252, ... of layout maps."""
    return {name: 251 + place for place, name in enumerate(tissues)}


@dataclass(frozen=True)
class Modality:
    """How values are stored and seen.

    Attributes:
        unit: of the stored values.
        limits: of the stored values.
        outside: the value beyond the field of view.
        body: the body is above it.
        tissue: soft tissues lie between these.
        window: becomes -1 and +1 unless told otherwise.
        body_in_slice: the body is above it in a slice, whose noise is not averaged over a stack.
        bands: where one of ``tissues`` ends and the next begins.
        tissues: name to id in a layout map, from the darkest; labels keep their own ids below.
        per_hu: so many stored units weigh as one HU of CT, by the widths of the windows.
        margin_per_hu: the same for how far a patient's levels may lie from others': a range of
            its own and a bias field set MR scans further apart.
    """

    name: Name
    unit: str
    limits: tuple[int, int]
    outside: int
    body: int
    tissue: tuple[int, int]
    window: tuple[float, float]
    body_in_slice: int
    bands: tuple[float, float, float]
    tissues: Mapping[str, int]
    per_hu: float
    margin_per_hu: float


CT = Modality(
    "CT", "HU", (AIR_HU, 3071), AIR_HU, -300, (-150, 250), (-160.0, 240.0),
    -135, (-200.0, -30.0, 200.0), _named("gas", "fat", "soft", "bone"), 1.0, 1.0,
)  # fmt: skip
MR = Modality(
    "MR", "thousandths", (0, 4000), 0, 0, (0, 1000), (0.0, 1000.0),
    25, (100.0, 400.0, 700.0), _named("void", "dark", "medium", "bright"), 2.5, 7.5,
)  # fmt: skip
MODALITIES: dict[str, Modality] = {"CT": CT, "MR": MR}


def modality_of(name: str) -> Modality:
    """The modality called ``name``.

    Raises:
        ConfigError: another name than CT or MR.
    """
    if name not in MODALITIES:
        raise ConfigError(f"modality {name!r} is not known (known: {', '.join(MODALITIES)})")
    return MODALITIES[name]


def thousandths(values: npt.NDArray[Any]) -> npt.NDArray[np.int16]:
    """A scan without a unit as int16 thousandths of its own range, whatever its scale and offset.

    With the 1st percentile a and the 99th percentile b of the scan's non-background voxels, a
    value v becomes 1000 (v - a) / (b - a), rounded and clipped to 0 to 4000.  Non-background is
    what lies above m + 0.1 (q - m), where m is the least value of the scan and q the 99th
    percentile of all its voxels.  What is not finite counts as m.

    Args:
        values: of the scan, of any shape and type.

    Raises:
        DataError: the scan has a single value.
    """
    scan = np.asarray(values, np.float32)
    finite = np.isfinite(scan)
    if not finite.any():
        raise DataError("the image has no finite value")
    least = scan.min(where=finite, initial=np.inf)
    if not finite.all():
        scan = np.where(finite, scan, least)
    above = least + BACKGROUND * (np.percentile(scan, PERCENTILES[1]) - least)
    inside = scan[scan > above]
    if not len(inside):
        raise DataError(f"the image has the value {least:g} nearly everywhere")
    low, high = (float(p) for p in np.percentile(inside, PERCENTILES))
    if low == high:
        raise DataError(f"the image has the values {least:g} and {low:g} only; it is no scan")
    scaled = (scan - low) * (1000 / (high - low))
    return np.clip(np.rint(scaled), *MR.limits).astype(np.int16)


def check_hu(values: npt.NDArray[Any]) -> None:
    """Refuse a CT scan that is plainly not in HU: it shows neither air nor fat.

    Raises:
        DataError: no value below -50.
    """
    least = int(values.min())
    if least > _NO_AIR_HU:
        raise DataError(
            f"its values run from {least} to {int(values.max())}, and CT in HU has air near -1000 "
            "and fat near -100; write it in HU, or say that it is MR with --modality MR"
        )


def check_unitless(values: npt.NDArray[Any]) -> None:
    """Refuse what was said to be MR and has the air of a CT scan.

    Raises:
        DataError: a twentieth of the values lies below -500.
    """
    if np.count_nonzero(values < _AIR_HU) > 0.05 * values.size:
        raise DataError(
            f"its values go down to {float(values.min()):g}, as the air of CT does, and MR was "
            "said; keep CT and MR in two folders"
        )
