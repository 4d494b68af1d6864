"""Check that something is labelled, and that it lies in the body."""

import numpy as np

from medaug.core import geometry
from medaug.core.types import LabelMap
from medaug.data.checks.reduced import Reduced, Verdict

OUTSIDE_DOUBTFUL, OUTSIDE_REFUSED = 0.01, 0.1
"""Share of the labelled voxels outside the body; none in real scans."""


def check_masks(labels: LabelMap, reduced: Reduced | None) -> tuple[Verdict, str]:
    """Judge label ids ``[x, y, z]``: a verdict, and the reason.

    Args:
        labels: on the grid of their image.
        reduced: of the image, or None where its body cannot be found.
    """
    box = geometry.bounding_box(labels)
    if box is None:
        return "refused", "the label map is empty; leave it away if the scan was not labelled"
    if reduced is None:
        return "ok", ""
    body = reduced.body
    where = [n + s.start for n, s in zip(np.nonzero(labels[box]), box, strict=True)]
    x, y = (
        np.minimum(places // block, size - 1)
        for places, block, size in zip(where, reduced.block, body.shape, strict=False)
    )
    outside = float(1 - body[x, y, where[2]].mean())
    if outside > OUTSIDE_DOUBTFUL:
        return "refused" if outside > OUTSIDE_REFUSED else "doubtful", (
            f"{outside:.1%} of the labelled voxels lie outside the body"
        )
    return "ok", ""
