"""A DICOM series by its headers: which files, in which order, and whether it is whole."""

import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError

from medaug.errors import DataError
from medaug.types import Affine

_TAGS = [
    "SeriesInstanceUID",
    "PatientID",
    "Modality",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "BitsAllocated",
    "SamplesPerPixel",
]
_UNIFORM_MM = 0.01
_ELEMENT_BYTES = 12  # of the longest element header: tag, type and length
AGAIN = "download the series again"


def walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Folders below ``root`` in name order with their file names, hidden ones left out."""
    for folder, folders, names in os.walk(root, followlinks=True):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        yield Path(folder), sorted(n for n in names if not n.startswith("."))


def dicom_files(folder: Path) -> list[Path]:
    """The ``.dcm`` files right in ``folder``, without the hidden copies some archives carry."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() == ".dcm" and not path.name.startswith(".")
    )


@dataclass(frozen=True)
class Header:
    """What the checks need to know of one DICOM file; positions in LPS mm."""

    file: Path
    patient: str
    modality: str
    series: str
    instance: int | None
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    rows: int
    columns: int

    @property
    def normal(self) -> np.ndarray:
        """The unit vector across the slice."""
        return np.cross(self.orientation[:3], self.orientation[3:])


def read_header(file: Path) -> Header:
    """The header of ``file``, its pixels only measured.

    Raises:
        DataError: not DICOM, truncated, or not an image slice with a position.
    """
    try:
        with file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size == 0:
                raise EOFError
            data = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=_TAGS)
            left = size - stream.tell()
    except InvalidDicomError as error:
        raise DataError(f"{file.name} is not a DICOM file; {AGAIN}") from error
    except (EOFError, OSError, ValueError, KeyError, NotImplementedError, zlib.error) as error:
        raise DataError(f"{file.name} is truncated or damaged; {AGAIN}") from error
    syntax = data.file_meta.get("TransferSyntaxUID", pydicom.uid.ImplicitVRLittleEndian)
    if left < _ELEMENT_BYTES and not syntax.is_deflated:
        raise DataError(f"{file.name} is truncated or damaged; {AGAIN}")
    modality = str(data.get("Modality") or "")
    instance = data.get("InstanceNumber")
    try:
        header = Header(
            file=file,
            patient=str(data.get("PatientID") or ""),
            modality=modality,
            series=str(data.get("SeriesInstanceUID") or ""),
            instance=None if instance is None else int(instance),
            position=tuple(float(v) for v in data.ImagePositionPatient),
            orientation=tuple(float(v) for v in data.ImageOrientationPatient),
            spacing=tuple(float(v) for v in data.PixelSpacing),
            rows=int(data.Rows),
            columns=int(data.Columns),
        )
        pixel_bytes = header.rows * header.columns * int(data.BitsAllocated) // 8
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(f"{file.name} has no slice position or size in its header") from error
    if not syntax.is_compressed and left < pixel_bytes:
        raise DataError(
            f"{file.name} is truncated: {max(left, 0)} bytes left for {pixel_bytes} bytes of "
            f"pixels; {AGAIN}"
        )
    return header


def check_series(files: Iterable[Path], starts_at: int | None = 1) -> list[Header]:
    """The headers of one CT series in slice order, or what is wrong with the series.

    The order is that of InstanceNumber, which the positions along the slice normal must follow in
    even steps; file names play no part.

    Args:
        files: of the series, in any order.
        starts_at: InstanceNumber of the first slice; None for series cut out of longer ones.

    Raises:
        DataError: a slice is missing, there twice, truncated, or not of this series.
    """
    headers = [read_header(file) for file in sorted(files)]
    if not headers:
        raise DataError("the series has no DICOM files")
    first = headers[0]
    for what, values in (
        ("series", {h.series for h in headers}),
        ("patients", {h.patient for h in headers}),
        ("slice sizes", {(h.rows, h.columns) for h in headers}),
        ("slice orientations", {tuple(np.round(h.orientation, 4)) for h in headers}),
        ("pixel spacings", {tuple(np.round(h.spacing, 4)) for h in headers}),
    ):
        if len(values) > 1:
            raise DataError(
                f"{len(values)} {what} are mixed in one folder; keep one CT series in each"
            )
    if any(h.instance is None for h in headers):
        raise DataError("slices without InstanceNumber; their order cannot be checked")
    headers.sort(key=lambda h: h.instance or 0)
    _check_numbers(headers, starts_at)
    if len(headers) < 2:
        raise DataError("the series has a single slice; at least two are needed")
    along = np.array([np.dot(h.position, first.normal) for h in headers])
    _check_steps(headers, along)
    return headers


def _check_numbers(headers: Sequence[Header], starts_at: int | None) -> None:
    numbers = [h.instance or 0 for h in headers]
    for number, count in Counter(numbers).items():
        if count > 1:
            names = ", ".join(h.file.name for h in headers if h.instance == number)
            raise DataError(f"slice {number} is there {_times(count)} ({names}); keep one of them")
    starts_at = numbers[0] if starts_at is None else starts_at
    missing = sorted(set(range(starts_at, numbers[-1] + 1)) - set(numbers))
    if missing:
        which = _ranges(missing)
        raise DataError(
            f"slice{'s' if len(missing) > 1 else ''} {which} of {numbers[-1]} "
            f"{'are' if len(missing) > 1 else 'is'} missing; {AGAIN}"
        )


def _check_steps(headers: Sequence[Header], along: np.ndarray) -> None:
    steps = np.diff(along)
    usual = float(np.median(steps))
    if abs(usual) < _UNIFORM_MM:
        raise DataError("all slices are at one position; this is not a volume")
    odd = np.flatnonzero(np.abs(steps - usual) > max(_UNIFORM_MM, 0.02 * abs(usual)))
    if len(odd):
        low, high = headers[odd[0]], headers[odd[0] + 1]
        raise DataError(
            f"slices {low.instance} and {high.instance} are {abs(steps[odd[0]]):.2f} mm apart, "
            f"the others {abs(usual):.2f} mm; {AGAIN}"
        )


def _times(count: int) -> str:
    return "twice" if count == 2 else f"{count} times"


def _ranges(numbers: Sequence[int]) -> str:
    """``[2, 5, 6, 7]`` as ``2, 5-7``."""
    groups: list[list[int]] = []
    for number in numbers:
        if groups and number == groups[-1][-1] + 1:
            groups[-1].append(number)
        else:
            groups.append([number])
    return ", ".join(str(g[0]) if len(g) == 1 else f"{g[0]}-{g[-1]}" for g in groups)


def series_affine(first: Header, last: Header, slices: int) -> Affine:
    """The RAS+ affine of indices (column, row, slice) from the two ends of a checked series."""
    affine = np.eye(4)
    affine[:3, 0] = np.multiply(first.orientation[:3], first.spacing[1])
    affine[:3, 1] = np.multiply(first.orientation[3:], first.spacing[0])
    affine[:3, 2] = np.subtract(last.position, first.position) / (slices - 1)
    affine[:3, 3] = first.position
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
