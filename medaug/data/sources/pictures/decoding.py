"""One PNG or JPEG file to 8-bit levels, or one sentence saying why not; decoded by Pillow.

Turned as its EXIF orientation says; a palette becomes colours; 16 bits are scaled by their full
range, as PNG defines it.  Refused, since what is meant cannot be told: transparent parts, CMYK,
animations, 16-bit pictures that use 12 bits or fewer.
"""

import io
import struct
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from medaug.core.errors import DataError

FORMATS = ("PNG", "JPEG")
GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")
_DEEP = ("I", "I;16", "I;16B", "I;16L")
_TWELVE_BITS = 1 << 12
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, KeyError)
_AFRESH = "get or save it again"


def decode(path: Path, channels: int) -> npt.NDArray[np.uint8]:
    """The levels of a picture, (y, x) for one channel, (y, x, 3) for three.

    Grey pictures have equal channels where three are wanted; colours become luma (ITU-R BT.601)
    where one is.

    Raises:
        DataError: the reason alone, without the file's name.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})") from error
    if not raw:
        raise DataError(f"the file is empty; {_AFRESH}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        picture = _flat(_upright(_opened(raw)))
    return np.asarray(picture.convert("L" if channels == 1 else "RGB"))


def is_grey(path: Path) -> bool | None:
    """Whether a picture's header says that it is grey; None where it cannot be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(path, formats=FORMATS) as picture:
                return picture.mode in GREY_MODES
        except (*_DAMAGE, Image.DecompressionBombError):
            return None


def _opened(raw: bytes) -> Image.Image:
    try:
        picture = Image.open(io.BytesIO(raw), formats=FORMATS)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        limit = f"{Image.MAX_IMAGE_PIXELS or 0:,}"
        raise DataError(f"more than {limit} pixels; make it smaller") from error
    except _DAMAGE as error:
        raise DataError("not a PNG or JPEG file, or its header is damaged") from error
    if picture.format == "PNG" and getattr(picture, "is_animated", False):
        raise DataError("animated; a single picture is accepted")
    try:
        if picture.format == "PNG":
            with Image.open(io.BytesIO(raw), formats=FORMATS) as twin:
                twin.verify()  # the checksums, which decoding passes over
        picture.load()
    except (*_DAMAGE, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"truncated or damaged ({error}); {_AFRESH}") from error
    return picture


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except (*_DAMAGE, TypeError, ZeroDivisionError) as error:
        raise DataError(f"its EXIF data are damaged, which say what is up; {_AFRESH}") from error


def _flat(picture: Image.Image) -> Image.Image:
    """A picture in mode L or RGB.

    Raises:
        DataError: there is no one way to make it so.
    """
    mode = picture.mode
    if mode in _DEEP:
        return Image.fromarray(_eight_bits(np.asarray(picture)))
    if mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        lowest, _ = picture.getchannel("A").getextrema()
        if int(lowest) < 255:  # type: ignore[arg-type]
            raise DataError("parts of it are transparent; lay it on a background first")
        return picture.convert("RGB")
    if mode in ("1", "L"):
        return picture.convert("L")
    if mode in ("P", "RGB"):
        return picture.convert("RGB")
    if mode == "CMYK":
        raise DataError("CMYK, whose colours depend on a printing profile; save it as RGB")
    raise DataError(f"colours of the kind {mode}; grey and RGB are accepted")


def _eight_bits(deep: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    levels = deep.astype(np.int64)
    if 0 < levels.max() < _TWELVE_BITS:
        raise DataError(
            f"16 bits a pixel, but no level above {levels.max()} of 65535, so that it would be "
            "nearly black; scale it to 8 bits first"
        )
    return ((levels * 255 + 32767) // 65535).astype(np.uint8)
