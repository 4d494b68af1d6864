"""Scans that nobody labelled: every volume file and every DICOM series below a folder."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from medaug.data.series import check_series, read_header, walk
from medaug.data.volumes import stem, suffix, volume_header
from medaug.errors import DataError
from medaug.types import Case, Problem


class Unlabeled:
    """The scans below ``root``, as cases without a label.

    A case is named after its place below ``root``; no header's identifier is kept.

    Args:
        root: the folder.
        modality: of the series that are taken, and what volume files are taken to be.

    Raises:
        DataError: no such folder.
    """

    name = "unlabeled"
    kind: Literal["ct"] = "ct"
    labels: Mapping[str, int] = {}

    def __init__(self, root: Path, modality: Literal["CT", "MR"] = "CT") -> None:
        self.root, self.modality = Path(root), modality
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
            for file in (folder / name for name in names if suffix(Path(name))):
                id = self._id(file)
                try:
                    volume_header(file)
                    cases.append(Case(id, (file,)))
                except DataError as error:
                    problems.append(Problem(id, str(error)))
            series = [folder / name for name in names if name.lower().endswith(".dcm")]
            if series:
                try:
                    if (read_header(series[0]).modality or "CT") == self.modality:
                        files = tuple(h.file for h in check_series(series))
                        cases.append(Case(self._id(folder), files))
                except DataError as error:
                    problems.append(Problem(self._id(folder), str(error)))
        if not cases and not problems:
            raise DataError(f"{self.root}: no scans in it (looked for *.nii.gz and *.dcm)")
        return cases, problems

    def _id(self, path: Path) -> str:
        inside = path.relative_to(self.root) if path != self.root else Path(path.name)
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", str(inside.with_name(stem(inside))))
