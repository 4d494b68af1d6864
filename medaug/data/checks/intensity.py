"""Check values: Hounsfield units, not compressed with loss, a number in every voxel.

In HU air is at -1000, fat at -100, organs are near 50, and little is above 600.
"""

import numpy as np

from medaug.core.types import HU
from medaug.data.checks.reduced import Verdict

LEAST_SPAN_HU = 300
"""Between the first and the last thousandth; air and soft tissue are 1000 HU apart."""
DENSE_HU, LEAST_DENSE = -500, 0.02
"""Share of voxels above it; a body fills 0.3 to 0.6 of a scan, an arm 0.03."""
SOFT_HU, LEAST_SOFT = (-250, 300), 0.6
"""Share of the dense voxels that are fat or soft tissue; 0.92 and more in real abdomens."""
HIGH_HU, MOST_HIGH = 600, 0.2
"""Share of the dense voxels that are harder than spongy bone; 0.01 in abdomens, 0.15 in heads."""
AIR_HU, LEAST_AIR = -700, 0.001
FAT_HU, LEAST_FAT = -20, 0.01
_STRIDE = 3


def check_intensity(image: HU) -> tuple[Verdict, str]:
    """Judge the values of a CT volume ``[x, y, z]``: a verdict, and the reason."""
    values = image[::_STRIDE, ::_STRIDE]
    low, high = (int(v) for v in np.quantile(values, (0.001, 0.999), method="nearest"))
    span = f"values go from {low} to {high} HU"
    if high - low < LEAST_SPAN_HU:
        return "refused", f"{span}; a CT scan spans air and tissue"
    dense = values[values > DENSE_HU]
    if len(dense) < LEAST_DENSE * values.size:
        return "refused", (
            f"{span}, {len(dense) / values.size:.1%} of them above {DENSE_HU}; "
            "there is no body, or the rescale intercept was taken off twice"
        )
    hard = float((dense > HIGH_HU).mean())
    if hard > MOST_HIGH:
        return "refused", (
            f"{span}, {hard:.0%} of the dense voxels above {HIGH_HU}; the values are no HU: "
            "was the rescale intercept left out?"
        )
    soft = float(((dense > SOFT_HU[0]) & (dense < SOFT_HU[1])).mean())
    if soft < LEAST_SOFT:
        return "refused", f"{span}, {soft:.0%} of the dense voxels are fat or soft tissue"
    if (values < AIR_HU).mean() < LEAST_AIR:
        if (values < FAT_HU).mean() < LEAST_FAT:
            return "refused", f"{span}, without air or fat; the values are no HU"
        return "doubtful", f"{span}, without air; the scan was windowed or cut out of the body"
    return "ok", ""


def check_compression(lossy: str) -> tuple[Verdict, str]:
    """Judge a scan by the lossy compression that its headers name, or an empty string.

    Any is doubtful, however mild: a single pixel moves by up to some tens of HU in JPEG.
    """
    return ("doubtful", f"its pixels went through {lossy} (lossy)") if lossy else ("ok", "")


def check_gaps(unknown: int) -> tuple[Verdict, str]:
    """Judge a scan by how many of its voxels are no finite number."""
    if not unknown:
        return "ok", ""
    return "doubtful", f"{unknown} voxels are no finite number and count as background"
