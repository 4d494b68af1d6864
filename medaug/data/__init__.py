"""Sources of scans and pictures, opened by name or by looking at a folder."""

import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from medaug import registry
from medaug.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from medaug.data.collections import Wanted
    from medaug.data.dataset import SliceDataset
    from medaug.data.stored import CacheSettings
    from medaug.types import Case, Problem, Read

__all__ = ["Block", "Pictures", "Scans", "SliceDataset", "Source", "open_source"]


def __getattr__(name: str) -> Any:
    if name == "SliceDataset":  # loads torch
        from medaug.data.dataset import SliceDataset

        return SliceDataset
    raise AttributeError(f"module 'medaug.data' has no attribute {name!r}")


class Scans(Protocol):
    """A collection of scans, each a case with its label; all CT, or all MR."""

    name: str
    kind: Literal["ct"]
    modality: Literal["CT", "MR"]

    @property
    def labels(self) -> "Mapping[str, int]": ...

    def cases(self) -> "tuple[list[Case], list[Problem]]":
        """The usable scans in name order, and the others with what is wrong."""
        ...


class Block(Protocol):
    """Pictures from ``files`` that become one case of a cache; ``side`` is theirs in the split."""

    @property
    def side(self) -> str: ...
    @property
    def names(self) -> "Sequence[str]": ...
    @property
    def files(self) -> "Sequence[Path]": ...

    def read(self) -> "Read":
        """Decode them.

        Raises:
            DataError: none can be decoded.
        """
        ...


class Pictures(Protocol):
    """Pictures, grey or RGB, perhaps in classes, perhaps with attributes.

    Attributes:
        colour: ``grey`` or ``rgb`` where it can be chosen, else None.
        size: pixels a side unless told; None keeps the pictures' own.
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
        """How many pictures each part has."""
        ...

    def relevant(self, settings: "CacheSettings") -> dict[str, object]:
        """The settings that decide what a cache of these pictures holds."""
        ...

    def listing(self) -> dict[str, object]:
        """What tells these pictures from others before any is decoded; may be empty."""
        ...

    def blocks(self, settings: "CacheSettings") -> "Mapping[str, Block]":
        """The pictures by case of the cache."""
        ...


Source = Scans | Pictures


def default_root(name: str) -> Path:
    """Where the data called ``name`` is looked for: ``$MEDAUG_DATA/name``, then ``data/name``."""
    base = os.environ.get("MEDAUG_DATA")
    if base and (Path(base) / name).is_dir():
        return Path(base) / name
    return Path("data") / name


def open_source(
    data: str,
    root: Path | None = None,
    *,
    labels: "Sequence[str] | None" = None,
    modality: Literal["CT", "MR"] | None = None,
    names: str | None = None,
) -> Source:
    """Open a source by its name, or a folder by looking at it.

    Args:
        data: ``pancreas``, ``mnist``, ``fashion-mnist``, ``phantom``, or a path.
        root: where the data called by name is; `default_root` where None.
        labels: those to take, by name; ``pancreas+cancer`` makes one label of two.
        modality: what the scans are, where a folder does not say or holds both.
        names: label names, by a collection of `medaug.data.collections.names` or a json file,
            for label maps that carry none.

    Raises:
        ConfigError: a label that is not there, or a wish that the files contradict.
        DataError: no such folder, an empty one, or nothing in it that is known.
    """
    from medaug.data.collections import Collection, Wanted

    if modality is not None and modality not in ("CT", "MR"):
        raise ConfigError(f"modality {modality!r} is not known (known: CT, MR)")
    source = _open(data, root, Wanted(modality, names))
    if isinstance(source, Collection):
        return source if labels is None else source.selecting(labels)
    if names is not None:
        raise ConfigError(
            f"{data}: label names {names!r} were asked, and {source.name} has its own"
        )
    if modality is not None and (source.kind != "ct" or source.modality != modality):
        raise ConfigError(f"{data}: modality {modality} was asked, and {source.name} has none")
    if labels is not None and set(labels) != set(source.labels):
        there = ", ".join(source.labels) or "none"
        raise ConfigError(f"{data}: labels {', '.join(labels)} were asked (there: {there})")
    return source


def _open(data: str, root: Path | None, wanted: "Wanted") -> Source:
    if data not in registry.SOURCES or data == "nifti":
        return _look(Path(data), wanted)
    place = default_root(data) if root is None else Path(root)
    make = registry.SOURCES[data].load()
    if data == "phantom":
        return cast(Source, make(place))
    if not place.is_dir() and not (data == "pancreas" and zipfile.is_zipfile(place)):
        looked = "" if root is not None else " (nor $MEDAUG_DATA set to a folder that has it)"
        raise DataError(
            f"{data}: no folder {place}{looked}; get the data with medaug download {data} "
            f"--root {place}, or name its folder with --root"
        )
    return cast(Source, make(place, data) if data.endswith("mnist") else make(place))


def _look(path: Path, wanted: "Wanted") -> Source:
    """The source that ``path`` holds: a folder, a zip archive, or one scan."""
    from medaug.data import archives, collections, idx, packed, pancreas, pictures

    if archives.is_archive(path):
        source = pancreas.PancreasCT(path)
        if pancreas.looks_like(path) or not archives.whole(path):
            return source
    if packed.is_packed(path):
        raise DataError(packed.how_to_unpack(path))
    if path.is_file() and (scan := collections.look(path, wanted)) is not None:
        return scan
    if not path.is_dir():
        known = ", ".join(name for name in registry.SOURCES if name != "nifti")
        what = "a file, not a folder" if path.exists() else "no such folder"
        raise DataError(f"{path}: {what}, and not one of {known}")
    if not any(not p.name.startswith(".") for p in path.iterdir()):
        raise DataError(f"{path}: the folder is empty")
    if idx.looks_like(path):
        return idx.Idx(path, path.resolve().name)
    data_set = pictures.published(path)
    if data_set is not None:
        return data_set
    if pancreas.looks_like(path):
        return pancreas.PancreasCT(path)
    if (found := collections.labelled(path, wanted) or collections.look(path, wanted)) is not None:
        return found
    photos = pictures.folder(path)
    if photos is not None:
        return photos
    if archived := sorted(filter(packed.is_packed, path.iterdir())):
        raise DataError(packed.how_to_unpack(archived[0]))
    raise DataError(
        f"{path}: nothing in it is known; looked for Pancreas-CT (PANCREAS_0001/.../*.dcm), "
        f"{collections.LOOKED_FOR}, idx files (train-images-idx3-ubyte, ...) and pictures (PNG, "
        "JPEG, CIFAR-10 binaries)"
    )
