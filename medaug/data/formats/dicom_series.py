"""Read DICOM headers: what a file is and whose, and whether a CT series is whole and in order."""

import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError

from medaug.core.errors import DataError
from medaug.core.types import Affine
from medaug.data.formats import archives, dicom_frames
from medaug.data.formats.archives import opened, size
from medaug.data.formats.dicom_syntaxes import SYNTAXES, readable
from medaug.data.formats.limits import PARSER_ERRORS, check_deflated, check_voxels

SEGMENTATION = "SEG"
"""The modality of a DICOM segmentation."""
AGAIN = "download the series again"
DAMAGE = (*PARSER_ERRORS, BytesLengthException, RuntimeError)
"""What pydicom and SimpleITK raise on damaged files."""
_IDENTITY_TAGS = ["PatientID", "Modality", "SeriesInstanceUID"]
_TAGS = [
    "SeriesInstanceUID", "PatientID", "Modality", "InstanceNumber", "ImagePositionPatient",
    "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "BitsAllocated",
    "SamplesPerPixel", "PhotometricInterpretation", "ImageType", "LossyImageCompression",
    "RescaleSlope", "RescaleIntercept", "RescaleType", *dicom_frames.TAGS,
]  # fmt: skip
_UNIFORM_MM = 0.01
_LARGEST = 8192  # pixels along a side; a damaged header may announce gigabytes
_STRAIGHT_MM = 0.5
_TILT = 0.01  # radians
_NO_SCAN = {"LOCALIZER", "PERFUSION"}
_ELEMENT_BYTES = 12  # of the longest element header: tag, type and length
_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"


def walk(root: Path, refused: dict[Path, str] | None = None) -> Iterator[tuple[Path, list[str]]]:
    """List the folders below ``root`` in name order with their file names, hidden ones left out.

    Args:
        root: a folder, or a zip archive where ``refused`` is given.
        refused: takes the zip archives that cannot be read, with the reason; the others are walked
            like folders.  None leaves archives alone.
    """
    if refused is not None and archives.is_archive(root):
        yield from archives.folders(root, refused)
    for place, folders, files in os.walk(root, followlinks=True):
        folder, names = Path(place), sorted(n for n in files if not n.startswith("."))
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        yield folder, names
        if refused is not None:
            for archive in filter(archives.is_archive, (folder / name for name in names)):
                yield from archives.folders(archive, refused)


def dicom_files(folder: Path) -> list[Path]:
    """List the ``.dcm`` files right in ``folder``, without the hidden copies of some archives."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() == ".dcm" and not path.name.startswith(".")
    )


@contextmanager
def tolerant() -> Iterator[None]:
    """Silence pydicom's remarks on values that break the rules of DICOM but can be read."""
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        yield


@dataclass(frozen=True)
class Part:
    """The files of one DICOM series in one folder.

    Attributes:
        folder: on disk or in an archive.
        files: of the series.
        patient: PatientID, or empty.
        modality: such as ``CT``, or empty.
        series: SeriesInstanceUID, or empty.
    """

    folder: Path
    files: tuple[Path, ...]
    patient: str = ""
    modality: str = ""
    series: str = ""


def identify(file: Path) -> tuple[str, str, str]:
    """Read patient, modality and series of a DICOM file of any kind, empty where it has none.

    Raises:
        DataError: not DICOM, or damaged.
    """
    try:
        with tolerant(), opened(file) as stream:
            check_deflated(stream, file.name)
            data = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=_IDENTITY_TAGS)
        patient, modality, series = (str(data.get(tag) or "") for tag in _IDENTITY_TAGS)
        return patient, modality, series
    except DataError:
        raise
    except InvalidDicomError as error:
        raise DataError(f"{file.name} is not a DICOM file") from error
    except DAMAGE as error:
        raise DataError(f"{file.name} is truncated or damaged") from error


def parts(folder: Path, names: Sequence[str]) -> list[Part]:
    """Sort the ``.dcm`` files ``names`` of ``folder`` into series.

    Where the first and the last file are of one series, the others are taken to be of it too; the
    reader of the series checks that.  A file that cannot be read joins the series of the first.

    Raises:
        DataError: the first file cannot be read.
    """
    files = [folder / name for name in sorted(names)]
    first = identify(files[0])
    groups: dict[tuple[str, str, str], list[Path]] = defaultdict(list)
    if _identity(files[-1], first) == first:
        groups[first] = files
    else:
        for file in files:
            groups[_identity(file, first)].append(file)
    return [Part(folder, tuple(files), *identity) for identity, files in groups.items()]


def _identity(file: Path, otherwise: tuple[str, str, str]) -> tuple[str, str, str]:
    """As `identify`, or ``otherwise`` for a file that cannot be read."""
    try:
        return identify(file)
    except DataError:
        return otherwise


@dataclass(frozen=True)
class Header:
    """What the checks need to know of one slice.

    Attributes:
        file: that holds it.
        patient: PatientID.
        modality: such as ``CT``.
        series: SeriesInstanceUID.
        instance: InstanceNumber, or None.
        position: of the centre of the first pixel, LPS mm.
        orientation: the directions of rows and of columns, LPS.
        spacing: distance of rows and of columns, mm.
        rows: pixels along a column.
        columns: pixels along a row.
        frame: its number in an enhanced file, from 0; None in a classic one.
        slope: HU of a step of stored values; NaN where the header does not say.
        intercept: HU of the stored value 0; NaN where the header does not say.
        unit: RescaleType.
        grey: PhotometricInterpretation.
        kind: the values of ImageType.
        syntax: UID of the transfer syntax.
        lossy: whether the pixels went through a lossy compression.
    """

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
    frame: int | None
    slope: float
    intercept: float
    unit: str
    grey: str
    kind: tuple[str, ...]
    syntax: str
    lossy: bool

    @property
    def normal(self) -> np.ndarray:
        """The unit vector across the slice."""
        return np.cross(self.orientation[:3], self.orientation[3:])

    @property
    def name(self) -> str:
        """The file's name, and the frame's number counted from 1."""
        return self.file.name if self.frame is None else f"{self.file.name} frame {self.frame + 1}"


def read_header(file: Path) -> Header:
    """Read the header of the first slice of ``file``.

    Raises:
        DataError: not DICOM, truncated, or not an image slice with a position.
    """
    return read_headers(file)[0]


@tolerant()
def read_headers(file: Path) -> list[Header]:
    """Read the headers of the slices of ``file``, one unless it is enhanced; count pixel bytes.

    Raises:
        DataError: not DICOM, truncated, or not an image slice with a position.
    """
    try:
        with opened(file) as stream:
            total = size(file)
            if total == 0:
                raise EOFError
            check_deflated(stream, file.name)
            data = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=_TAGS)
            syntax = data.file_meta.get("TransferSyntaxUID", pydicom.uid.ImplicitVRLittleEndian)
            left = total - stream.tell()
            known = str(syntax) in SYNTAXES
            if known and syntax.is_deflated:
                stream.seek(0)
                left = len(pydicom.dcmread(stream, specific_tags=["PixelData"]).PixelData)
            elif left < _ELEMENT_BYTES or (
                known and syntax.is_encapsulated and not _ends(stream, total)
            ):
                raise EOFError
            elif known and not syntax.is_encapsulated:
                left = _value_bytes(stream, total, syntax)
    except InvalidDicomError as error:
        raise DataError(f"{file.name} is not a DICOM file; {AGAIN}") from error
    except DAMAGE as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file.name} is truncated or damaged; {AGAIN}") from error
    try:
        planes = dicom_frames.planes(data)
        headers = [
            _header(file, data, plane, None if plane is data else number, syntax)
            for number, plane in enumerate(planes)
        ]
        bits = int(data.BitsAllocated) * int(data.get("SamplesPerPixel") or 1)
        pixel_bytes = headers[0].rows * headers[0].columns * bits * len(headers) // 8
    except DAMAGE as error:
        raise DataError(f"{file.name} has no slice position or size in its header") from error
    if known and not syntax.is_encapsulated and left < pixel_bytes:
        raise DataError(
            f"{file.name} is truncated: {left} bytes left for {pixel_bytes} bytes of "
            f"pixels; {AGAIN}"
        )
    return headers


def _header(
    file: Path,
    data: pydicom.Dataset,
    plane: pydicom.Dataset,
    frame: int | None,
    syntax: pydicom.uid.UID,
) -> Header:
    """The header of one slice, where ``plane`` says what differs between slices."""
    instance = data.get("InstanceNumber")
    slope, intercept = plane.get("RescaleSlope"), plane.get("RescaleIntercept")
    packed = SYNTAXES.get(str(syntax))
    return Header(
        file=file,
        patient=str(data.get("PatientID") or ""),
        modality=str(data.get("Modality") or ""),
        series=str(data.get("SeriesInstanceUID") or ""),
        instance=None if instance is None else int(instance),
        position=_numbers(plane.ImagePositionPatient, 3),
        orientation=_numbers(plane.ImageOrientationPatient, 6),
        spacing=_numbers(plane.PixelSpacing, 2),
        rows=int(data.Rows),
        columns=int(data.Columns),
        frame=frame,
        slope=np.nan if slope is None else float(slope),
        intercept=np.nan if intercept is None else float(intercept),
        unit=str(plane.get("RescaleType") or ""),
        grey=str(data.get("PhotometricInterpretation") or ""),
        kind=tuple(str(v) for v in data.get("ImageType") or ()),
        syntax=str(syntax),
        lossy=data.get("LossyImageCompression") == "01" or (packed is not None and packed.lossy),
    )


def _numbers(values: Iterable[Any], count: int) -> tuple[float, ...]:
    found = tuple(float(value) for value in values)
    if len(found) != count or not np.isfinite(found).all():
        raise ValueError(f"not {count} finite numbers")
    return found


def _value_bytes(stream: BinaryIO, total: int, syntax: pydicom.uid.UID) -> int:
    """How many bytes of the plain pixels at ``stream`` a file of ``total`` bytes holds."""
    stream.seek(4 if syntax.is_implicit_VR else 8, os.SEEK_CUR)
    length = int.from_bytes(stream.read(4), "little" if syntax.is_little_endian else "big")
    return min(length, total - stream.tell())


def _ends(stream: BinaryIO, total: int) -> bool:
    """Whether the fragments of the compressed pixels at ``stream`` end within ``total`` bytes."""
    stream.seek(_ELEMENT_BYTES, os.SEEK_CUR)
    while True:
        item = stream.read(8)
        if item[:4] == _END:
            return True
        if item[:4] != _ITEM or len(item) < 8:
            return False
        stream.seek(int.from_bytes(item[4:], "little"), os.SEEK_CUR)
        if stream.tell() > total:
            return False


def check_series(files: Iterable[Path], starts_at: int | None = 1) -> list[Header]:
    """Read the headers of one CT series in slice order, or say what is wrong with the series.

    The order is that of InstanceNumber, which the positions along the slice normal must follow in
    even steps; file names play no part.  Frames of enhanced files have no such number and come in
    the order of their positions, one header each.

    Args:
        files: of the series, in any order.
        starts_at: InstanceNumber of the first slice; None for series cut out of longer ones.

    Raises:
        DataError: a slice is missing, there twice, truncated, not of this series, packed so that
            nothing installed reads it, or not in HU; or the slices are no upright stack.
    """
    headers = [header for file in sorted(files) for header in read_headers(file)]
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
    for header in headers:
        check_values(header)
    check_voxels("the series", (first.columns, first.rows, len(headers)))
    if len({h.file for h in headers}) < len(headers):
        headers.sort(key=lambda h: float(np.dot(h.position, first.normal)))
    else:
        if any(h.instance is None for h in headers):
            raise DataError("slices without InstanceNumber; their order cannot be checked")
        headers.sort(key=lambda h: h.instance or 0)
        _check_numbers(headers, starts_at)
    if len(headers) < 2:
        raise DataError("the series has a single slice; at least two are needed")
    _check_steps(headers, np.array([np.dot(h.position, first.normal) for h in headers]))
    _check_upright(headers)
    return headers


def check_values(header: Header) -> None:
    """Refuse a slice whose pixels cannot be read, or are not known to be HU."""
    readable(header.file, header.syntax)
    if max(header.rows, header.columns) > _LARGEST or min(header.rows, header.columns) < 1:
        raise DataError(
            f"{header.name} has {header.columns} x {header.rows} pixels, accepted are 1 to "
            f"{_LARGEST} each way"
        )
    if header.grey not in ("", "MONOCHROME2"):
        raise DataError(
            f"{header.name} is {header.grey}, accepted is MONOCHROME2 (one grey value, high is "
            "bright); convert the series"
        )
    if header.modality not in ("", "CT"):
        return
    what = header.kind[2] if len(header.kind) > 2 else ""
    if what in _NO_SCAN:
        raise DataError(f"{header.name} is a {what.lower()} image, not a slice of a CT scan")
    if header.unit not in ("", "HU", "US"):
        raise DataError(f"{header.name} has values in {header.unit}, accepted are HU")
    if not (np.isfinite(header.slope) and np.isfinite(header.intercept) and header.slope):
        raise DataError(
            f"{header.name} has no RescaleSlope and RescaleIntercept; its values are not known to "
            "be HU"
        )


def _check_numbers(headers: Sequence[Header], starts_at: int | None) -> None:
    numbers = [h.instance or 0 for h in headers]
    for number, count in Counter(numbers).items():
        if count > 1:
            names = ", ".join(h.file.name for h in headers if h.instance == number)
            raise DataError(f"slice {number} is there {_times(count)} ({names}); keep one of them")
    starts_at = numbers[0] if starts_at is None else starts_at
    ends = [starts_at - 1, *(number for number in numbers if number >= starts_at)]
    gaps = [(a + 1, b - 1) for a, b in pairwise(ends) if b - a > 1]
    if gaps:
        which = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in gaps)
        one = len(gaps) == 1 and gaps[0][0] == gaps[0][1]
        raise DataError(
            f"slice{'' if one else 's'} {which} of {numbers[-1]} {'is' if one else 'are'} missing; "
            f"{AGAIN}"
        )


def _check_steps(headers: Sequence[Header], along: np.ndarray) -> None:
    steps = np.diff(along)
    usual = float(np.median(steps))
    if np.ptp(along) < _UNIFORM_MM:
        raise DataError("all slices are at one position; this is not a volume")
    if abs(usual) < _UNIFORM_MM:
        raise DataError(
            "most slices share their position with another; keep one phase or kernel of the scan"
        )
    odd = np.flatnonzero(np.abs(steps - usual) > max(_UNIFORM_MM, 0.02 * abs(usual)))
    if len(odd):
        low, high = headers[odd[0]], headers[odd[0] + 1]
        if low.frame is None:
            which = f"slices {low.instance} and {high.instance}"
        else:
            which = f"{low.name} and {high.name}"
        raise DataError(
            f"{which} are {abs(steps[odd[0]]):.2f} mm apart, the others {abs(usual):.2f} mm; "
            f"{AGAIN}"
        )


def _check_upright(headers: Sequence[Header]) -> None:
    """Refuse slices that do not lie straight above one another."""
    positions = np.array([h.position for h in headers])
    across = positions[-1] - positions[0]
    line = positions[0] + np.linspace(0, 1, len(headers))[:, None] * across
    aside = np.linalg.norm(positions - line, axis=1)
    worst = int(np.argmax(aside))
    if aside[worst] > _STRAIGHT_MM:
        raise DataError(
            f"{headers[worst].name} lies {aside[worst]:.1f} mm off the line of the slices; "
            "keep one reconstruction in each folder"
        )
    upright = abs(np.dot(across, headers[0].normal)) / np.linalg.norm(across)
    if 1 - upright > 1 - np.cos(_TILT):
        raise DataError(
            f"the gantry was tilted by {np.degrees(np.arccos(upright)):.1f} degrees, so the slices "
            "are no upright stack; resample the series first"
        )


def _times(count: int) -> str:
    return "twice" if count == 2 else f"{count} times"


def series_affine(first: Header, last: Header, slices: int) -> Affine:
    """The RAS+ affine of indices (column, row, slice) of a checked series.

    Args:
        first: header of its first slice.
        last: of its last one.
        slices: how many there are, at least 2.
    """
    affine = np.eye(4)
    affine[:3, 0] = np.multiply(first.orientation[:3], first.spacing[1])
    affine[:3, 1] = np.multiply(first.orientation[3:], first.spacing[0])
    affine[:3, 2] = np.subtract(last.position, first.position) / (slices - 1)
    affine[:3, 3] = first.position
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
