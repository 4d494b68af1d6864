"""DICOM series of The Cancer Imaging Archive: what its server lists, and what of it is on disk.

The REST service of NBIA answers ``getSeries`` with JSON and ``getImage`` with a zip file of one
series; nothing found is an empty answer with status 200.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pydicom
from pydicom.errors import InvalidDicomError

from medaug.core.errors import DataError, DownloadError
from medaug.data.download.http import Client
from medaug.data.formats.dicom_series import DAMAGE, Header, dicom_files, read_header, walk
from medaug.data.formats.limits import check_deflated
from medaug.runtime.files import explaining

_UID = re.compile(r"\d+(\.\d+)+")
_LONGEST_UID = 64
_SERIES = "SeriesInstanceUID"
_SLICE_BYTES = 525_500
"""Of a slice of 512 x 512 pixels with its header."""


@dataclass(frozen=True)
class Series:
    """One CT series as the server lists it."""

    uid: str
    patient: str
    images: int
    bytes: int


def listed(client: Client, base: str, collection: str, patient: re.Pattern[str]) -> list[Series]:
    """The CT series of ``collection``, by patient.

    Raises:
        DownloadError: no answer, or one that does not list series; ``patient`` is what the names
            of the patients must be like.
    """
    url = f"{base}/getSeries?{urlencode({'Collection': collection})}"
    rows = client.ask(url)
    if not rows:
        raise DownloadError(f"{url}: an empty answer; the server lists no {collection}")
    if not isinstance(rows, list):
        raise DownloadError(f"{url}: a list of series is wanted, got {type(rows).__name__}")
    found = [_series(url, row, patient) for row in rows if _modality(row) in ("CT", "")]
    if not found:
        raise DownloadError(f"{url}: {len(rows)} series, and no CT among them")
    return sorted(found, key=lambda series: (series.patient, series.uid))


def image_url(base: str, series: Series) -> str:
    """Where the zip file of a series is; its slices are named in their order."""
    return f"{base}/getImage?{urlencode({'SeriesInstanceUID': series.uid, 'NewFileNames': 'Yes'})}"


def _modality(row: Any) -> str:
    return str(row.get("Modality") or "") if isinstance(row, dict) else ""


def _series(url: str, row: Any, patient: re.Pattern[str]) -> Series:
    """Raises DownloadError for names that could not be a folder's, too."""
    fields = row if isinstance(row, dict) else {}
    uid, who = str(fields.get("SeriesInstanceUID")), str(fields.get("PatientID"))
    images, size = _whole(fields.get("ImageCount")), _whole(fields.get("FileSize"))
    if not _UID.fullmatch(uid) or len(uid) > _LONGEST_UID or not patient.fullmatch(who):
        raise DownloadError(
            f"{url}: lists series {uid!r} of patient {who!r}; is the address right?"
        )
    if images < 1:
        raise DownloadError(f"{url}: lists {who} with {fields.get('ImageCount')!r} images")
    return Series(uid, who, images, size or images * _SLICE_BYTES)


def _whole(value: Any) -> int:
    """A count, 0 where it is none."""
    try:
        return max(int(value), 0)
    except (TypeError, ValueError, OverflowError):
        return 0


@dataclass(frozen=True)
class Held:
    """The files of one series in one folder.

    Attributes:
        folder: that holds them.
        whole: headers of its whole slices.
        damaged: slices of it that cannot be read.
        strays: files that cannot be read at all, in a folder of several series.
        others: how many files of other series are in the folder.
    """

    folder: Path
    whole: tuple[Header, ...]
    damaged: tuple[Path, ...]
    strays: tuple[Path, ...]
    others: int


def held(root: Path) -> Iterator[tuple[str, Held]]:
    """Every series below ``root`` with its UID, folder by folder; headers are read.

    A folder in which nothing can be read counts as of the series it is named after.
    """
    for folder, names in walk(root):
        if not any(name.lower().endswith(".dcm") for name in names):
            continue
        headers, damaged = _headers(folder)
        known = {header.series for header in headers} | {uid for uid in damaged.values() if uid}
        strays = tuple(file for file, uid in damaged.items() if not uid)
        for uid in sorted(known) or [folder.name]:
            whole = tuple(header for header in headers if header.series == uid)
            bad = tuple(file for file, name in damaged.items() if name == uid)
            others = len(headers) + len(damaged) - len(strays) - len(whole) - len(bad)
            alone = len(known) < 2
            bad, left = (bad + strays, ()) if alone else (bad, strays)
            yield uid, Held(folder, whole, bad, left, others)


def _headers(folder: Path) -> tuple[list[Header], dict[Path, str]]:
    """Headers of whole slices, and the other files with their series, where they tell it."""
    headers, damaged = [], {}
    for file in dicom_files(folder):
        try:
            headers.append(read_header(file))
        except DataError:
            damaged[file] = _series_of(file)
    return headers, damaged


def _series_of(file: Path) -> str:
    """The series that a file names which is no whole slice; empty where it names none."""
    try:
        with file.open("rb") as stream:
            check_deflated(stream, file.name)
            content = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=[_SERIES])
        return str(content.get(_SERIES) or "")
    except (InvalidDicomError, *DAMAGE):
        return ""


def fault(found: Held, series: Series) -> str | None:
    """What keeps ``found`` from being the whole of ``series``, or None."""
    if found.damaged:
        names = ", ".join(sorted(file.name for file in found.damaged)[:3])
        return f"{len(found.damaged)} of {series.images} images are damaged ({names})"
    if len({header.instance for header in found.whole}) < len(found.whole):
        return "an image is there twice"
    if len(found.whole) != series.images:
        return f"{len(found.whole)} of {series.images} images"
    strangers = {header.patient for header in found.whole} - {series.patient}
    if strangers:
        return f"images of the patient {sorted(strangers)[0] or 'without a name'}"
    return None


def install(new: Path, target: Path, found: list[Held]) -> None:
    """Put the whole series in ``new`` in the place of what is found of it.

    Where its files lay alone in a folder, they are replaced there; else ``target`` is its place.
    A kill on the way leaves a series that is seen to be incomplete.
    """
    alone = [place for place in found if not place.others]
    target = alone[0].folder if alone else target
    with explaining(target):
        for place in found:
            for file in (*(h.file for h in place.whole), *place.damaged, *place.strays):
                file.unlink(missing_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            new.rename(target)
            return
        for file in sorted(new.iterdir()):
            file.replace(target / file.name)
        new.rmdir()
