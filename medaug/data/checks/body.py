"""The body told from the couch and the air around it.

The body is the largest connected piece denser than -300 HU once an opening has cut loose what is
thinner than three blocks of 4 mm: the shells of a couch, blankets, tubes.  Gas that a slice of the
body encloses, in lungs and bowel, belongs to it.
"""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medaug.modality import CT

COUCH_HU = -700
"""Outside the body, what is denser is couch, mattress or clothes; foam has about -950 HU."""
_CORE = np.ones((3, 3, 1), bool)
_BESIDE = ndimage.generate_binary_structure(3, 1) & (np.arange(3) == 1)[None, None, :]


def find_body(hu: npt.NDArray[np.float32], above: float = CT.body) -> npt.NDArray[np.bool_]:
    """The body in block means ``[x, y, z]``; all False where nothing is ``above``."""
    dense = hu > above
    walled = np.pad(dense, ((1, 1), (1, 1), (0, 0)), mode="edge")
    opened = ndimage.binary_opening(walled, _CORE)[1:-1, 1:-1]
    pieces, count = ndimage.label(opened)
    if not count:
        return np.zeros(hu.shape, bool)
    core = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    return _filled(ndimage.binary_dilation(core, _BESIDE) & dense)


def _filled(body: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """``body`` with what its slices enclose, all slices at once."""
    around = np.pad(~body, ((1, 1), (1, 1), (0, 0)), constant_values=True)
    pieces, count = ndimage.label(around, _BESIDE)
    outside = np.zeros(count + 1, bool)
    outside[pieces[0]] = True
    return ~outside[pieces][1:-1, 1:-1]


def find_couch(hu: npt.NDArray[np.float32], body: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """What is neither body nor air: couch, mattress, clothes, tubes; same shape."""
    rim = ndimage.binary_dilation(body, _BESIDE)
    return (hu > COUCH_HU) & ~rim
