"""What a DICOM file is and whose, whatever its kind: one look, before geometry matters."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

from medaug.data.announced import check_deflated
from medaug.data.archives import opened
from medaug.data.series import DAMAGE, tolerant
from medaug.errors import DataError

SEGMENTATION = "SEG"
_TAGS = ["PatientID", "Modality", "SeriesInstanceUID"]


@dataclass(frozen=True)
class Part:
    """The files of one DICOM series in one folder, and what their headers say they are of."""

    folder: Path
    files: tuple[Path, ...]
    patient: str = ""
    modality: str = ""
    series: str = ""


def glance(file: Path) -> tuple[str, str, str]:
    """Patient, modality and series of ``file``, empty where the header has none.

    Raises:
        DataError: not DICOM, or damaged.
    """
    try:
        with tolerant(), opened(file) as stream:
            check_deflated(stream, file.name)
            data = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=_TAGS)
        return tuple(str(data.get(tag) or "") for tag in _TAGS)  # type: ignore[return-value]
    except DataError:
        raise
    except InvalidDicomError as error:
        raise DataError(f"{file.name} is not a DICOM file") from error
    except DAMAGE as error:
        raise DataError(f"{file.name} is truncated or damaged") from error


def parts(folder: Path, names: Sequence[str]) -> list[Part]:
    """The series among the ``.dcm`` files ``names`` of ``folder``.

    The first and the last file are asked; where they agree the others are taken to be of the same
    series, which whoever reads them checks.  A file that cannot be read joins the first series.

    Raises:
        DataError: the first file cannot be read.
    """
    files = [folder / name for name in sorted(names)]
    first = glance(files[0])
    if _same(files[-1], first):
        return [Part(folder, tuple(files), *first)]
    groups: dict[tuple[str, str, str], list[Path]] = defaultdict(list)
    for file in files:
        try:
            groups[glance(file)].append(file)
        except DataError:
            groups[first].append(file)
    return [Part(folder, tuple(files), *of) for of, files in groups.items()]


def _same(file: Path, first: tuple[str, str, str]) -> bool:
    try:
        return glance(file) == first
    except DataError:
        return True
