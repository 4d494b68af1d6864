"""TCIA Pancreas-CT as people have it on disk: 80 scans as DICOM series, their labels as NIfTI.

Roth et al. 2016, Data From Pancreas-CT (Version 2), The Cancer Imaging Archive,
doi 10.7937/K9/TCIA.2016.tNB1kqBU.  Folders named PANCREAS_0001 and so on are found at any depth,
quotes around their names notwithstanding; without them, every folder of DICOM files is asked for
its PatientID.  Labels are found by their number, below the same folder or beside it.
"""

import filecmp
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from medaug.data.alignment import check_geometry
from medaug.data.readers import nifti_header
from medaug.data.series import (
    Header,
    check_series,
    dicom_files,
    read_header,
    series_affine,
    walk,
)
from medaug.errors import DataError
from medaug.types import Case, Marks, Problem

PAGE = "https://doi.org/10.7937/K9/TCIA.2016.tNB1kqBU"
_PATIENT = re.compile(r"PANCREAS_\d{4}")
_LABEL = re.compile(r"(?:label|pancreas_)(\d{4})\D*\.nii(?:\.gz)?", re.IGNORECASE)
_DUPLICATE = "the same scan as PANCREAS_0002, cropped differently; withdrawn by the collection"


class PancreasCT:
    """The collection below ``root``, paired by patient number.

    Args:
        root: a folder with the series and the labels at any depth, or one with a folder of
            labels beside it.

    Attributes:
        excluded: scans left out by name, with the reason; known once `cases` has run.
    """

    name = "pancreas"
    kind: Literal["ct"] = "ct"
    modality: Literal["CT", "MR"] = "CT"
    labels: Mapping[str, int] = {"pancreas": 1}
    duplicates: Mapping[str, str] = {"PANCREAS_0025": _DUPLICATE, "PANCREAS_0070": _DUPLICATE}

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.excluded: dict[str, str] = {}
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such folder")

    def cases(self) -> tuple[list[Case], list[Problem]]:
        """The usable scans, and the others with what is wrong; only headers are read.

        Raises:
            DataError: no scans, or no labels, anywhere below ``root``.
        """
        found, problems = self._scans()
        if not found and not problems:
            raise DataError(
                f"{self.root}: no Pancreas-CT scans in it; get the collection from {PAGE}"
            )
        labels = self._labels()
        self.excluded = {id: why for id, why in self.duplicates.items() if id in found}
        cases = []
        for id in sorted(found.keys() - self.excluded.keys()):
            try:
                cases.append(self._case(id, found[id], labels.get(id, [])))
            except DataError as error:
                problems.append(Problem(id, str(error)))
        return cases, sorted(problems, key=lambda p: p.case)

    def _scans(self) -> tuple[dict[str, list[Path]], list[Problem]]:
        """Folders of DICOM files by patient, and those that name two patients."""
        found: dict[str, list[Path]] = defaultdict(list)
        problems = []
        for folder, names in walk(self.root):
            files = [n for n in names if n.lower().endswith(".dcm")]
            if not files:
                continue
            named = _patient_folder(folder, self.root)
            try:
                header = read_header(folder / files[0])
            except DataError as error:
                if named is None:
                    problems.append(Problem(folder.name, str(error)))
                else:
                    found[named].append(folder)
                continue
            if header.modality not in ("", "CT"):
                continue
            if named is not None and named != header.patient:
                problems.append(
                    Problem(
                        named,
                        f"the folder is named {named}, the DICOM headers in it say "
                        f"{header.patient or 'nothing'}; keep the right one",
                    )
                )
            elif _PATIENT.fullmatch(header.patient):
                found[header.patient].append(folder)
        return dict(found), problems

    def _labels(self) -> dict[str, list[Path]]:
        """Label files by patient.

        Raises:
            DataError: there are none.
        """
        places = [self.root]
        if not self.root.name.lower().startswith("label"):
            places += sorted(
                p for p in self.root.parent.glob("*") if p.is_dir() and "label" in p.name.lower()
            )
        for place in places:
            files: dict[str, list[Path]] = defaultdict(list)
            archive = None
            for folder, names in walk(place):
                for name in names:
                    if match := _LABEL.fullmatch(name):
                        files[f"PANCREAS_{match[1]}"].append(folder / name)
                    elif name.lower().endswith(".zip") and "label" in name.lower():
                        archive = folder / name
            if files:
                return dict(files)
            if archive is not None:
                raise DataError(f"{archive}: the labels are still packed; unpack them there")
        raise DataError(
            f"{self.root}: scans, but no labels (label0001.nii.gz, ...) below it or in a folder "
            f"beside it; get them from {PAGE}"
        )

    def _case(self, id: str, folders: list[Path], labels: list[Path]) -> Case:
        if len(folders) > 1:
            raise DataError(f"{len(folders)} series in {_names(folders)}; keep one")
        if not labels:
            raise DataError(f"no label{id[-4:]}.nii.gz was found for it")
        if not all(filecmp.cmp(labels[0], other, shallow=False) for other in labels[1:]):
            raise DataError(f"{len(labels)} labels that differ, {_names(labels)}; keep one")
        headers = check_series(dicom_files(folders[0]))
        patient = headers[0].patient
        if patient != id:
            raise DataError(f"the DICOM headers say {patient}, the folder {id}; keep the right one")
        label = nifti_header(labels[0])
        check_geometry(
            _shape(headers),
            series_affine(headers[0], headers[-1], len(headers)),
            tuple(int(n) for n in label.shape[:3]),
            label.affine,
        )
        return Case(id, tuple(h.file for h in headers), Marks((labels[0],)))


def looks_like(root: Path) -> bool:
    """Whether ``root`` holds Pancreas-CT scans in some layout."""
    for folder, names in walk(root):
        files = [n for n in names if n.lower().endswith(".dcm")]
        if not files:
            continue
        if _patient_folder(folder, root) is not None:
            return True
        try:
            if _PATIENT.fullmatch(read_header(folder / files[0]).patient):
                return True
        except DataError:
            continue
    return False


def _patient_folder(folder: Path, root: Path) -> str | None:
    """The patient that ``folder`` or a folder above it, up to ``root``, is named after."""
    for part in (folder, *folder.parents):
        name = part.name.strip("\"'")
        if _PATIENT.fullmatch(name):
            return name
        if part == root:
            break
    return None


def _shape(headers: list[Header]) -> tuple[int, int, int]:
    return headers[0].columns, headers[0].rows, len(headers)


def _names(paths: list[Path]) -> str:
    return ", ".join(sorted(str(Path(p.parent.name) / p.name) for p in paths))
