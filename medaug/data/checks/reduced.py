"""Reduce a scan to a few millimetres in-plane, every slice kept: what the checks look at.

Means over blocks take the noise out, and make all checks together cost less than reading the scan.

The body is the largest connected piece denser than -300 HU, after an opening has cut off what is
thinner than three blocks of 4 mm: the shells of a couch, blankets, tubes.  Gas that a slice of the
body encloses, in lungs and bowel, belongs to it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medaug.core import geometry
from medaug.core.modality import CT, Modality
from medaug.core.types import HU, Affine

PITCH_MM = 4.0
_ROWS = 16
_CORE = np.ones((3, 3, 1), bool)
_BESIDE = ndimage.generate_binary_structure(3, 1) & (np.arange(3) == 1)[None, None, :]

Verdict = Literal["ok", "doubtful", "refused"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
"""From good to bad: a refused scan never enters a cache; a doubtful one does and is reported."""


@dataclass(frozen=True)
class Finding:
    """The verdict of one check on one scan.

    Attributes:
        case: the scan's id.
        check: which check: a key of `medaug.data.checks.CHECKS`.
        verdict: ``ok``, ``doubtful`` or ``refused``.
        reason: a sentence; empty where there is nothing to say.
    """

    case: str
    check: str
    verdict: Verdict
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.check}: {self.reason or self.verdict}"


def worst(findings: Iterable[Finding]) -> Verdict:
    """The worst verdict among ``findings``; ``ok`` without any."""
    return max((f.verdict for f in findings), key=VERDICTS.index, default="ok")


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
        """Where the body is, with the gas in it, without couch and clothes."""
        return find_body(self.hu, CT.body if self.modality is CT else self.modality.body_in_slice)


def reduce(image: HU, affine: Affine, modality: Modality = CT) -> Reduced:
    """Average blocks of about 4 mm of a RAS volume; what is left at the far edges is left out.

    Args:
        image: stored values ``[x, y, z]``.
        affine: of their grid.
        modality: of the scan.
    """
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


def find_body(hu: npt.NDArray[np.float32], above: float = CT.body) -> npt.NDArray[np.bool_]:
    """Find the body in block means ``[x, y, z]``, denser than ``above``; all False without one."""
    dense = hu > above
    walled = np.pad(dense, ((1, 1), (1, 1), (0, 0)), mode="edge")
    opened = ndimage.binary_opening(walled, _CORE)[1:-1, 1:-1]
    pieces, count = ndimage.label(opened)
    if not count:
        return np.zeros(hu.shape, bool)
    core = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    return _filled(ndimage.binary_dilation(core, _BESIDE) & dense)


def _filled(body: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Add to ``body`` what its slices enclose, all slices at once."""
    around = np.pad(~body, ((1, 1), (1, 1), (0, 0)), constant_values=True)
    pieces, count = ndimage.label(around, _BESIDE)
    outside = np.zeros(count + 1, bool)
    outside[pieces[0]] = True
    return ~outside[pieces][1:-1, 1:-1]
