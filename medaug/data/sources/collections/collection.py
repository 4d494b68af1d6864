"""A collection of scans that was found on disk: which files are a scan, and what their labels mean.

Whatever the layout, scans are checked in one place, by their headers: an image and every file of
its label lie on one grid, with one affine.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from medaug.core.errors import ConfigError, DataError
from medaug.core.text import file_name
from medaug.core.types import Case, LabelFiles, Problem
from medaug.data.formats.dicom_series import Header, read_header, series_affine
from medaug.data.formats.grids import check_geometry
from medaug.data.formats.readers import read_label_map
from medaug.data.formats.volumes import VolumeHeader, suffix, volume_header
from medaug.data.sources.collections.labels import Label, checked, chosen, mapping, painted, plain
from medaug.data.sources.collections.names import embedded

# Labels of label maps that nobody names: by names in their headers, or by the ids that occur.


FEWEST = 5
"""Voxels of a label that nobody names; a single damaged byte makes one."""


def discovered(files: Iterable[Path]) -> tuple[Label, ...]:
    """Names written into the label maps, or ``label_1`` and so on for the ids that occur.

    Raises:
        DataError: the files give one name to two ids, or two names to one id, or hold an id in
            hardly a voxel.
    """
    seen: dict[int, str] = {}
    voxels = np.full(256, 0)
    named: set[int] = set()
    for file in files:
        inside = embedded(file)
        if not inside:
            try:
                values, _affine = read_label_map(file, range(256))
            except DataError:
                continue  # told where the scan is sliced
            counts = np.bincount(values.ravel(order="K"), minlength=256)
            voxels += counts
            inside = {f"label_{id}": int(id) for id in np.flatnonzero(counts) if id}
            inside = {name: id for name, id in inside.items() if id not in seen}
        else:
            named |= set(inside.values())
        for name, id in inside.items():
            if seen.setdefault(id, name) != name:
                raise DataError(
                    f"{file.name} calls the label {id} {name!r}, other label maps {seen[id]!r}; "
                    "name them all with --names"
                )
    stray = next((id for id in sorted(seen) if id not in named and voxels[id] < FEWEST), None)
    if stray is not None:
        raise DataError(
            f"the label maps hold the value {stray} in {voxels[stray]} of all their voxels, too "
            "few for a label that nobody names; correct them, or name the labels with --names"
        )
    if len(set(seen.values())) < len(seen):
        raise DataError("the label maps give one name to two ids; name them all with --names")
    return plain({name: id for id, name in seen.items()})


@dataclass(frozen=True)
class Entry:
    """The files of one scan.

    Attributes:
        id: what it is called; its case is called the `medaug.core.text.file_name` of it.
        images: one volume file, or the files of a checked DICOM series in slice order; several
            volume files are several channels, and refused.
        label: a label map, or binary masks by the name of their label, or nothing.
    """

    id: str
    images: tuple[Path, ...]
    label: Path | Mapping[str, Path] | None = None


@dataclass
class Collection:
    """Scans in one of the layouts of `medaug.data.sources.collections`.

    Attributes:
        name: of the layout.
        root: the folder.
        entries: the scans.
        given: every label, in the order in which they are painted; None where only the label
            maps can tell.
        modality: ``CT`` in HU or ``MR``; see `medaug.core.modality`.
        problems: what was found to be wrong while looking.
        excluded: what is left out on purpose, with the reason.
        taken: the labels that are asked for; by default all.
        places: of scans that are called by a hash, below the root; for the user's screen alone.
    """

    name: str
    root: Path
    entries: Sequence[Entry]
    given: tuple[Label, ...] | None
    modality: Literal["CT", "MR"] = "CT"
    problems: Sequence[Problem] = ()
    excluded: Mapping[str, str] = field(default_factory=dict)
    taken: tuple[Label, ...] | None = None
    kind: Literal["ct"] = "ct"
    places: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def all_labels(self) -> tuple[Label, ...]:
        """Every label of the collection, in the order in which they are painted."""
        if self.given is not None:
            return checked(self.given)
        return checked(discovered(e.label for e in self.entries if isinstance(e.label, Path)))

    @property
    def labels(self) -> Mapping[str, int]:
        """Name to id of the labels that are taken."""
        return {label.name: label.id for label in self._used}

    @property
    def _used(self) -> tuple[Label, ...]:
        return self.all_labels if self.taken is None else self.taken

    def selecting(self, wanted: Sequence[str]) -> "Collection":
        """The same scans with some of their labels; ``pancreas+cancer`` makes one label of two.

        Raises:
            ConfigError: a label that is not there.
        """
        return replace(self, taken=chosen(self.all_labels, wanted))

    def cases(self) -> tuple[list[Case], list[Problem]]:
        """The usable scans, and the others with what is wrong; only headers are read."""
        cases, problems = [], list(self.problems)
        entries = [replace(entry, id=file_name(entry.id)) for entry in self.entries]
        twice = _repeated(entry.id for entry in entries)
        for entry in sorted(entries, key=lambda e: (e.id, e.images)):
            try:
                if entry.id in twice:
                    raise DataError("two scans have this name; keep one")
                cases.append(self._checked(entry))
            except DataError as error:
                problems.append(Problem(entry.id, str(error)))
        return cases, sorted(set(problems), key=lambda p: (p.case, p.reason))

    def _checked(self, entry: Entry) -> Case:
        dicom = not suffix(entry.images[0])
        if len(entry.images) > 1 and not dicom:
            names = ", ".join(p.name for p in entry.images)
            raise DataError(f"{len(entry.images)} images ({names}); one channel of CT is needed")
        grid = _series_grid(entry.images) if dicom else volume_header(entry.images[0])
        marks = self._marks(entry)
        files = () if marks is None else marks.files
        for file in files:
            there = volume_header(file)
            try:
                check_geometry(grid.shape, grid.affine, there.shape, there.affine)
            except DataError as error:
                raise DataError(
                    str(error) if len(files) == 1 else f"{file.name}: {error}"
                ) from error
        return Case(entry.id, entry.images, marks)

    def _marks(self, entry: Entry) -> LabelFiles | None:
        """Where the labels of a scan that are taken are kept."""
        if entry.label is None:
            return None
        known = {value for label in self.all_labels for value in label.values}
        if isinstance(entry.label, Path):
            ids = mapping(self._used, known)
            return LabelFiles((entry.label,), ids, strict=ids is not None)
        values = {label.name: label.values[0] for label in self.all_labels}
        named = {value: name for name, value in values.items()}
        ids = painted(self._used)
        missing = [named[value] for value in ids if named[value] not in entry.label]
        if missing:
            raise DataError(
                f"no mask of {', '.join(missing[:5])}{' and more' if len(missing) > 5 else ''}, "
                "which other scans have; add it, or leave it out with --labels"
            )
        return LabelFiles(tuple(entry.label[named[v]] for v in ids), ids, each=tuple(ids))


def _repeated(ids: Iterable[str]) -> set[str]:
    seen: set[str] = set()
    return {id for id in ids if id in seen or seen.add(id)}  # type: ignore[func-returns-value]


def _series_grid(files: Sequence[Path]) -> VolumeHeader:
    ends: tuple[Header, Header] = read_header(files[0]), read_header(files[-1])
    shape = ends[0].columns, ends[0].rows, len(files)
    return VolumeHeader(shape, series_affine(*ends, len(files)))


# What a user says of a collection that its files may not say.


@dataclass(frozen=True)
class Wanted:
    """Wishes, None where the files decide.

    Attributes:
        modality: ``CT`` or ``MR``.
        names: label names, by a collection of `medaug.data.sources.collections.names` or a json
        file.
    """

    modality: Literal["CT", "MR"] | None = None
    names: str | None = None

    def settle(self, said: str | None, where: str) -> Literal["CT", "MR"]:
        """The modality, where ``where`` says ``said``; CT where nobody says anything.

        Raises:
            ConfigError: the files say otherwise.
        """
        if self.modality is not None and said is not None and self.modality != said:
            raise ConfigError(f"modality: {self.modality} was asked, and {where} says {said}")
        return "MR" if "MR" in (self.modality, said) else "CT"
