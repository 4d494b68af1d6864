"""From DICOM slices to the values they mean, each slice by its own rescale.

SimpleITK gives all slices of a series the type of the first, which cuts fractions and wraps around
where a later slice has another rescale, and gives all frames of a file the rescale of one.  Here
each slice is decoded alone, plain ones by pydicom, which opens a file in half of the time.

libjpeg fills what it cannot decode with grey and tells only standard error; what it says there is
read, and makes the slice damaged.
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

from medaug.core.errors import DataError
from medaug.data.formats import dicom_frames
from medaug.data.formats.dicom_series import AGAIN, DAMAGE, tolerant
from medaug.data.formats.dicom_syntaxes import Syntax, is_sound, readable

_CAPTURE = threading.Lock()
_DECODING = [*dicom_frames.PACKING, "RescaleSlope", "RescaleIntercept", "PixelData"]

Values = npt.NDArray[np.int16 | np.int32 | np.float32]


@dataclass(frozen=True)
class Place:
    """Where a slice is kept: a file, or a frame of one with its own rescale."""

    file: Path
    frame: int | None = None
    slope: float = 1.0
    intercept: float = 0.0

    @property
    def name(self) -> str:
        """The file's name, and the frame's number counted from 1."""
        return self.file.name if self.frame is None else f"{self.file.name} frame {self.frame + 1}"


def decode(places: Sequence[Place]) -> tuple[Values, set[Syntax]]:
    """The slices at ``places`` in their order, and the syntaxes they are packed in.

    Returns:
        values ``[z, y, x]``, whole numbers unless a slice's rescale has fractions; and syntaxes.

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
    """A type for both, as narrow as HU allow."""
    both = np.result_type(one, other)
    return np.dtype(np.float32) if both.kind == "f" else both


class _Decoder:
    """Decodes one slice at a time, keeping the multi-frame file it is in and one scratch file."""

    def __enter__(self) -> "_Decoder":
        sitk.ProcessObject.SetGlobalWarningDisplay(False)
        self.reader = sitk.ImageFileReader()
        self.reader.SetImageIO("GDCMImageIO")
        self.scratch = tempfile.TemporaryDirectory(prefix="medaug-")
        self.opened: tuple[Path, pydicom.Dataset, list[bytes]] | None = None
        return self

    def __exit__(self, *error: object) -> None:
        self.scratch.cleanup()

    def __call__(self, place: Place) -> tuple[Values, Syntax]:
        try:
            return self._frame(place) if place.frame is not None else self._slice(place)
        except DataError:
            raise
        except DAMAGE as error:
            raise DataError(f"{place.name} cannot be decoded; {AGAIN}") from error

    def _slice(self, place: Place) -> tuple[Values, Syntax]:
        meta = read_file_meta_info(place.file)
        uid = meta.get("TransferSyntaxUID", pydicom.uid.ImplicitVRLittleEndian)
        syntax = readable(place.file, uid)
        data = pydicom.dcmread(place.file, specific_tags=_DECODING)
        if uid.is_encapsulated:
            stream = b"".join(generate_frames(data.PixelData, number_of_frames=1))
            stored = self._alone(place, data, stream, syntax)
        else:
            stored = data.pixel_array
        slope = float(data.get("RescaleSlope") or 1)
        intercept = float(data.get("RescaleIntercept") or 0)
        return _rescaled(stored, slope, intercept), syntax

    def _frame(self, place: Place) -> tuple[Values, Syntax]:
        assert place.frame is not None
        if self.opened is None or self.opened[0] != place.file:
            data = pydicom.dcmread(place.file)
            self.opened = place.file, data, dicom_frames.split(data)
        _, data, pieces = self.opened
        syntax = readable(place.file, data.file_meta.TransferSyntaxUID)
        stored = self._alone(place, data, pieces[place.frame], syntax)
        return _rescaled(stored, place.slope, place.intercept), syntax

    def _alone(
        self, place: Place, data: pydicom.Dataset, pixels: bytes, syntax: Syntax
    ) -> np.ndarray:
        """The stored values of one slice, away from the rest of its header."""
        uid = data.file_meta.TransferSyntaxUID
        if uid.is_encapsulated:
            _check_stream(place, pixels, data)
        alone = dicom_frames.as_slice(data, pixels)
        if syntax.reader != "SimpleITK":
            return alone.pixel_array
        file = Path(self.scratch.name) / "slice.dcm"
        alone.save_as(file, enforce_file_format=True)
        return self._itk(place, file)

    def _itk(self, place: Place, file: Path) -> np.ndarray:
        """The pixels of a packed file with a single slice."""
        self.reader.SetFileName(str(file))
        with _standard_error() as said:
            image = self.reader.Execute()
            complaint = said().find(b"Corrupt JPEG data") >= 0
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


def _check_stream(place: Place, stream: bytes, data: pydicom.Dataset) -> None:
    uid = data.file_meta.TransferSyntaxUID
    if not is_sound(stream, uid, int(data.Rows), int(data.Columns)):
        raise DataError(f"{place.name} has damaged pixels; {AGAIN}")


@contextmanager
def _standard_error() -> Iterator[Callable[[], bytes]]:
    """Standard error of native code kept from the terminal; yields a call that returns it."""
    with _CAPTURE, tempfile.TemporaryFile() as kept:
        before = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield lambda: os.pread(kept.fileno(), 1 << 20, 0)
        finally:
            os.dup2(before, 2)
            os.close(before)
