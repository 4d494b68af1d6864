"""Decode DICOM slices, each by its own rescale.

SimpleITK gives all slices of a series the type of the first, which cuts fractions and wraps around
where a later slice has another rescale, and gives all frames of a file the rescale of one.  Here
each slice is decoded alone, plain ones by pydicom, which opens a file in half of the time.

libjpeg fills what it cannot decode with grey and complains on standard error only; a complaint
there makes the slice damaged.
"""

import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import SimpleITK as sitk
from pydicom.encaps import generate_frames
from pydicom.filereader import read_file_meta_info
from pydicom.pixels import pixel_array
from pydicom.uid import ImplicitVRLittleEndian

from medaug.core.errors import DataError
from medaug.data.formats import dicom_frames
from medaug.data.formats.dicom_series import AGAIN, DAMAGE, tolerant
from medaug.data.formats.dicom_syntaxes import Syntax, is_sound, readable

_CAPTURE = threading.Lock()
_DECODING = [
    *dicom_frames.PACKING, "NumberOfFrames", "RescaleSlope", "RescaleIntercept", "PixelData",
]  # fmt: skip

Values = npt.NDArray[np.int16 | np.int32 | np.float32]


@dataclass(frozen=True)
class Place:
    """Where a slice is kept.

    Attributes:
        file: on disk.
        frame: its number in an enhanced file, from 0; None in a classic one.
        slope: of a frame: HU of a step of stored values.
        intercept: of a frame: HU of the stored value 0.
    """

    file: Path
    frame: int | None = None
    slope: float = 1.0
    intercept: float = 0.0

    @property
    def name(self) -> str:
        """The file's name, and the frame's number counted from 1."""
        return self.file.name if self.frame is None else f"{self.file.name} frame {self.frame + 1}"


def decode(places: Sequence[Place]) -> tuple[Values, set[Syntax]]:
    """Decode the slices at ``places`` in their order.

    Returns:
        values ``[z, y, x]``, whole numbers unless a slice's rescale has fractions; and the
        syntaxes that the slices are packed in.

    Raises:
        DataError: a slice cannot be decoded, or has another size than the first.
    """
    volume: Values | None = None
    syntaxes: set[Syntax] = set()
    with tolerant(), _Decoder() as decoder:
        for z, place in enumerate(places):
            values, syntax = decoder(place)
            syntaxes.add(syntax)
            if volume is None:
                volume = np.empty((len(places), *values.shape), values.dtype)
            if values.shape != volume.shape[1:]:
                raise DataError(
                    f"{place.name} decodes to {values.shape[1]} x {values.shape[0]} pixels, "
                    f"the first slice to {volume.shape[2]} x {volume.shape[1]}; {AGAIN}"
                )
            wider = _wider(volume.dtype, values.dtype)
            if wider != volume.dtype:
                volume = volume.astype(wider)
            volume[z] = values
    assert volume is not None
    return volume, syntaxes


def _wider(one: np.dtype, other: np.dtype) -> np.dtype:
    """A type that holds both, float32 for fractions."""
    both = np.result_type(one, other)
    return np.dtype(np.float32) if both.kind == "f" else both


class _Decoder:
    """Decodes one slice at a time, keeping the file it is in and one scratch file."""

    def __enter__(self) -> "_Decoder":
        sitk.ProcessObject.SetGlobalWarningDisplay(False)
        self.reader = sitk.ImageFileReader()
        self.reader.SetImageIO("GDCMImageIO")
        self.scratch = tempfile.TemporaryDirectory(prefix="medaug-")
        self.file: Path | None = None
        return self

    def __exit__(self, *error: object) -> None:
        self.scratch.cleanup()

    def __call__(self, place: Place) -> tuple[Values, Syntax]:
        try:
            if place.file != self.file:
                self._open(place)
            slope, intercept = place.slope, place.intercept
            if place.frame is None:
                slope = float(self.data.get("RescaleSlope") or 1)
                intercept = float(self.data.get("RescaleIntercept") or 0)
            return _rescaled(self._stored(place), slope, intercept), self.syntax
        except DataError:
            raise
        except DAMAGE as error:
            raise DataError(f"{place.name} cannot be decoded; {AGAIN}") from error

    def _open(self, place: Place) -> None:
        """Read a file, and split its packed pixels into those of each frame."""
        uid = read_file_meta_info(place.file).get("TransferSyntaxUID", ImplicitVRLittleEndian)
        self.syntax = readable(place.file, uid)
        self.data = pydicom.dcmread(place.file, specific_tags=_DECODING)
        self.packed: list[bytes] = []
        if uid.is_encapsulated:
            count = 1 if place.frame is None else int(self.data.get("NumberOfFrames") or 1)
            self.packed = list(generate_frames(self.data.PixelData, number_of_frames=count))
            if place.frame is None:
                self.packed = [b"".join(self.packed)]
            if len(self.packed) != count:
                raise ValueError(f"{len(self.packed)} frames for {count}")
        self.file = place.file

    def _stored(self, place: Place) -> np.ndarray:
        """The stored values of one slice."""
        data, number = self.data, place.frame or 0
        if self.packed:
            size = int(data.Rows), int(data.Columns)
            if not is_sound(self.packed[number], self.syntax.uid, *size):
                raise DataError(f"{place.name} has damaged pixels; {AGAIN}")
        if self.syntax.reader != "SimpleITK":
            return pixel_array(data, index=number)
        file = Path(self.scratch.name) / "slice.dcm"
        dicom_frames.as_slice(data, self.packed[number]).save_as(file, enforce_file_format=True)
        self.reader.SetFileName(str(file))
        with _standard_error() as written:
            image = self.reader.Execute()
            complaint = written().find(b"Corrupt JPEG data") >= 0
        if complaint:
            raise DataError(f"{place.name} has damaged pixels; {AGAIN}")
        return sitk.GetArrayFromImage(image)[0]


def _rescaled(stored: np.ndarray, slope: float, intercept: float) -> Values:
    """Stored values as what they mean, in the narrowest of int16, int32 and float32."""
    ends = [float(end) * slope + intercept for end in (stored.min(), stored.max())]
    whole = slope.is_integer() and intercept.is_integer()
    if not whole or max(map(abs, (*ends, slope, intercept))) > np.iinfo(np.int32).max:
        return (stored * np.float64(slope) + intercept).astype(np.float32)
    narrow = np.iinfo(np.int16)
    dtype = np.int16 if narrow.min <= min(ends) and max(ends) <= narrow.max else np.int32
    if slope == 1 and intercept == 0:
        return stored.astype(dtype, copy=False)
    return (stored.astype(np.int32) * int(slope) + int(intercept)).astype(dtype)


@contextmanager
def _standard_error() -> Iterator[Callable[[], bytes]]:
    """Catch what native code writes to standard error; yields a call that returns it."""
    with _CAPTURE, tempfile.TemporaryFile() as kept:
        before = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield lambda: os.pread(kept.fileno(), 1 << 20, 0)
        finally:
            os.dup2(before, 2)
            os.close(before)
