"""CIFAR-10 (Krizhevsky 2009), binary version: 60,000 RGB pictures of 32 x 32 in ten classes.

    data_batch_1.bin ... data_batch_5.bin, test_batch.bin     10,000 records of 3,073 bytes each:
                                                              class, 1,024 R, 1,024 G, 1,024 B
    batches.meta.txt                                          the classes' names, one a line

The version for Python is a set of pickles, which can run code when they are opened; it is refused.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from medaug.core.errors import DataError
from medaug.core.types import PictureBatch, Problem
from medaug.data.cache.store import COLOURS, CacheSettings
from medaug.data.sources.pictures.photos import read_lines
from medaug.data.sources.pictures.scaling import resize_pictures

RECORD = 1 + 3 * 32 * 32
RECORDS = 10_000
TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = "test_batch"
META = "batches.meta.txt"
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def looks_like(root: Path) -> bool:
    """Whether ``root`` holds a batch of either version."""
    return any((root / f"{name}{end}").is_file() for name in TRAIN for end in (".bin", ""))


def open_folder(root: Path) -> "Cifar":
    """The six batches.

    Raises:
        DataError: the version for Python, or a file that is missing or not as published.
    """
    if not any((root / f"{name}.bin").is_file() for name in TRAIN):
        raise DataError(
            f"{root}: CIFAR-10 for Python is made of pickles, which can run code when they are "
            "opened; get the binary version (cifar-10-binary.tar.gz)"
        )
    for name in (*(f"{batch}.bin" for batch in (*TRAIN, TEST)), META):
        if not (root / name).is_file():
            raise DataError(f"{root}: {name} is missing; five batches, {TEST}.bin and {META} are "
                            "needed")  # fmt: skip
    for batch in (*TRAIN, TEST):
        path = root / f"{batch}.bin"
        if path.stat().st_size != RECORD * RECORDS:
            raise DataError(
                f"{path}: holds {path.stat().st_size} bytes, a batch of CIFAR-10 "
                f"{RECORD * RECORDS}; get it again"
            )
    names = tuple(line.strip() for line in read_lines(root / META) if line.strip())
    if len(names) != 10 or len(set(names)) != 10:
        raise DataError(f"{root / META}: must name ten classes, one a line; names {len(names)}")
    made = Cifar(root, names)
    for batch in (*TRAIN, TEST):
        highest = int(_records(root / f"{batch}.bin")[:, 0].max())
        if highest > 9:
            raise DataError(f"{root / batch}.bin: holds the class {highest}, known are 0 to 9")
    return made


def _records(path: Path) -> npt.NDArray[np.uint8]:
    return np.memmap(path, np.uint8, "r", shape=(RECORDS, RECORD))


@dataclass(frozen=True)
class CifarBlock:
    """One batch, decoded at once: 31 MB.

    Attributes:
        names: what its pictures are called in messages.
    """

    side: str
    path: Path
    size: int | None
    channels: int

    @property
    def names(self) -> list[str]:
        return [f"{self.path.name} {place}" for place in range(RECORDS)]

    @property
    def files(self) -> list[Path]:
        """The batch."""
        return [self.path]

    def read(self) -> PictureBatch:
        """All of its pictures; grey ones are luma (ITU-R BT.601)."""
        records = _records(self.path)
        images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        if self.channels == 1:
            images = np.rint(images.astype(np.float32) @ _LUMA).astype(np.uint8)
        resized = resize_pictures(np.ascontiguousarray(images), self.size)
        return PictureBatch(resized, np.array(records[:, 0]), None, {})


@dataclass(frozen=True)
class Cifar:
    """The six batches as a source."""

    root: Path
    classes: tuple[str, ...]
    name: str = "cifar-10"
    kind: Literal["image"] = "image"
    colour: str = "rgb"
    size: int | None = None
    attributes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def labels(self) -> dict[str, int]:
        return {}

    @property
    def excluded(self) -> dict[str, str]:
        return {}

    def counts(self) -> dict[str, int]:
        """How many pictures each part has."""
        return {"train": len(TRAIN) * RECORDS, "heldout": RECORDS}

    def relevant(self, settings: CacheSettings) -> dict[str, Any]:
        """The settings that decide what a cache of these pictures holds."""
        return {"size": settings.size, "colour": settings.colour or self.colour}

    def listing(self) -> dict[str, Any]:
        """How many pictures there are."""
        return {"pictures": sum(self.counts().values())}

    def blocks(self, settings: CacheSettings) -> dict[str, CifarBlock]:
        """The batches, named by side and number."""
        channels = COLOURS[settings.colour or self.colour]
        made = {}
        for side, batches in (("train", TRAIN), ("heldout", (TEST,))):
            for number, batch in enumerate(batches):
                path = self.root / f"{batch}.bin"
                made[f"{side}_{number:04d}"] = CifarBlock(side, path, settings.size, channels)
        return made
