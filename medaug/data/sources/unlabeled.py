"""Scans that nobody labelled: every volume file and every DICOM series below a folder."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from medaug.core.errors import DataError
from medaug.core.types import Case, Problem
from medaug.data.formats.dicom_series import check_series, read_header, walk
from medaug.data.formats.volumes import suffix, volume_header


def digest(identifier: str) -> str:
    """Twelve hexadecimal digits that stand for ``identifier`` and do not tell it."""
    return hashlib.sha256(identifier.encode(errors="surrogateescape")).hexdigest()[:12]


class Unlabeled:
    """The scans below ``root``, as cases without a label.

    Files and folders of scans are often named after patients: a series is called by a hash of its
    SeriesInstanceUID, which says nothing to those who do not have the scan, and stays the same
    wherever the series is moved; a volume file by a hash of its place below ``root``.

    Args:
        root: the folder.
        modality: of the series that are taken, and what volume files are taken to be.

    Attributes:
        places: of each scan below ``root``, for the user's screen alone; known once `cases` has
            run.

    Raises:
        DataError: no such folder.
    """

    name = "unlabeled"
    kind: Literal["ct"] = "ct"
    labels: Mapping[str, int] = {}

    def __init__(self, root: Path, modality: Literal["CT", "MR"] = "CT") -> None:
        self.root, self.modality = Path(root), modality
        self.places: dict[str, str] = {}
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
                place = str(file.relative_to(self.root))
                id = f"scan-{digest(place)}"
                self.places[id] = place
                try:
                    volume_header(file)
                    cases.append(Case(id, (file,)))
                except DataError as error:
                    problems.append(Problem(id, f"{place}: {error}"))
            series = [folder / name for name in names if name.lower().endswith(".dcm")]
            if series:
                case, problem = self._series(folder, series)
                cases += [] if case is None else [case]
                problems += [] if problem is None else [problem]
        if not cases and not problems:
            raise DataError(f"{self.root}: no scans in it (looked for *.nii.gz and *.dcm)")
        return cases, problems

    def _series(self, folder: Path, files: list[Path]) -> tuple[Case | None, Problem | None]:
        """The series right in ``folder``, or what is wrong with it; neither of another modality."""
        place = str(folder.relative_to(self.root))
        id = f"scan-{digest(place)}"
        try:
            header = read_header(files[0])
            if (header.modality or "CT") != self.modality:
                return None, None
            id = f"scan-{digest(header.series or place)}"
            if id in self.places and self.places[id] != place:
                raise DataError(f"the same series is in {self.places[id]}; keep one of them")
            self.places[id] = place
            return Case(id, tuple(h.file for h in check_series(files))), None
        except DataError as error:
            return None, Problem(id, f"{place}: {error}")
