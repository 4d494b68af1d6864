"""Samples to files: pure functions from a sample to named bytes, so that the caller owns the disk.

A writer decides names, formats and what a folder says about itself.  Writing whole, skipping what
is there, threads and errors belong to ``medaug.synthesis.synthesize``.
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from medaug.core.errors import ConfigError, DataError
from medaug.core.modality import MR
from medaug.core.registry import WRITERS, lookup
from medaug.core.types import Sample

ROLES = ("image", "label", "std", "entropy", "samples", "masks")
"""What a sample's files hold: the case itself, the spread around it, and the K alternatives."""


def inside(folder: Path, name: str) -> Path:
    """The file that a row of the manifest calls ``name``, which must lie in ``folder``.

    Raises:
        DataError: it lies elsewhere; a manifest from a stranger may say anything.
    """
    place = PurePosixPath(name)
    if place.is_absolute() or ".." in place.parts or set(name) & set("\\\0"):
        raise DataError(f"{folder}: the manifest names {name!r}, which is not in the folder")
    return folder / name


class Writer(Protocol):
    """One output format."""

    def files(self, sample: Sample, case: str, level: int) -> dict[str, tuple[str, bytes]]:
        """The files of ``sample``: role to path inside the folder and content.

        Equal samples give equal bytes.  ``level`` is the compression, 0 (none) to 9 (smallest).
        A role that the sample lacks (no mask, no alternatives) is left out.
        """
        ...

    def read(self, folder: Path, row: Mapping[str, str]) -> Sample:
        """The sample whose manifest row is ``row``, without its alternatives.

        Raises:
            DataError: a file is missing or damaged.
        """
        ...

    def about(self, kind: str, labels: Mapping[str, int], count: int) -> dict[str, bytes]:
        """Files that describe the folder, for ``count`` samples: path to content."""
        ...


def open_writer(name: str, kind: str = "ct") -> tuple[str, Writer]:
    """The writer called ``name`` and its name; ``auto`` takes NIfTI for scans and PNG for pictures.

    Raises:
        ConfigError: no such format, one whose packages are not installed, or one not for ``kind``.
    """
    if name == "auto":
        name = "png" if kind == "image" else "nifti"
    if name == "dicom" and kind == "image":
        raise ConfigError("format dicom is for CT and MR, and these samples are pictures; take png")
    make = lookup(WRITERS, name, "format").load()
    own: dict[str, tuple[Any, ...]] = {"png": (MR.window,), "dicom": (MR,)}
    return name, make(*(own.get(name, ()) if kind == "mr" else ()))
