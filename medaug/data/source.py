"""Define the protocols that a source of scans or pictures meets."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from medaug.core.types import Case, PictureBatch, Problem
    from medaug.data.cache.store import CacheSettings


class Scans(Protocol):
    """A collection of scans, each a case with its label; all CT, or all MR."""

    name: str
    kind: Literal["ct"]
    modality: Literal["CT", "MR"]

    @property
    def labels(self) -> "Mapping[str, int]": ...

    def cases(self) -> "tuple[list[Case], list[Problem]]":
        """List the usable scans in name order, and the others with what is wrong."""
        ...


class Block(Protocol):
    """Pictures that become one case of a cache.

    Attributes:
        side: of the split: ``train``, ``heldout`` or ``validation``.
        names: of the pictures.
        files: that hold them.
    """

    @property
    def side(self) -> str: ...
    @property
    def names(self) -> "Sequence[str]": ...
    @property
    def files(self) -> "Sequence[Path]": ...

    def read(self) -> "PictureBatch":
        """Decode them.

        Raises:
            DataError: none can be decoded.
        """
        ...


class Pictures(Protocol):
    """Pictures, grey or RGB, perhaps in classes, perhaps with attributes.

    Attributes:
        colour: ``grey`` or ``rgb`` where it can be chosen, else None.
        size: pixels a side by default; None keeps the pictures' own.
    """

    @property
    def kind(self) -> Literal["image"]: ...
    @property
    def name(self) -> str: ...
    @property
    def labels(self) -> "Mapping[str, int]": ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def attributes(self) -> tuple[str, ...]: ...
    @property
    def colour(self) -> str | None: ...
    @property
    def size(self) -> int | None: ...
    @property
    def problems(self) -> "Sequence[Problem]": ...
    def counts(self) -> dict[str, int]:
        """How many pictures each side of the split has."""
        ...

    def relevant(self, settings: "CacheSettings") -> dict[str, object]:
        """The settings that decide what a cache of these pictures holds."""
        ...

    def listing(self) -> dict[str, object]:
        """What distinguishes these pictures from others before any is decoded; may be empty."""
        ...

    def blocks(self, settings: "CacheSettings") -> "Mapping[str, Block]":
        """Divide the pictures into the cases of a cache, by id."""
        ...


Source = Scans | Pictures
