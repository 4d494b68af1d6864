"""Oxford-102 flowers (Nilsback and Zisserman 2008): 8,189 pictures of 102 kinds.

    jpg/image_00001.jpg       of many sizes
    imagelabels.mat           labels (1, 8189): the kind of picture i, 1 to 102
    setid.mat                 trnid, valid, tstid: which i are for training, validation, test

The kinds have no names in these files; they are called by their number.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import io

from medaug.core.errors import DataError
from medaug.core.types import Problem
from medaug.data.sources.pictures.photos import Photos, class_numbers

KINDS = 102
_SIDES = {"train": "trnid", "validation": "valid", "heldout": "tstid"}
_FILES = ("imagelabels.mat", "setid.mat")


def looks_like(root: Path) -> bool:
    """Whether ``root`` holds the labels or the partition."""
    return any((root / name).is_file() for name in _FILES)


def open_folder(root: Path) -> Photos:
    """The flowers with their kind, in the data set's own partition.

    Raises:
        DataError: a file is missing or not as published.
    """
    for name in (*_FILES, "jpg"):
        if not (root / name).exists():
            raise DataError(f"{root}: {name} is missing; Oxford-102 needs jpg/ and both .mat files")
    kinds = _whole(root / _FILES[0], "labels")
    if not len(kinds) or kinds.min() < 1 or kinds.max() > KINDS:
        raise DataError(f"{root / _FILES[0]}: labels must be 1 to {KINDS}; get it again")
    side_of: dict[int, str] = {}
    for side, key in _SIDES.items():
        for number in _whole(root / _FILES[1], key).tolist():
            if number in side_of or not 1 <= number <= len(kinds):
                raise DataError(
                    f"{root / _FILES[1]}: {key} holds {number}, which must be 1 to {len(kinds)} "
                    "and in one part only; get it again"
                )
            side_of[number] = side
    for number in range(1, len(kinds) + 1):
        if number not in side_of:
            raise DataError(f"{root / _FILES[1]}: {_file(number)} is in no part; get it again")
    there = {path.name for path in (root / "jpg").iterdir()}
    listed = sorted(side_of)
    kept = [number for number in listed if _file(number) in there]
    if not kept:
        raise DataError(f"{root / 'jpg'}: holds none of the pictures that setid.mat lists")
    gone = [_file(number) for number in listed if _file(number) not in there]
    classes = tuple(str(kind) for kind in range(1, KINDS + 1))
    return Photos(
        root,
        "oxford-102",
        [f"jpg/{_file(number)}" for number in kept],
        sides=[side_of[number] for number in kept],
        classes=classes,
        class_ids=class_numbers([str(kinds[number - 1]) for number in kept], classes),
        problems=[Problem(name, "listed but not in jpg") for name in gone],
    )


def _file(number: int) -> str:
    return f"image_{number:05d}.jpg"


def _whole(path: Path, key: str) -> npt.NDArray[Any]:
    """The whole numbers called ``key`` in a MATLAB file, in order."""
    try:
        found = np.asarray(io.loadmat(path, variable_names=[key])[key]).ravel()
        whole = found.astype(np.int64)
        if not np.array_equal(whole, found):
            raise ValueError(f"{key} holds fractions")
    except Exception as error:  # its readers raise whatever their bytes lead to
        raise DataError(f"{path}: holds no whole numbers called {key}; get it again") from error
    return whole
