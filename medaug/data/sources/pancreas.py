"""TCIA Pancreas-CT as people have it on disk: 80 scans as DICOM series, their labels as NIfTI.

Roth et al. 2016, Data From Pancreas-CT (Version 2), The Cancer Imaging Archive,
doi 10.7937/K9/TCIA.2016.tNB1kqBU.  Folders named PANCREAS_0001 and so on are found at any depth,
quotes around their names notwithstanding; without them, every folder of DICOM files is asked for
its PatientID.  A scan that somebody made a volume file of, PANCREAS_0001.nii.gz, is taken where
there is no series of it.  Labels are found by their number, below the same folder or beside it.
Zip archives are read like folders.  The labels that the Imaging Data Commons serves as DICOM SEG
are taken where a scan has no NIfTI label.
"""

import csv
import gzip
import hashlib
import io
import re
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from medaug.core.errors import DataError, called
from medaug.core.text import visible
from medaug.core.types import Case, LabelFiles, Problem
from medaug.data.formats import archives
from medaug.data.formats.archives import opened, size
from medaug.data.formats.dicom_seg import EXTRA, segments
from medaug.data.formats.dicom_series import (
    AGAIN,
    SEGMENTATION,
    Header,
    Part,
    check_series,
    parts,
    series_affine,
    walk,
)
from medaug.data.formats.grids import check_geometry, check_pair
from medaug.data.formats.volumes import nifti_header

# ``metadata.csv``, which download tools leave beside the series: how many images each has.


NAME = "metadata.csv"

_MOST_BYTES = 64 * 2**20

_COLUMNS = (("Series UID", "Number of Images"), ("SeriesInstanceUID", "ImageCount"))


def image_counts(file: Path) -> Mapping[str, int]:
    """Number of images by SeriesInstanceUID, as the NBIA Data Retriever or tcia_utils wrote it.

    Rows without a whole number and files without these columns say nothing: the list is a help,
    not a part of the collection.
    """
    if size(file) > _MOST_BYTES:
        return {}
    with opened(file) as stream:
        text = stream.read().decode("utf-8-sig", "replace")
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except csv.Error:
        return {}
    counts: dict[str, int] = {}
    for row in rows:
        for series, images in _COLUMNS:
            number = str(row.get(images) or "").strip()
            if row.get(series) and number.isascii() and number.isdigit() and len(number) < 10:
                counts[str(row[series]).strip()] = int(number)
    return counts


PAGE = "https://doi.org/10.7937/K9/TCIA.2016.tNB1kqBU"

_PATIENT = re.compile(r"PANCREAS_\d{4}")

_LABEL = re.compile(r"(?:label|pancreas_)(\d{4})\D*\.nii(?:\.gz)?", re.IGNORECASE)

_VOLUME = re.compile(r"pancreas_(\d{4})\D*\.nii(?:\.gz)?", re.IGNORECASE)

_NUMBERED = re.compile(r"label\d{4}", re.IGNORECASE)

_MARKED = re.compile(r"label|mask|seg", re.IGNORECASE)

_DUPLICATE = "the same scan as PANCREAS_0002, cropped differently; withdrawn by the collection"

_ORGAN = "pancreas"


@dataclass
class _Found:
    """What a walk over a folder has come upon, by patient."""

    scans: dict[str, list[Part]] = field(default_factory=lambda: defaultdict(list))
    segs: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    labels: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    volumes: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    counts: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    refused: dict[Path, str] = field(default_factory=dict)


class PancreasCT:
    """The collection below ``root``, paired by patient number.

    Args:
        root: a folder with the series and the labels at any depth, or one with a folder or a zip
            archive of labels beside it; or a zip archive of such a folder.

    Attributes:
        excluded: scans left out by name, with the reason; known once `cases` has run.
    """

    name = "pancreas"
    kind: Literal["ct"] = "ct"
    modality: Literal["CT", "MR"] = "CT"
    labels: Mapping[str, int] = {_ORGAN: 1}
    duplicates: Mapping[str, str] = {"PANCREAS_0025": _DUPLICATE, "PANCREAS_0070": _DUPLICATE}

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.excluded: dict[str, str] = {}
        if not self.root.is_dir() and not archives.is_archive(self.root):
            raise DataError(f"{self.root}: no such folder")

    def cases(self) -> tuple[list[Case], list[Problem]]:
        """The usable scans, and the others with what is wrong; only headers are read.

        Raises:
            DataError: no scans, or no labels, anywhere below ``root``.
        """
        found = self._found()
        if not found.scans and not found.volumes and not found.problems:
            told = "".join(f"; {reason}" for reason in list(found.refused.values())[:1])
            raise DataError(
                f"{self.root}: no Pancreas-CT scans in it{told}; get the collection from {PAGE}"
            )
        if not found.labels and not found.segs:
            self._look_beside(found)
        there = found.scans.keys() | found.volumes.keys()
        self.excluded = {id: why for id, why in self.duplicates.items() if id in there}
        cases = []
        problems = found.problems + [Problem(a.name, why) for a, why in found.refused.items()]
        for id in sorted(there - self.excluded.keys()):
            try:
                cases.append(_case(id, found) if id in found.scans else _volume_case(id, found))
            except DataError as error:
                problems.append(Problem(id, str(error)))
        return cases, sorted(problems, key=lambda p: p.case)

    def _found(self) -> _Found:
        found = _Found()
        for folder, names in walk(self.root, found.refused):
            _note_labels(found, folder, names)
            if NAME in names:
                found.counts.update(image_counts(folder / NAME))
            series = [name for name in names if name.lower().endswith(".dcm")]
            if series:
                self._note_series(found, folder, series)
        _settle_volumes(found)
        return found

    def _note_series(self, found: _Found, folder: Path, names: Sequence[str]) -> None:
        """Enter the DICOM series of a folder under the patients that their headers name."""
        named = _patient_folder(folder, self.root)
        try:
            series = parts(folder, names)
        except DataError as error:
            if named is None:
                found.problems.append(Problem(folder.name, f"{error}; {AGAIN}"))
            else:
                files = tuple(folder / name for name in names)
                found.scans[named].append(Part(folder, files))
            return
        for part in series:
            if part.modality not in ("", "CT", SEGMENTATION):
                continue
            if named is not None and named != part.patient:
                found.problems.append(
                    Problem(
                        named,
                        f"the folder is named {named}, the DICOM headers in it say "
                        f"{called(part.patient) or 'nothing'}; keep the right one",
                    )
                )
            elif _PATIENT.fullmatch(part.patient):
                if part.modality == SEGMENTATION:
                    found.segs[part.patient].extend(part.files)
                else:
                    found.scans[part.patient].append(part)

    def _look_beside(self, found: _Found) -> None:
        """Enter the labels in the first folder or archive beside ``root`` that has any.

        Raises:
            DataError: there are none.
        """
        beside = []
        if not self.root.name.lower().startswith("label"):
            beside = [
                path
                for path in sorted(self.root.resolve().parent.glob("*"))
                if "label" in path.name.lower() and (path.is_dir() or archives.is_archive(path))
            ]
        for place in beside:
            for folder, names in walk(place, found.refused):
                _note_labels(found, folder, names)
            _settle_volumes(found)
            if found.labels:
                return
        for archive, reason in found.refused.items():
            if "label" in archive.name.lower():
                raise DataError(f"{archive}: {reason}")
        raise DataError(
            f"{self.root}: scans, but no labels (label0001.nii.gz, ...) below it or in a folder "
            f"beside it; get them from {PAGE}"
        )


def _note_labels(found: _Found, folder: Path, names: Sequence[str]) -> None:
    for name in names:
        if match := _LABEL.fullmatch(name):
            image = _VOLUME.fullmatch(name) and not _MARKED.search(folder.name + name)
            kept = found.volumes if image else found.labels
            kept[f"PANCREAS_{match[1]}"].append(folder / name)


def _settle_volumes(found: _Found) -> None:
    """Beside series, ``PANCREAS_0001.nii.gz`` is a label, but where the scan has one already.

    There it is the scan, and the series is taken if both are there.
    """
    for id in list(found.volumes) if found.scans else ():
        if id not in found.labels:
            found.labels[id] += found.volumes.pop(id)
        elif id in found.scans:
            del found.volumes[id]


def _case(id: str, found: _Found) -> Case:
    """The scan ``id`` with its label, checked by their headers."""
    scan = _only_series(found.scans[id])
    label = _only_file(found.labels[id], "labels") if id in found.labels else None
    if label is None and id not in found.segs:
        raise DataError(f"no label{id[-4:]}.nii.gz was found for it")
    headers = check_series(scan.files)
    first = headers[0]
    if first.patient != id:
        raise DataError(
            f"the DICOM headers say {called(first.patient)}, the folder {id}; keep the right one"
        )
    listed = found.counts.get(first.series, len(headers))
    files = tuple(h.file for h in headers)
    if label is None:
        marks = _segmented(found.segs[id], first, files)
    else:
        header = nifti_header(label)
        check_geometry(
            (first.columns, first.rows, len(headers)),
            series_affine(first, headers[-1], len(headers)),
            tuple(int(n) for n in header.shape[:3]),
            header.affine,
        )
        marks = LabelFiles((label,))
    if listed != len(headers):
        raise DataError(
            f"{NAME} lists {listed} images for the series, {len(headers)} are there; {AGAIN}"
        )
    return Case(id, files, marks)


def _volume_case(id: str, found: _Found) -> Case:
    """The scan ``id`` that is kept as a volume file, with its label, checked by their headers."""
    image = _only_file(found.volumes[id], "images")
    if id not in found.labels:
        raise DataError(f"no label{id[-4:]}.nii.gz was found for it")
    label = _only_file(found.labels[id], "labels")
    grids = [nifti_header(file) for file in (image, label)]
    (shape, affine), (label_shape, label_affine) = (
        (tuple(int(n) for n in grid.shape[:3]), grid.affine) for grid in grids
    )
    check_pair(shape, affine, label_shape, label_affine)
    return Case(id, (image,), LabelFiles((label,)))


def _only_series(scans: list[Part]) -> Part:
    """The one series of a patient; a packed copy of an unpacked one does not count."""
    unpacked = {part.series for part in scans if archives.split(part.files[0]) is None}
    kept = [
        part
        for part in scans
        if archives.split(part.files[0]) is None or part.series not in unpacked
    ]
    if len(kept) > 1:
        raise DataError(f"{len(kept)} series in {_names([p.folder for p in kept])}; keep one")
    return kept[0]


def _only_file(files: list[Path], what: str) -> Path:
    """The one label or image of a patient, an unpacked one first; copies must be equal."""
    if len(files) > 1 and len({_digest(file) for file in files}) > 1:
        raise DataError(f"{len(files)} {what} that differ, {_names(files)}; keep one")
    return min(files, key=lambda file: archives.split(file) is not None)


def _digest(label: Path) -> str:
    """Of what ``label`` holds, compressed or not."""
    with archives.opened(label) as stream:
        if not label.name.lower().endswith(".gz"):
            return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
        try:
            with gzip.open(stream) as content:
                return hashlib.file_digest(content, "sha256").hexdigest()
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{label.name} is not a NIfTI file") from error


def _segmented(files: list[Path], first: Header, scan: tuple[Path, ...]) -> LabelFiles:
    """The pancreas in the one DICOM SEG of a scan that has it.

    Raises:
        DataError: no SEG of this series has a pancreas, or several have; no highdicom.
    """
    if find_spec("highdicom") is None:
        raise DataError(f"its only label is a DICOM SEG; {EXTRA}")
    others, chosen = [], []
    for file in sorted(files):
        told = segments(file)
        organ = [number for number, name in told.names.items() if _ORGAN in name.lower()]
        if told.scan and told.scan != first.series:
            others.append(f"{file.name} was drawn on another series")
        elif organ:
            chosen.append(LabelFiles((file,), dict.fromkeys(organ, 1), scan=scan))
        else:
            others.append(f"{file.name} holds {'; '.join(told.names.values()) or 'no segment'}")
    if len(chosen) > 1:
        raise DataError(
            f"{len(chosen)} DICOM SEG of the pancreas, {_names([m.files[0] for m in chosen])}; "
            "keep one"
        )
    if not chosen:
        raise DataError(f"no DICOM SEG has its pancreas: {others[0]}")
    return chosen[0]


def looks_like(root: Path) -> bool:
    """Whether ``root``, a folder or a zip archive, holds Pancreas-CT scans in some layout."""
    volumes = _Found()
    for folder, names in walk(root, {}):
        _note_labels(volumes, folder, names)
        files = [n for n in names if n.lower().endswith(".dcm")]
        if not files:
            continue
        if _patient_folder(folder, root) is not None:
            return True
        try:
            if any(_PATIENT.fullmatch(part.patient) for part in parts(folder, files)):
                return True
        except DataError:
            continue
    own = {
        id for id, files in volumes.labels.items() if any(_NUMBERED.match(f.name) for f in files)
    }
    return bool(own & volumes.volumes.keys())


def _patient_folder(folder: Path, root: Path) -> str | None:
    """The patient that ``folder`` or a folder above it, up to ``root``, is named after."""
    for part in (folder, *folder.parents):
        name = part.name.removesuffix(archives.SUFFIX).strip("\"'")
        if _PATIENT.fullmatch(name):
            return name
        if part == root:
            break
    return None


def _names(paths: Sequence[Path]) -> str:
    return visible(", ".join(sorted({str(Path(p.parent.name) / p.name) for p in paths})))
