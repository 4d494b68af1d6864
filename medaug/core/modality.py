"""Say what the values of a scan mean: Hounsfield units, or thousandths of the scan's own range.

CT is stored as it is, in HU.  MR has no unit: its values depend on the sequence, the coil and the
scanner.  Such scans are stored as `thousandths` of their own range, so that the window 0 to 1000
fits every MR scan of a cache.
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
"""Voxels of MR below this share of its range are background."""
PERCENTILES = (1.0, 99.0)
"""Of the other voxels: what becomes 0 and 1000."""
_NO_AIR_HU = -50
_AIR_HU = -500


def _named(*tissues: str) -> Mapping[str, int]:
    """Return ids of tissues by name: 251, 252, ..., as layout maps have them."""
    return {name: 251 + place for place, name in enumerate(tissues)}


@dataclass(frozen=True)
class Modality:
    """How values are stored and shown; all values are in ``unit``.

    Attributes:
        name: ``CT`` or ``MR``.
        unit: of the stored values.
        limits: lowest and highest stored value.
        outside: the value outside the field of view.
        body: the body is above this value, on a coarse grid.
        tissue: soft tissues are between these values.
        window: the values that become -1 and +1 by default.
        body_in_slice: the body is above this value in a slice at full resolution, which is noisier.
        bands: where one of ``tissues`` ends and the next begins.
        tissues: name to id in a layout map, from the darkest; the ids of labels are lower.
        per_hu: how many units correspond to one HU of CT, by the widths of the windows.
        margin_per_hu: the same for differences between patients: since each scan has its own range
            and bias field, MR scans differ more.
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
    """Return the modality called ``name``.

    Raises:
        ConfigError: another name than CT or MR.
    """
    if name not in MODALITIES:
        raise ConfigError(f"modality {name!r} is not known (known: {', '.join(MODALITIES)})")
    return MODALITIES[name]


def thousandths(values: npt.NDArray[Any]) -> npt.NDArray[np.int16]:
    """Return a scan as thousandths of its own range (int16), whatever its scale and offset.

    With the 1st percentile a and the 99th percentile b of the scan's non-background voxels, a
    value v becomes 1000 (v - a) / (b - a), rounded and clipped to 0 to 4000.  Non-background is
    what is above m + 0.1 (q - m), where m is the minimum of the scan and q the 99th
    percentile of all its voxels.  Values that are not finite count as m.

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
    """Refuse a CT scan that is clearly not in HU, since it has neither air nor fat.

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
    """Refuse a scan that is said to be MR and has the air of a CT scan.

    Raises:
        DataError: a twentieth of the values is below -500.
    """
    if np.count_nonzero(values < _AIR_HU) > 0.05 * values.size:
        raise DataError(
            f"its values go down to {float(values.min()):g}, as the air of CT does, and MR was "
            "said; keep CT and MR in two folders"
        )
