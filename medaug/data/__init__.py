"""Open sources of scans and pictures by name, or by looking at a folder."""

import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from medaug.core import registry
from medaug.core.errors import ConfigError, DataError
from medaug.data.source import Block, Pictures, Scans, Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medaug.data.cache.dataset import SliceDataset
    from medaug.data.sources.collections import Wanted


__all__ = ["Block", "Pictures", "Scans", "SliceDataset", "Source", "open_source"]


def __getattr__(name: str) -> Any:
    if name == "SliceDataset":  # loads torch
        from medaug.data.cache.dataset import SliceDataset

        return SliceDataset
    raise AttributeError(f"module 'medaug.data' has no attribute {name!r}")


def default_root(name: str) -> Path:
    """The folder of the data called ``name``: ``$MEDAUG_DATA/name``, else ``data/name``."""
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
        labels: to take, by name; ``pancreas+cancer`` makes one label of two.
        modality: what the scans are, where a folder does not say or holds both.
        names: label names, by a collection of `medaug.data.sources.collections.names` or a json
            file, for label maps that carry none.

    Raises:
        ConfigError: a label that is not there, or another setting that the files contradict.
        DataError: no such folder, an empty one, or nothing in it that is known.
    """
    from medaug.data.sources.collections import Collection, Wanted

    if modality is not None and modality not in ("CT", "MR"):
        raise ConfigError(f"modality {modality!r} is not known (known: CT, MR)")
    source = _open(data, root, Wanted(modality, names))
    if isinstance(source, Collection):
        return source if labels is None else source.selecting(labels)
    if names is not None:
        raise ConfigError(
            f"{data}: label names {names!r} were requested, and {source.name} has its own"
        )
    if modality is not None and (source.kind != "ct" or source.modality != modality):
        raise ConfigError(f"{data}: modality {modality} was requested, and {source.name} has none")
    if labels is not None and set(labels) != set(source.labels):
        there = ", ".join(source.labels) or "none"
        raise ConfigError(f"{data}: labels {', '.join(labels)} were requested (there: {there})")
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
    from medaug.data.formats import archives
    from medaug.data.sources import collections, idx, pancreas, pictures

    if archives.is_archive(path):
        source = pancreas.PancreasCT(path)
        if pancreas.looks_like(path) or not archives.whole(path):
            return source
    if archives.is_packed(path):
        raise DataError(archives.how_to_unpack(path))
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
    if archived := sorted(filter(archives.is_packed, path.iterdir())):
        raise DataError(archives.how_to_unpack(archived[0]))
    raise DataError(
        f"{path}: nothing in it is known; looked for Pancreas-CT (PANCREAS_0001/.../*.dcm), "
        f"{collections.LOOKED_FOR}, idx files (train-images-idx3-ubyte, ...) and pictures (PNG, "
        "JPEG, CIFAR-10 binaries)"
    )
