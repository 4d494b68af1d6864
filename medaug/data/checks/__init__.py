"""Check every scan before its slices become training data.

Each check is a function from what was read to a verdict and a reason, with its thresholds as
constants that say what sound scans measure.  `battery` runs all of them on a loaded scan.
"""

from collections.abc import Mapping

from medaug.core.modality import CT, Modality
from medaug.core.types import HU, Affine, LabelMap
from medaug.data.checks.alignment import check_alignment
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
"""What each check looks at, in the order in which they run."""


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
    """Run all checks of a single scan in memory, in the order of `CHECKS`.

    Args:
        case: its id.
        image: HU ``[x, y, z]`` in RAS order.
        labels: ids on the same grid, or None.
        affine: of the grid.
        reduced: the scan's block means; None makes them.
        modality: of the image; only HU distinguish air and bone.
        lossy: the lossy compression that the files' headers name, or nothing.
        unknown: how many voxels were no number and were taken as background.

    Returns:
        One finding for each check that applies.  Where a scan has no Hounsfield units, or no air
        around the body, the checks of the body are left out.
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
        found["alignment"] = check_alignment(image, labels, affine, modality)
    return [Finding(case, check, *said) for check, said in found.items()]
