"""Check that the anatomy lies where the affine says: the spine behind, the lungs above.

A trunk's bones do not show left and right; a label that is mirrored on its image is found by the
check of the alignment.
"""

import numpy as np
import numpy.typing as npt

from medaug.data.checks.reduced import Reduced, Verdict

BONE_HU = 180.0
"""Of means over 4 mm."""
PERSISTENCE = 3
"""Power of the share of slices that show bone at a place: the spine stays, while ribs, kidneys and
contrast in the bowel come and go.  So weighed, bones lie 25 to 57 mm behind the middle of real
trunks, 12 degrees off the back at most; of phantoms 18 degrees."""
TRUNK_CM2 = 300.0
"""Smaller bodies may be heads or limbs, whose bones say nothing."""
FEWEST_BONE_CM3, FEWEST_BONE_CM2 = 20.0, 5.0
LEAST_MM = 12.0
"""Bones nearer to the middle than this have no direction."""
TURNED_DOUBTFUL_DEG, TURNED_REFUSED_DEG = 35.0, 60.0
"""Angle of the bones to the patient's back."""
LUNG_HU, LUNG_SHARE, LUNG_HEIGHT_MM = (-950.0, -600.0), 0.04, 120.0
"""More gas than that in the body is lung, if the scan is high enough to hold some."""
UPSIDE_DOWN_DOUBTFUL, UPSIDE_DOWN_REFUSED = 0.35, 0.25
"""Height of the lungs' middle in the scan; 0.8 in abdomens, about 0.45 in chests with necks."""


def check_orientation(reduced: Reduced) -> tuple[Verdict, str]:
    """Judge the anatomy of a RAS volume: a verdict, and the reason."""
    found = _turned(reduced)
    return found if found[0] == "refused" else max(found, _upside_down(reduced), key=_badness)


def _badness(found: tuple[Verdict, str]) -> int:
    return ("ok", "doubtful", "refused").index(found[0])


def _turned(reduced: Reduced) -> tuple[Verdict, str]:
    body, (x_mm, y_mm, z_mm) = reduced.body, reduced.pitch_mm
    areas = body.sum(axis=(0, 1)) * x_mm * y_mm / 100
    bone = body & (reduced.hu > BONE_HU)
    trunk = areas[areas > 0]
    plane = bone.sum() * x_mm * y_mm / 100
    if not len(trunk) or np.median(trunk) < TRUNK_CM2 or plane < FEWEST_BONE_CM2:
        return "ok", ""
    if body.shape[2] > 1 and plane * z_mm / 10 < FEWEST_BONE_CM3:
        return "ok", ""
    spine, whole = bone.mean(axis=2) ** PERSISTENCE, body.mean(axis=2)
    across = x_mm * (_middle(spine.sum(axis=1)) - _middle(whole.sum(axis=1)))
    forward = y_mm * (_middle(spine.sum(axis=0)) - _middle(whole.sum(axis=0)))
    away = float(np.hypot(across, forward))
    if away < LEAST_MM:
        return "ok", ""
    angle = float(np.degrees(np.arctan2(abs(across), -forward)))
    if angle <= TURNED_DOUBTFUL_DEG:
        return "ok", ""
    side = "front" if angle > 135 else "right" if across > 0 else "left"
    return "refused" if angle > TURNED_REFUSED_DEG else "doubtful", (
        f"by the header the bones lie {away:.0f} mm to the {side} of the body's middle, "
        f"{angle:.0f} degrees off the back; the orientation in the header is wrong"
    )


def _middle(weights: npt.NDArray[np.float64]) -> float:
    return float(np.average(np.arange(len(weights)), weights=weights))


def _upside_down(reduced: Reduced) -> tuple[Verdict, str]:
    body, hu = reduced.body, reduced.hu
    if body.shape[2] * reduced.pitch_mm[2] < LUNG_HEIGHT_MM:
        return "ok", ""
    gas = body & (hu > LUNG_HU[0]) & (hu < LUNG_HU[1])
    if gas.sum() < LUNG_SHARE * max(int(body.sum()), 1):
        return "ok", ""
    heights = np.arange(body.shape[2]) / (body.shape[2] - 1)
    middle = float(np.average(heights, weights=gas.sum(axis=(0, 1))))
    if middle >= UPSIDE_DOWN_DOUBTFUL:
        return "ok", ""
    return "refused" if middle < UPSIDE_DOWN_REFUSED else "doubtful", (
        f"by the header the lungs lie at {middle:.0%} of the scan's height; "
        "its slices are upside down"
    )
