"""A collection of scans that was found on disk: which files are a scan, and what their labels mean.

Whatever the layout, scans are checked in one place, by their headers: an image and every file of
its label lie on one grid, with one affine.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from medaug.data.collections.discovered import discovered
from medaug.data.collections.labels import Label, checked, chosen, mapping, painted
from medaug.data.grids import check_geometry
from medaug.data.series import Header, read_header, series_affine
from medaug.data.volumes import VolumeHeader, suffix, volume_header
from medaug.errors import DataError
from medaug.text import file_name
from medaug.types import Case, Marks, Problem


@dataclass(frozen=True)
class Entry:
    """The files of one scan.

    Attributes:
        id: what it is called; its case is called the `medaug.text.file_name` of it.
        images: one volume file, or the files of a checked DICOM series in slice order; several
            volume files are several channels, and refused.
        label: a label map, or binary masks by the name of their label, or nothing.
    """

    id: str
    images: tuple[Path, ...]
    label: Path | Mapping[str, Path] | None = None


@dataclass
class Collection:
    """Scans in one of the layouts of `medaug.data.collections`.

    Attributes:
        name: of the layout.
        root: the folder.
        entries: the scans.
        given: every label, in the order in which they are painted; None where only the label
            maps can tell.
        modality: ``CT`` in HU or ``MR``; see `medaug.modality`.
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

    def _marks(self, entry: Entry) -> Marks | None:
        """Where the labels of a scan that are taken are kept."""
        if entry.label is None:
            return None
        known = {value for label in self.all_labels for value in label.values}
        if isinstance(entry.label, Path):
            ids = mapping(self._used, known)
            return Marks((entry.label,), ids, strict=ids is not None)
        values = {label.name: label.values[0] for label in self.all_labels}
        named = {value: name for name, value in values.items()}
        ids = painted(self._used)
        missing = [named[value] for value in ids if named[value] not in entry.label]
        if missing:
            raise DataError(
                f"no mask of {', '.join(missing[:5])}{' and more' if len(missing) > 5 else ''}, "
                "which other scans have; add it, or leave it out with --labels"
            )
        return Marks(tuple(entry.label[named[v]] for v in ids), ids, each=tuple(ids))


def _repeated(ids: Iterable[str]) -> set[str]:
    seen: set[str] = set()
    return {id for id in ids if id in seen or seen.add(id)}  # type: ignore[func-returns-value]


def _series_grid(files: Sequence[Path]) -> VolumeHeader:
    ends: tuple[Header, Header] = read_header(files[0]), read_header(files[-1])
    shape = ends[0].columns, ends[0].rows, len(files)
    return VolumeHeader(shape, series_affine(*ends, len(files)))
