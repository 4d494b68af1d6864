"""The checks that every scan passes before its slices become training data.

Each check is a module: a function from what was read to a verdict and a reason, with its thresholds
as named constants that say what sound scans measure.  `battery` runs them all on a loaded scan.
"""

from collections.abc import Mapping

from medaug.core.modality import CT, Modality
from medaug.core.types import HU, Affine, LabelMap
from medaug.data.checks.alignment import misplaced, weigh
from medaug.data.checks.grid import check_grid
from medaug.data.checks.intensity import check_compression, check_gaps, check_intensity
from medaug.data.checks.masks import check_masks
from medaug.data.checks.orientation import check_orientation
from medaug.data.checks.reduced import Finding, Reduced, Verdict, reduce, worst
from medaug.data.checks.slices import check_slices

__all__ = ["CHECKS", "Finding", "Reduced", "Verdict", "battery", "reduce", "worst"]

CHECKS: Mapping[str, str] = {
    "files": "every slice there once, evenly spaced, whole, of one series; label on the same grid",
    "compression": "pixels never went through lossy compression",
    "gaps": "every voxel is a number",
    "grid": "gantry tilt, oblique planes, voxel sizes",
    "intensity": "values are Hounsfield units",
    "slices": "slices blank, there twice, out of order or missing, by their voxels",
    "orientation": "spine behind and lungs above, as the header says",
    "masks": "labels not empty, and inside the body",
    "alignment": "labels lie better on the image as they are than mirrored or moved",
    "likeness": "not a scan that is there under another name",
}
"""Check to what it asks, in the order in which they run."""

ALIGNMENT_DOUBTFUL = 0.8
"""The best other placement may explain this share of what the given one does.

It explains 0.18 in real scans, 0.15 in phantoms.
"""


def battery(
    case: str,
    image: HU,
    labels: LabelMap | None,
    affine: Affine,
    reduced: Reduced | None = None,
    modality: Modality = CT,
    lossy: str = "",
    unknown: int = 0,
) -> list[Finding]:
    """Every check that a single scan in memory can pass, in the order of `CHECKS`.

    Args:
        case: its id.
        image: HU ``[x, y, z]`` in RAS order.
        labels: ids on the same grid, or None.
        affine: of the grid.
        reduced: the scan's block means, where they are at hand.
        modality: of the image; only HU tell air and bone.
        lossy: the lossy compression that the files' headers tell of, or nothing.
        unknown: how many voxels were no number and were taken as background.

    Returns:
        One finding for each check that applies.  What has no Hounsfield units, or no air around
        the body, is not asked where its body lies.
    """
    hounsfield = modality is CT
    found = {
        "compression": check_compression(lossy),
        "gaps": check_gaps(unknown),
        "grid": check_grid(affine),
    }
    if hounsfield:
        found["intensity"] = check_intensity(image)
        if found["intensity"][0] == "refused":
            return [Finding(case, check, *said) for check, said in found.items()]
    reduced = reduce(image, affine, modality) if reduced is None else reduced
    found["slices"] = check_slices(reduced)
    body = hounsfield and found["intensity"][0] == "ok"
    if body:
        found["orientation"] = check_orientation(reduced)
    if labels is not None:
        found["masks"] = check_masks(labels, reduced if body else None)
        found["alignment"] = _alignment(image, labels, affine, modality)
    return [Finding(case, check, *said) for check, said in found.items()]


def _alignment(
    image: HU, labels: LabelMap, affine: Affine, modality: Modality
) -> tuple[Verdict, str]:
    weighed = weigh(image, labels, affine, modality)
    if weighed is None:
        return "ok", ""
    given, best, name = weighed
    if best > given:
        return "refused", misplaced(given, best, name)
    if best > ALIGNMENT_DOUBTFUL * given:
        return "doubtful", (
            f"label lies hardly better on the image as given ({given:.1%} of the variance "
            f"explained) than {name} ({best:.1%})"
        )
    return "ok", ""
