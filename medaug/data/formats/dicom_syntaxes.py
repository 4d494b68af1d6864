"""DICOM transfer syntaxes: how pixels are packed, what reads them, and whether they are whole.

DICOM PS3.5, section 10 and annex A; PS3.6, annex A.  pydicom reads plain pixels, SimpleITK (GDCM)
all packed ones but the newest.  Decoders fill in what is missing of compressed pixels without a
word, so streams are checked before: JPEG by ITU-T T.81, annex B; JPEG-LS by T.87, annex C; JPEG
2000 by T.800, annex A.
"""

from dataclasses import dataclass
from pathlib import Path

from pydicom.pixels import get_decoder
from pydicom.uid import UID_dictionary

from medaug.core.errors import DataError


@dataclass(frozen=True)
class Syntax:
    """One way of packing pixels.

    Attributes:
        uid: of the transfer syntax.
        name: in words.
        lossy: whether pixels come back other than they went in.
        reader: the package that decodes it: SimpleITK, pydicom, or a plugin of pydicom.
    """

    uid: str
    name: str
    lossy: bool = False
    reader: str = "SimpleITK"


_JPEG = "1.2.840.10008.1.2.4."
_PLUGIN = "pylibjpeg-openjpeg"
_LOST_BYTES = 512
_NO_FRAME = {0xC4, 0xC8, 0xCC}  # tables between the start-of-frame markers C0 to CF

SYNTAXES = {
    syntax.uid: syntax
    for syntax in (
        Syntax("1.2.840.10008.1.2", "implicit little endian", reader="pydicom"),
        Syntax("1.2.840.10008.1.2.1", "explicit little endian", reader="pydicom"),
        Syntax("1.2.840.10008.1.2.2", "explicit big endian", reader="pydicom"),
        Syntax("1.2.840.10008.1.2.1.99", "deflated", reader="pydicom"),
        Syntax("1.2.840.10008.1.2.5", "RLE"),
        Syntax(f"{_JPEG}50", "JPEG baseline", lossy=True),
        Syntax(f"{_JPEG}51", "JPEG extended", lossy=True),
        Syntax(f"{_JPEG}53", "JPEG spectral selection", lossy=True),
        Syntax(f"{_JPEG}55", "JPEG progressive", lossy=True),
        Syntax(f"{_JPEG}57", "JPEG lossless"),
        Syntax(f"{_JPEG}70", "JPEG lossless, first order"),
        Syntax(f"{_JPEG}80", "JPEG-LS lossless"),
        Syntax(f"{_JPEG}81", "JPEG-LS near-lossless", lossy=True),
        Syntax(f"{_JPEG}90", "JPEG 2000 lossless"),
        Syntax(f"{_JPEG}91", "JPEG 2000", lossy=True),
        Syntax(f"{_JPEG}201", "high-throughput JPEG 2000 lossless", reader=_PLUGIN),
        Syntax(f"{_JPEG}202", "high-throughput JPEG 2000 lossless, RPCL", reader=_PLUGIN),
        Syntax(f"{_JPEG}203", "high-throughput JPEG 2000", lossy=True, reader=_PLUGIN),
    )
}


def is_jpeg(uid: str) -> bool:
    """Whether ``uid`` is one of the JPEG family that libjpeg reads."""
    return uid.startswith(_JPEG) and len(uid) == len(_JPEG) + 2 and uid[-2:] < "80"


def is_jpeg_ls(uid: str) -> bool:
    """Whether ``uid`` is JPEG-LS."""
    return uid in (f"{_JPEG}80", f"{_JPEG}81")


def is_jpeg_2000(uid: str) -> bool:
    """Whether ``uid`` is JPEG 2000, high-throughput or not."""
    return uid in SYNTAXES and "JPEG 2000" in SYNTAXES[uid].name


def readable(file: Path, uid: str) -> Syntax:
    """The syntax ``uid`` of ``file``, whose name goes into the message.

    Raises:
        DataError: nothing installed reads it; the message names the package that would.
    """
    syntax = SYNTAXES.get(uid)
    if syntax is None:
        known = f"{UID_dictionary[uid][0]} ({uid})" if uid in UID_dictionary else repr(uid)
        raise DataError(
            f"{file.name} is packed as {known}, which neither SimpleITK nor pydicom reads; "
            "convert it to explicit little endian (dcmconv, gdcmconv --raw)"
        )
    if syntax.reader != "SimpleITK" and not get_decoder(uid).is_available:
        raise DataError(
            f"{file.name} is packed as {syntax.name} ({uid}), which {syntax.reader} reads; "
            'pip install "medaug[codecs]"'
        )
    return syntax


def is_sound(stream: bytes, uid: str, rows: int, columns: int) -> bool:
    """Whether the compressed pixels of one slice are whole and of the size that its header says.

    A JPEG ends with its end marker, but for padding.  The coded bits of JPEG 2000 hold no long run
    of zeros, which is what a lost piece of a file reads as.  All of them give their size, for which
    a decoder reserves memory.

    Args:
        stream: the pixels as they are stored.
        uid: of their transfer syntax; one that is none of these passes.
        rows: by the header.
        columns: by the header.
    """
    written = stream.rstrip(b"\0")
    if is_jpeg(uid) and not written.endswith(b"\xff\xd9"):
        return False
    if is_jpeg(uid) or is_jpeg_ls(uid):
        return _jpeg_size(stream) == (rows, columns)
    if is_jpeg_2000(uid):
        return bytes(_LOST_BYTES) not in written and _jpeg_2000_size(stream) == (rows, columns)
    return True


def _jpeg_size(stream: bytes) -> tuple[int, int] | None:
    """Rows and columns by the start of the frame, or None without one of a single component."""
    at = 2
    while at + 9 <= len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in _NO_FRAME):
            size = _number(stream, at + 5, 2), _number(stream, at + 7, 2)
            return size if _number(stream, at + 9, 1) == 1 else None
        at += 2 + _number(stream, at + 2, 2)
    return None


def _jpeg_2000_size(stream: bytes) -> tuple[int, int] | None:
    """Rows and columns by the first marker segment, or None without one of a single component."""
    if stream[:4] != b"\xff\x4f\xff\x51" or len(stream) < 42:
        return None
    if _number(stream, 40, 2) != 1:
        return None
    right, bottom, left, top = (_number(stream, at, 4) for at in (8, 12, 16, 20))
    return bottom - top, right - left


def _number(stream: bytes, at: int, length: int) -> int:
    return int.from_bytes(stream[at : at + length], "big")
