"""Pictures in idx files, as MNIST and Fashion-MNIST ship: four files, packed with gzip or not."""

import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from medaug.core.errors import DataError
from medaug.core.types import PictureBatch, Problem
from medaug.data.cache.store import CacheSettings
from medaug.data.formats.limits import gunzip
from medaug.data.sources.pictures.scaling import resize_pictures

_PARTS = {"train": "train", "test": "t10k"}
MOST_BYTES = 2**30
"""That a file may hold once it is unpacked; the largest relative of MNIST has 550 MB."""
_UNSIGNED_BYTE = 0x08
_CLOTHES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


def find(root: Path, part: str, what: str) -> Path | None:
    """The file of ``what`` (``images`` or ``labels``) for a part, by any of its usual names."""
    dimensions = {"images": 3, "labels": 1}[what]
    for separator in ("-", "."):
        for suffix in ("", ".gz"):
            path = root / f"{_PARTS[part]}-{what}{separator}idx{dimensions}-ubyte{suffix}"
            if path.is_file():
                return path
    return None


def looks_like(root: Path) -> bool:
    """Whether ``root`` holds idx files of pictures."""
    return any(find(root, part, what) for part in _PARTS for what in ("images", "labels"))


def read_idx(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """The array of unsigned bytes in the idx file ``path``.

    Raises:
        DataError: not idx, of another type or shape, or with more or fewer bytes than announced.
    """
    if path.stat().st_size > MOST_BYTES:
        raise DataError(f"{path}: more than {MOST_BYTES:,} bytes; split it")
    raw, start = path.read_bytes(), 4 + 4 * dimensions
    if raw[:2] == b"\x1f\x8b":
        try:
            shape = _announced(path, gunzip(raw, start), dimensions)
            raw = gunzip(raw, start + math.prod(shape) + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(
                f"{path}: the gzip file is truncated or damaged; get it again"
            ) from error
    shape = _announced(path, raw, dimensions)
    count = math.prod(shape)
    if len(raw) - start != count:
        raise DataError(
            f"{path}: announces {' x '.join(map(str, shape))} = {count} bytes, "
            f"holds {len(raw) - start}; get it again"
        )
    return np.frombuffer(raw, np.uint8, count, start).reshape(shape)


def _announced(path: Path, raw: bytes, dimensions: int) -> tuple[int, ...]:
    """The shape in the header.

    Raises:
        DataError: not idx, of another type or shape, or of more than `MOST_BYTES`.
    """
    expected = bytes((0, 0, _UNSIGNED_BYTE, dimensions))
    if raw[:4] != expected:
        raise DataError(
            f"{path}: begins with {raw[:4].hex()}, an idx file of {dimensions}-dimensional "
            f"unsigned bytes with {expected.hex()}"
        )
    if len(raw) < 4 + 4 * dimensions:
        raise DataError(f"{path}: announces a shape that is cut off; get it again")
    shape = struct.unpack_from(f">{dimensions}I", raw, 4)
    if math.prod(shape) > MOST_BYTES:
        raise DataError(
            f"{path}: announces {' x '.join(map(str, shape))} = {math.prod(shape)} bytes, "
            f"accepted are {MOST_BYTES}"
        )
    return shape


@dataclass(frozen=True)
class IdxBlock:
    """One part, which is in memory."""

    side: str
    images: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.uint8]
    size: int | None
    files: tuple[Path, ...]

    @property
    def names(self) -> list[str]:
        """What its pictures are called in messages."""
        return [str(place) for place in range(len(self.images))]

    def read(self) -> PictureBatch:
        """All of its pictures."""
        return PictureBatch(resize_pictures(self.images, self.size), self.classes)


class Idx:
    """Grey pictures and their class from the four idx files in ``root``.

    Args:
        root: the folder.
        name: what the collection is called.
    """

    kind: Literal["image"] = "image"
    labels: Mapping[str, int] = {}
    attributes: tuple[str, ...] = ()
    colour: str | None = None
    size: int | None = None
    problems: tuple[Problem, ...] = ()

    def __init__(self, root: Path, name: str = "mnist") -> None:
        self.root, self.name = Path(root), name
        self.classes = _CLOTHES if name == "fashion-mnist" else tuple(str(d) for d in range(10))
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such folder")

    def counts(self) -> dict[str, int]:
        """How many pictures each part has."""
        return {part: len(images) for part, (images, _) in self.parts().items()}

    def relevant(self, settings: CacheSettings) -> dict[str, Any]:
        """The settings that decide what a cache of these pictures holds."""
        return settings.only("size")

    def listing(self) -> dict[str, Any]:
        """Nothing: the files are as published."""
        return {}

    def blocks(self, settings: CacheSettings) -> dict[str, IdxBlock]:
        """Each part as one case."""
        sides = {"train": "train", "test": "heldout"}
        made = {}
        for part, (images, classes) in self.parts().items():
            found = [find(self.root, part, what) for what in ("images", "labels")]
            files = tuple(file for file in found if file is not None)
            made[part] = IdxBlock(sides[part], images, classes, settings.size, files)
        return made

    def parts(self) -> dict[str, tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]:
        """Pictures (n, y, x) and class ids (n,) of ``train`` and ``test``.

        Raises:
            DataError: a file is missing or damaged, or pictures and labels differ in number.
        """
        return {part: self._part(part) for part in _PARTS}

    def _part(self, part: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        found = {}
        for what, dimensions in (("images", 3), ("labels", 1)):
            path = find(self.root, part, what)
            if path is None:
                raise DataError(
                    f"{self.root}: {_PARTS[part]}-{what}-idx{dimensions}-ubyte(.gz) is missing; "
                    "all four idx files are needed"
                )
            found[what] = path
        images, classes = read_idx(found["images"], 3), read_idx(found["labels"], 1)
        if len(images) != len(classes):
            raise DataError(
                f"{self.root}: {found['images'].name} holds {len(images)} pictures, "
                f"{found['labels'].name} {len(classes)} labels; get them again"
            )
        if classes.size and classes.max() >= len(self.classes):
            raise DataError(
                f"{found['labels']}: holds the class {classes.max()}, known are 0 to "
                f"{len(self.classes) - 1}"
            )
        return images, classes
