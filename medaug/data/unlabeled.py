"""Scans that nobody labelled: every NIfTI file and every DICOM series below a folder."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from medaug.data.readers import nifti_header
from medaug.data.series import check_series, read_header, walk
from medaug.errors import DataError
from medaug.types import Case, Problem

_SUFFIXES = (".nii", ".nii.gz")


class Unlabeled:
    """The scans below ``root``, as cases without a label.

    A case is named after its place below ``root``; no header's identifier is kept.

    Args:
        root: the folder.

    Raises:
        DataError: no such folder.
    """

    name = "unlabeled"
    kind: Literal["ct"] = "ct"
    labels: Mapping[str, int] = {}

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            what = "a file, not a folder" if self.root.exists() else "no such folder"
            raise DataError(f"{self.root}: {what}; name a folder of scans without labels")

    def cases(self) -> tuple[list[Case], list[Problem]]:
        """The usable scans, and the others with what is wrong; only headers are read.

        Raises:
            DataError: nothing there is a scan.
        """
        cases, problems = [], []
        for folder, names in walk(self.root):
            for file in (folder / name for name in names if name.endswith(_SUFFIXES)):
                id = self._id(file)
                try:
                    nifti_header(file)
                    cases.append(Case(id, (file,)))
                except DataError as error:
                    problems.append(Problem(id, str(error)))
            series = [folder / name for name in names if name.lower().endswith(".dcm")]
            if series:
                try:
                    if read_header(series[0]).modality in ("", "CT"):
                        files = tuple(h.file for h in check_series(series))
                        cases.append(Case(self._id(folder), files))
                except DataError as error:
                    problems.append(Problem(self._id(folder), str(error)))
        if not cases and not problems:
            raise DataError(f"{self.root}: no scans in it (looked for *.nii.gz and *.dcm)")
        return cases, problems

    def _id(self, path: Path) -> str:
        inside = str(path.relative_to(self.root)) if path != self.root else path.name
        bare = inside.removesuffix(".gz").removesuffix(".nii")
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", bare)
