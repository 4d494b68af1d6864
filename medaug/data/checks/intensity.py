"""Are the values Hounsfield units: air at -1000, fat at -100, organs near 50, little above 600?"""

import numpy as np

from medaug.core.types import HU
from medaug.data.checks.reduced import Verdict

LEAST_SPAN_HU = 300
"""Between the first and the last hundredth; air and soft tissue are 1000 HU apart."""


DENSE_HU = -500


LEAST_DENSE = 0.02
"""Share of voxels above -500 HU; a body fills 0.3 to 0.6 of a scan, an arm 0.03."""


SOFT_HU = (-250, 300)


LEAST_SOFT = 0.6
"""Share of the dense voxels that are fat or soft tissue; 0.92 and more in real abdomens."""


HIGH_HU, MOST_HIGH = 600, 0.2
"""Share of the dense voxels that are harder than spongy bone; 0.01 in abdomens, 0.15 in heads."""


AIR_HU, LEAST_AIR = -700, 0.001


FAT_HU, LEAST_FAT = -20, 0.01


_STRIDE = 3


def check_intensity(image: HU) -> tuple[Verdict, str]:
    """The verdict on the values of a volume ``[x, y, z]``, and the reason."""
    values = image[::_STRIDE, ::_STRIDE]
    low, high = (int(v) for v in np.quantile(values, (0.001, 0.999), method="nearest"))
    told = f"values go from {low} to {high} HU"
    if high - low < LEAST_SPAN_HU:
        return "refused", f"{told}; a CT scan spans air and tissue"
    dense = values[values > DENSE_HU]
    if len(dense) < LEAST_DENSE * values.size:
        return "refused", (
            f"{told}, {len(dense) / values.size:.1%} of them above {DENSE_HU}; "
            "there is no body, or the rescale intercept was taken off twice"
        )
    hard = float((dense > HIGH_HU).mean())
    if hard > MOST_HIGH:
        return "refused", (
            f"{told}, {hard:.0%} of the dense voxels above {HIGH_HU}; the values are no HU: "
            "was the rescale intercept left out?"
        )
    soft = float(((dense > SOFT_HU[0]) & (dense < SOFT_HU[1])).mean())
    if soft < LEAST_SOFT:
        return "refused", f"{told}, {soft:.0%} of the dense voxels are fat or soft tissue"
    if (values < AIR_HU).mean() < LEAST_AIR:
        if (values < FAT_HU).mean() < LEAST_FAT:
            return "refused", f"{told}, without air or fat; the values are no HU"
        return "doubtful", f"{told}, without air; the scan was windowed or cut out of the body"
    return "ok", ""


# Did the pixels go through a compression that changed them?


def check_compression(lossy: str) -> tuple[Verdict, str]:
    """The verdict on what headers tell of lossy compression, nothing or its name, and the reason.

    It is doubtful, however mild: a worst pixel moves by up to some tens of HU in JPEG.
    """
    return ("doubtful", f"its pixels went through {lossy} (lossy)") if lossy else ("ok", "")


# Has every voxel a value?


def check_gaps(unknown: int) -> tuple[Verdict, str]:
    """The verdict on how many voxels are no number, and the reason."""
    if not unknown:
        return "ok", ""
    return "doubtful", f"{unknown} voxels are no finite number and count as background"
