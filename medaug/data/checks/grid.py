"""Check the affine: tilt, oblique planes and voxel sizes."""

import numpy as np

from medaug.core import geometry
from medaug.core.types import Affine
from medaug.data.checks.reduced import Verdict

SHEAR_DOUBTFUL_DEG, SHEAR_REFUSED_DEG = 0.5, 2.0
"""Angle by which the axes miss a right one.  At 2 degrees a stack of 200 mm drifts by 7 mm."""
OBLIQUE_DOUBTFUL_DEG, OBLIQUE_REFUSED_DEG = 5.0, 20.0
"""Angle of a slice to the axial plane.  Beyond 20 degrees it cuts through other organs."""
IN_PLANE_MM, BETWEEN_MM = (0.2, 6.5), (0.2, 12.0)
"""Pixel sizes and slice distances of body CT; beyond them a unit or a header is wrong."""
COARSE_MM = 6.0
"""Slices further apart are reported: thin organs show in one or two of them."""


def check_grid(affine: Affine) -> tuple[Verdict, str]:
    """Judge the affine of a RAS volume: a verdict, and the reason."""
    columns = np.asarray(affine, float)[:3, :3]
    if not np.isfinite(affine).all() or abs(np.linalg.det(columns)) < 1e-9:
        return "refused", "the affine is singular or not finite; the header lost its geometry"
    x_mm, y_mm, z_mm = geometry.spacing(affine)
    axes = columns / np.linalg.norm(columns, axis=0)
    off = np.abs(axes.T @ axes - np.eye(3)).max()
    shear = float(np.degrees(np.arcsin(min(off, 1.0))))
    normal = np.cross(axes[:, 0], axes[:, 1])
    oblique = float(np.degrees(np.arccos(min(abs(normal[2]) / np.linalg.norm(normal), 1.0))))
    sizes = f"voxels are {x_mm:.3g} x {y_mm:.3g} x {z_mm:.3g} mm"
    inside = all(IN_PLANE_MM[0] <= p <= IN_PLANE_MM[1] for p in (x_mm, y_mm))
    if not inside or not BETWEEN_MM[0] <= z_mm <= BETWEEN_MM[1]:
        return "refused", (
            f"{sizes}; accepted are {IN_PLANE_MM[0]:g} to {IN_PLANE_MM[1]:g} mm in a slice and "
            f"{BETWEEN_MM[0]:g} to {BETWEEN_MM[1]:g} mm between slices"
        )
    if shear > SHEAR_DOUBTFUL_DEG:
        verdict: Verdict = "refused" if shear > SHEAR_REFUSED_DEG else "doubtful"
        return verdict, (
            f"the gantry was tilted by {shear:.1f} degrees, so each slice lies beside the last; "
            "resample the scan onto a straight grid"
        )
    if oblique > OBLIQUE_DOUBTFUL_DEG:
        return "refused" if oblique > OBLIQUE_REFUSED_DEG else "doubtful", (
            f"the slices lie {oblique:.1f} degrees off the axial plane; "
            "resample the scan onto axial slices"
        )
    if max(x_mm, y_mm) > 1.02 * min(x_mm, y_mm):
        return "doubtful", f"{sizes}: pixels are not square"
    if z_mm > COARSE_MM:
        return "doubtful", f"the slices are {z_mm:.3g} mm apart"
    return "ok", ""
