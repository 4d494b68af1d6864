"""A listed collection of picture files, which becomes a slice cache block by block.

Nothing is decoded when it is opened.  A block is a run of pictures of one side of the split whose
levels fill at most 64 MiB; each is decoded, written and forgotten, so memory does not grow with
the collection, and an interrupted `prepare` goes on with the next block.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from medaug.core.errors import ConfigError, DataError
from medaug.core.types import PictureBatch, Problem
from medaug.data.cache.store import COLOURS, CacheSettings, split_patients
from medaug.data.sources.pictures.decoding import decode
from medaug.data.sources.pictures.scaling import square

BLOCK_BYTES = 64 * 2**20

SIDES = ("train", "heldout", "validation")

USUAL_SIZE = 64


@dataclass(frozen=True)
class PhotoBlock:
    """Pictures that are decoded together.

    Attributes:
        side: of the split.
        names: files below ``root``.
        classes: class ids (n,), or None.
        attributes: bool (n, attributes), or None.
        crop: side in pixels of the square cut from the middle of each picture; None for the
            short side.
    """

    side: str
    root: Path
    names: Sequence[str]
    classes: npt.NDArray[np.unsignedinteger[Any]] | None
    attributes: npt.NDArray[np.bool_] | None
    size: int
    channels: int
    crop: int | None

    @property
    def files(self) -> list[Path]:
        """What the pictures are read from."""
        return [self.root / name for name in self.names]

    def read(self) -> PictureBatch:
        """Every picture that can be decoded, and why each other cannot.

        Raises:
            DataError: none can.
        """
        sides = (self.size, self.size, *([3] if self.channels == 3 else []))
        images = np.empty((len(self.names), *sides), np.uint8)
        left_out: dict[int, str] = {}
        for place, name in enumerate(self.names):
            try:
                levels = decode(self.root / name, self.channels)
            except DataError as error:
                left_out[place] = str(error)
                continue
            images[place - len(left_out)] = square(levels, self.size, self.crop)
        if len(left_out) == len(self.names):
            raise DataError(f"none of its {len(self.names)} pictures can be used: {left_out[0]}")
        kept = np.setdiff1d(np.arange(len(self.names)), list(left_out))
        return PictureBatch(
            images[: len(kept)],
            None if self.classes is None else self.classes[kept],
            None if self.attributes is None else self.attributes[kept],
            left_out,
        )


@dataclass(frozen=True)
class Photos:
    """Picture files with what is known of each, in the order of their names.

    Attributes:
        root: the folder.
        name: what the collection is called.
        names: files below ``root``, with ``/``.
        sides: the data set's own partition, one of ``SIDES`` for each; None where it has none.
        owners: who or what must stay on one side of a split that is drawn; None: each by itself.
        classes: names of the classes.
        class_ids: of each picture, or None.
        attributes: names of the attributes.
        has: which picture has which, bool (n, attributes), or None.
        colour: ``grey`` or ``rgb``, as the files are.
        crop: side of the central square in the files' pixels; None takes the short side.
        problems: pictures that are listed and cannot be used.
        excluded: what is left out on purpose, with the reason.
        size: pixels a side unless told.
    """

    root: Path
    name: str
    names: Sequence[str]
    sides: Sequence[str] | None = None
    owners: Sequence[str] | None = None
    classes: tuple[str, ...] = ()
    class_ids: npt.NDArray[np.unsignedinteger[Any]] | None = None
    attributes: tuple[str, ...] = ()
    has: npt.NDArray[np.bool_] | None = None
    colour: str = "rgb"
    crop: int | None = None
    problems: Sequence[Problem] = ()
    excluded: Mapping[str, str] = field(default_factory=dict)
    size: int | None = USUAL_SIZE
    kind: Literal["image"] = "image"
    labels: Mapping[str, int] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """How many pictures each part has: those of its own partition, or ``all``."""
        if self.sides is None:
            return {"all": len(self.names)}
        return {side: self.sides.count(side) for side in SIDES if side in self.sides}

    def relevant(self, settings: CacheSettings) -> dict[str, Any]:
        """The settings that decide what a cache of these pictures holds."""
        drawn = settings.only("holdout", "seed") if self.sides is None else {}
        return {"size": settings.size, "colour": settings.colour or self.colour, **drawn}

    def listing(self) -> dict[str, Any]:
        """How many pictures there are, and a hash of all that is known of them undecoded."""
        owners = None if self.owners is None else list(self.owners)
        sides = None if self.sides is None else list(self.sides)
        content = hashlib.sha256(json.dumps([list(self.names), sides, owners]).encode())
        for array in (self.class_ids, self.has):
            content.update(b"" if array is None else array.tobytes())
        return {"pictures": len(self.names), "sha256": content.hexdigest()}

    def blocks(self, settings: CacheSettings) -> dict[str, PhotoBlock]:
        """The pictures by block, named by side and number.

        Raises:
            ConfigError: no size.
            DataError: none is left for training.
        """
        if settings.size is None:
            raise ConfigError("size: photographs need a number of pixels, such as 64")
        channels = COLOURS[settings.colour or self.colour]
        most = max(1, BLOCK_BYTES // (settings.size**2 * channels))
        sides = np.array(self._split(settings))
        made = {}
        for side in SIDES:
            places = np.flatnonzero(sides == side)
            for number, start in enumerate(range(0, len(places), most)):
                part = places[start : start + most]
                made[f"{side}_{number:04d}"] = PhotoBlock(
                    side=side,
                    root=self.root,
                    names=[self.names[place] for place in part],
                    classes=None if self.class_ids is None else self.class_ids[part],
                    attributes=None if self.has is None else self.has[part],
                    size=settings.size,
                    channels=channels,
                    crop=self.crop,
                )
        if "train_0000" not in made:
            raise DataError(f"{self.root}: none of its {len(self.names)} pictures is for training")
        return made

    def _split(self, settings: CacheSettings) -> Sequence[str]:
        if self.sides is not None:
            return self.sides
        owners = self.names if self.owners is None else self.owners
        drawn = split_patients(sorted(set(owners)), settings.holdout, settings.seed)
        held = set(drawn["heldout"])
        return ["heldout" if owner in held else "train" for owner in owners]


def class_numbers(names: Sequence[str], known: Sequence[str]) -> npt.NDArray[Any]:
    """The class of each picture as its number, in one byte where that is enough."""
    numbers = {name: number for number, name in enumerate(known)}
    return np.array([numbers[name] for name in names], "uint8" if len(known) <= 256 else "uint16")


# The text files beside pictures, which list them.


def read_lines(path: Path) -> list[str]:
    """The lines of ``path``, in UTF-8, without their ends.

    Raises:
        DataError: it cannot be read as text.
    """
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text; get it again") from error
