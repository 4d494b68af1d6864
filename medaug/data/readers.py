"""Readers for MONAI's ``LoadImage`` that check what they read and say what is wrong with it.

``SeriesReader`` reads a CT series of DICOM files through SimpleITK, several times faster than
MONAI's own readers, after the checks they all leave out: a slice missing or there twice, a
truncated file, slices of two series.  ``VolumeReader`` and ``LabelReader`` read NIfTI files
through MONAI's own reader.

``LoadImage`` swallows whatever a reader's ``read`` raises and tries the next reader, so the readers
here do their work, and raise, in ``get_data``.
"""

import os
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import SimpleITK as sitk
from monai.data import ImageReader, NibabelReader
from monai.utils import MetaKeys, SpaceKeys
from nibabel.filebasedimages import ImageFileError
from pydicom.errors import InvalidDicomError

from medaug.errors import DataError
from medaug.geometry import HU_RANGE
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


def _meta(affine: Affine, shape: tuple[int, ...]) -> dict[str, Any]:
    return {
        MetaKeys.AFFINE: affine,
        MetaKeys.ORIGINAL_AFFINE: affine.copy(),
        MetaKeys.SPATIAL_SHAPE: np.array(shape),
        MetaKeys.SPACE: SpaceKeys.RAS,
        MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),
    }


def _laid_out(values: np.ndarray, dtype: type[np.generic]) -> np.ndarray:
    """``values`` [x, y, z] as ``dtype`` in C order, HU clipped to what CT stores.

    Files keep x fastest.  A row of slices at a time stays within the processor's cache, which makes
    this several times faster than the copy that MONAI would make otherwise.
    """
    laid_out = np.empty(values.shape, dtype)
    for y in range(values.shape[1]):
        row = values[:, y, :].T
        if row.dtype.kind == "f":
            row = np.rint(np.nan_to_num(row, nan=HU_RANGE[0]))
        if row.dtype != dtype and dtype is np.int16:
            row = np.clip(row, *HU_RANGE)
        laid_out[:, y, :] = row.T
    return laid_out


class SeriesReader(ImageReader):
    """A DICOM series as int16 HU ``[x, y, z]`` with its RAS+ affine.

    Args:
        checked: the files come in the order of `check_series`, which need not be run again.
        starts_at: InstanceNumber of the first slice; None for series cut out of longer ones.
    """

    def __init__(self, checked: bool = False, starts_at: int | None = 1) -> None:
        self.checked, self.starts_at = checked, starts_at

    def verify_suffix(self, filename: Sequence[os.PathLike] | os.PathLike) -> bool:
        """Whether the files could be a series of DICOM slices."""
        names = [filename] if isinstance(filename, str | os.PathLike) else list(filename)
        return bool(names) and all(str(name).lower().endswith(".dcm") for name in names)

    def read(self, data: Any, **kwargs: Any) -> tuple[Path, ...]:
        """The files of the series; a folder stands for the ``.dcm`` files in it."""
        names = [data] if isinstance(data, str | os.PathLike) else list(data)
        if len(names) == 1 and Path(names[0]).is_dir():
            return tuple(dicom_files(Path(names[0])))
        return tuple(Path(name) for name in names)

    def get_data(self, img: tuple[Path, ...]) -> tuple[np.ndarray, dict[str, Any]]:
        """Decode the series.

        Raises:
            DataError: the series is not complete, or a file cannot be decoded.
        """
        if self.checked:
            files, ends = list(img), (read_header(img[0]), read_header(img[-1]))
        else:
            headers = check_series(img, self.starts_at)
            files, ends = [h.file for h in headers], (headers[0], headers[-1])
        sitk.ProcessObject.SetGlobalWarningDisplay(False)
        try:
            image = sitk.ReadImage([str(file) for file in files])
        except RuntimeError as error:
            raise DataError(f"{_culprit(files)} cannot be decoded; {AGAIN}") from error
        values = _laid_out(sitk.GetArrayViewFromImage(image).transpose(2, 1, 0), np.int16)
        return values, _meta(series_affine(*ends, len(files)), values.shape)


def _culprit(files: Sequence[Path]) -> str:
    """The name of the first file that cannot be decoded on its own."""
    for file in files:
        try:
            sitk.ReadImage(str(file))
        except RuntimeError:
            return file.name
    return "the series"


def dicom_files(folder: Path) -> list[Path]:
    """The ``.dcm`` files right in ``folder``, without the hidden copies some archives carry."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() == ".dcm" and not path.name.startswith(".")
    )


def nifti_header(file: Path) -> nibabel.Nifti1Image:
    """``file`` opened as a three-dimensional NIfTI image, its voxels not read.

    Raises:
        DataError: the file is not NIfTI, or not a volume.
    """
    try:
        image = nibabel.load(file)
    except (ImageFileError, OSError, EOFError, zlib.error) as error:
        if isinstance(error, FileNotFoundError):
            raise DataError(f"{file.name} is not there") from error
        raise DataError(f"{file.name} is not a NIfTI file") from error
    shape = tuple(int(n) for n in image.shape)
    if len(shape) < 3 or any(n != 1 for n in shape[3:]):
        raise DataError(f"{file.name} has shape {shape}; a volume has three axes")
    return image


class _CheckedNibabelReader(NibabelReader):
    """MONAI's NIfTI reader, reading late and telling a damaged file by name."""

    def __init__(self) -> None:
        super().__init__(squeeze_non_spatial_dims=True)

    def read(self, data: Any, **kwargs: Any) -> Any:
        names = [data] if isinstance(data, str | os.PathLike) else list(data)
        return Path(names[0])

    def get_data(self, img: Any) -> tuple[np.ndarray, dict[str, Any]]:
        nifti_header(img)
        try:
            values, meta = super().get_data(super().read([img]))
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise DataError(f"{img.name} is truncated or damaged") from error
        return values, _meta(np.asarray(meta[MetaKeys.AFFINE], float), values.shape)


class VolumeReader(_CheckedNibabelReader):
    """A NIfTI image as int16 HU ``[x, y, z]``."""

    def get_data(self, img: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """Read the voxels; fractions of a HU are rounded."""
        values, meta = super().get_data(img)
        return _laid_out(values, np.int16), meta


class LabelReader(_CheckedNibabelReader):
    """A NIfTI label map as uint8 ``[x, y, z]``.

    Args:
        known: the ids that may occur besides 0.
    """

    def __init__(self, known: Collection[int]) -> None:
        super().__init__()
        self.known = {0, *known}

    def get_data(self, img: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """Read the ids, whatever the type they are stored in.

        Raises:
            DataError: a value that is no known id.
        """
        values, meta = super().get_data(img)
        seen = _distinct(values)
        for value in seen:
            if value not in self.known:
                raise DataError(
                    f"{img.name} holds the value {value:g}, known labels are "
                    f"{', '.join(str(v) for v in sorted(self.known))}"
                )
        return _laid_out(values, np.uint8), meta


def _distinct(values: np.ndarray) -> list[float]:
    """The distinct values besides 0, ascending; a table where that is faster than a sort."""
    flat = values.ravel(order="K")
    marked = flat[flat != 0]
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        seen = np.zeros(2 ** (8 * values.dtype.itemsize), bool)
        seen[marked] = True
        return [float(v) for v in np.flatnonzero(seen)]
    return [float(v) for v in np.unique(marked)]
