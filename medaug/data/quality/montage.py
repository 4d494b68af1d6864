"""A scan at a glance: axial slices, a coronal and a sagittal one, body and labels outlined."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medaug.core import geometry
from medaug.core.modality import CT
from medaug.core.types import HU, Affine, LabelMap
from medaug.data.checks import Reduced

PIXEL_MM = 2.5
AXIAL = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Heights of the axial slices in the scan, the feet at 0."""
_BODY, _LABEL = (80, 160, 255), (255, 80, 60)
_WIDEST = 160

Picture = npt.NDArray[np.uint8]


def montage(
    image: HU,
    labels: LabelMap | None,
    affine: Affine,
    reduced: Reduced,
    window: tuple[float, float] = CT.window,
) -> list[tuple[str, Picture]]:
    """Named pictures (h, w, 3) as a radiologist hangs them: front and head up, right on the left.

    Args:
        image: HU ``[x, y, z]`` in RAS order.
        labels: ids on the same grid; their outline is drawn.
        affine: of the grid.
        reduced: block means of the image; the outline of the body in it is drawn.
        window: values shown from black to white.
    """
    pitch = geometry.spacing(affine)
    body = reduced.body.repeat(reduced.block[0], 0).repeat(reduced.block[1], 1)
    missing = [(0, n - m) for n, m in zip(image.shape, body.shape, strict=True)]
    body = np.pad(body, missing, mode="edge")
    middle = _middle(body) if labels is None or not labels.any() else _middle(labels > 0)
    places = [("axial", 2, round(share * (image.shape[2] - 1))) for share in AXIAL]
    places = list(dict.fromkeys(places))
    if image.shape[2] > 1:
        places += [("coronal", 1, middle[1]), ("sagittal", 0, middle[0])]
    pictures = []
    for name, axis, at in places:
        kept = [pitch[a] for a in range(3) if a != axis]
        steps = [_indices(n, p) for n, p in zip(np.delete(image.shape, axis), kept, strict=True)]
        lines = [(body, _BODY)] if labels is None else [(body, _BODY), (labels, _LABEL)]
        grey = np.clip(np.take(image, at, axis)[np.ix_(*steps)], *window).astype(float)
        grey = (grey - window[0]) / (window[1] - window[0]) * 255
        picture = np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, axis=2)
        for marked, colour in lines:
            inside = np.take(marked, at, axis)[np.ix_(*steps)] > 0
            picture[inside & ~ndimage.binary_erosion(inside)] = colour
        shown = np.ascontiguousarray(picture.transpose(1, 0, 2)[::-1, ::-1])
        pictures.append((f"{name} {at + 1} of {image.shape[axis]}", shown))
    return pictures


def _middle(marked: npt.NDArray[np.bool_]) -> tuple[int, int]:
    box = geometry.bounding_box(marked.astype(np.uint8, copy=False))
    if box is None:
        return marked.shape[0] // 2, marked.shape[1] // 2
    return (box[0].start + box[0].stop) // 2, (box[1].start + box[1].stop) // 2


def _indices(count: int, pitch: float) -> npt.NDArray[np.intp]:
    """Nearest voxels at ``PIXEL_MM``, or coarser where the side would be too long."""
    step = max(PIXEL_MM / pitch, count / _WIDEST)
    return np.minimum(np.arange(0, count, step).astype(np.intp), count - 1)
