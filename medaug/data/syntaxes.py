"""DICOM transfer syntaxes: how the pixels of a file may be packed, and what reads each packing.

DICOM PS3.5, section 10 and annex A; PS3.6, annex A.  pydicom reads plain pixels, SimpleITK (GDCM)
all packed ones but the youngest.
"""

from dataclasses import dataclass
from pathlib import Path

from pydicom.pixels import get_decoder
from pydicom.uid import UID_dictionary

from medaug.errors import DataError


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
    """The syntax ``uid`` of ``file``, where something installed reads it.

    Raises:
        DataError: nothing does; the message names the package that would.
    """
    syntax = SYNTAXES.get(uid)
    if syntax is None:
        said = f"{UID_dictionary[uid][0]} ({uid})" if uid in UID_dictionary else repr(uid)
        raise DataError(
            f"{file.name} is packed as {said}, which neither SimpleITK nor pydicom reads; "
            "convert it to explicit little endian (dcmconv, gdcmconv --raw)"
        )
    if syntax.reader != "SimpleITK" and not get_decoder(uid).is_available:
        raise DataError(
            f"{file.name} is packed as {syntax.name} ({uid}), which {syntax.reader} reads; "
            'pip install "medaug[codecs]"'
        )
    return syntax
