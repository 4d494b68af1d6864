"""Compare what a file announces with what it can hold, before memory is reserved for it.

A header of a few bytes may promise terabytes, and a few packed bytes may unpack to gigabytes: a
decompression bomb.  Each check here reads headers only, or unpacks into nothing.
"""

import gzip
import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian

from medaug.core.errors import DataError

MOST_VOXELS = 2**30
"""Of a scan: 1024 slices of 1024 x 1024 pixels, four times what the longest CT scans have."""
MOST_INFLATED = 2**30
"""Bytes of a deflated DICOM file once it is inflated."""
MOST_ARRAYS = 2**32
"""Bytes of the arrays in one ``.npz`` file."""
STEEPEST = 1040
"""How many times smaller deflate can make data: 258 bytes in 2 bits (RFC 1951), and headers."""
_MOST_EXTENSIONS = 2**24
PARSER_ERRORS = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What parsers of any format raise on damaged files."""
_GZIP, _GZIP_WINDOW = b"\x1f\x8b", 31
_BLOCK = 2**20
_NIFTI = {348: ("8h", 40, 70, "f", 108), 540: ("8q", 16, 12, "q", 168)}
"""By the size of the header: the axes, the type of a voxel, and where voxels start, with places."""
_LONGEST_NIFTI = 540
_INTENT, _CIFTI = 504, range(3000, 3100)
_BITS = {1: 1, 2: 8, 4: 16, 8: 32, 16: 32, 32: 64, 64: 64, 128: 24, 256: 8, 512: 16, 768: 32,
         1024: 64, 1280: 64, 1536: 128, 1792: 128, 2048: 256, 2304: 32}  # fmt: skip
_META_FILE = re.compile(rb"^[^\S\n]*ElementDataFile\s*[=:](.*)$", re.M | re.I)
_NRRD_FILE = re.compile(rb"^[^\S\n]*data ?file\s*:(.*)$", re.M | re.I)
_MOST_HEADER = 2**20


def check_voxels(name: str, shape: Sequence[int]) -> None:
    """Refuse a scan of more than `MOST_VOXELS`.

    Raises:
        DataError: naming its shape.
    """
    if math.prod(shape) > MOST_VOXELS:
        raise DataError(
            f"{name} announces {' x '.join(map(str, shape))} voxels, accepted are "
            f"{MOST_VOXELS:,} in all; crop or resample it"
        )


def check_nifti(file: Path) -> None:
    """Refuse a NIfTI file whose header promises more than the file can hold.

    Raises:
        DataError: too many voxels, too large extensions, less in the file than announced, or
            surfaces (CIFTI).
        OSError: it is not there.
    """
    with file.open("rb") as plain:
        packed = plain.read(2) == _GZIP
    try:
        with gzip.open(file) if packed else file.open("rb") as stream:
            header = stream.read(_LONGEST_NIFTI)
    except (OSError, EOFError, zlib.error):
        return
    check_header(file.name, header, file.stat().st_size * (STEEPEST if packed else 1))


def check_header(name: str, header: bytes, held: int) -> int:
    """Refuse a NIfTI header that promises more than the file can hold.

    Args:
        name: of the file.
        header: its first bytes, unpacked.
        held: how many bytes it can hold at most.

    Returns:
        The bytes that it promises; 0 for what is no NIfTI header, which its parser will refuse.

    Raises:
        DataError: too many voxels, too large extensions, less in the file than announced, or
            surfaces (CIFTI).
    """
    for order in "<>":
        size = struct.unpack(f"{order}i", header[:4])[0] if len(header) >= 4 else 0
        if size not in _NIFTI or len(header) < size:
            continue
        if size == _LONGEST_NIFTI and struct.unpack_from(f"{order}i", header, _INTENT)[0] in _CIFTI:
            raise DataError(f"{name} is a CIFTI file, of surfaces; a volume is needed")
        dims, at, kind_at, start, start_at = _NIFTI[size]
        rank, *shape = struct.unpack_from(order + dims, header, at)
        (datatype,) = struct.unpack_from(order + "h", header, kind_at)
        (offset,) = struct.unpack_from(order + start, header, start_at)
        if not 1 <= rank <= 7 or not math.isfinite(offset):
            return 0
        shape = [max(n, 0) for n in shape[:rank]]
        check_voxels(name, shape)
        if offset > _MOST_EXTENSIONS:
            raise DataError(
                f"{name} announces {offset:.0f} bytes of header extensions, accepted are "
                f"{_MOST_EXTENSIONS:,}"
            )
        promised = offset + math.prod(shape) * _BITS.get(datatype, 8) / 8
        if held < promised:
            raise DataError(
                f"{name} is truncated or damaged: it announces {promised:.0f} bytes, more than it "
                "can hold"
            )
        return math.ceil(promised)
    return 0


def check_beside(file: Path) -> None:
    """Refuse an NRRD or MetaImage header whose voxels are in a file of another folder.

    Raises:
        DataError: it names a place outside its own folder, or its end is not found.
    """
    with file.open("rb") as stream:
        header = stream.read(_MOST_HEADER)
    if header.startswith(b"NRRD"):
        header, ended, _ = header.partition(b"\r\n\r\n" if b"\r\n\r\n" in header else b"\n\n")
        found = list(_NRRD_FILE.finditer(header))
    else:
        found = list(_META_FILE.finditer(header))
        ended = b"".join(match[0] for match in found)
    if not ended and len(header) == _MOST_HEADER:
        raise DataError(f"{file.name} has a header of more than {_MOST_HEADER:,} bytes")
    for match in found:
        place = match[1].decode(errors="replace").strip()
        listed = header[match.end() :].decode(errors="replace").split("\n")
        for name in listed if place.upper().startswith("LIST") else [place]:
            if "/" in name.strip().removeprefix("./") or "\\" in name:
                raise DataError(
                    f"{file.name} says that its voxels are in {name.strip()!r}, outside its own "
                    "folder; put them beside it"
                )


def check_deflated(stream: BinaryIO, name: str) -> None:
    """Refuse a deflated DICOM file that inflates to more than `MOST_INFLATED`; rewinds ``stream``.

    What is not DICOM passes, to be refused by its parser.

    Raises:
        DataError: naming the limit.
    """
    start = stream.tell()
    try:
        read_preamble(stream, False)
        # pydicom's public readers take a path, or inflate the file, which is to be measured first.
        meta = _read_file_meta_info(stream)
        if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
            return
        inflater, count = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while block := inflater.unconsumed_tail or stream.read(_BLOCK):
            count += len(inflater.decompress(block, _BLOCK))
            if count > MOST_INFLATED:
                raise DataError(
                    f"{name} inflates to more than {MOST_INFLATED:,} bytes; convert it to explicit "
                    "little endian"
                )
            if inflater.eof:
                return
    except DataError:
        raise
    except Exception:  # a malformed header can make a parser raise anything
        return
    finally:
        stream.seek(start, os.SEEK_SET)


def gunzip(raw: bytes, most: int) -> bytes:
    """Unpack up to ``most`` bytes of what gzip has packed, further members included.

    Raises:
        EOFError: truncated.
        zlib.error: damaged.
    """
    parts, left = [], most
    while raw and left > 0:
        member = zlib.decompressobj(_GZIP_WINDOW)
        parts.append(member.decompress(raw, left))
        left -= len(parts[-1])
        if left > 0 and not member.eof:
            raise EOFError("the compressed data end early")
        raw = member.unused_data.lstrip(b"\0")
    return b"".join(parts)


def read_arrays(file: BinaryIO) -> dict[str, np.ndarray]:
    """Read the arrays of a ``.npz`` file by name, without unpickling.

    Raises:
        ValueError: damaged, of Python objects, or of more than `MOST_ARRAYS` bytes.
    """
    try:
        with zipfile.ZipFile(file) as packed:
            total = sum(entry.file_size for entry in packed.infolist())
        if total > MOST_ARRAYS:
            raise ValueError(f"unpacks to {total} bytes")
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            held = {name: arrays[name] for name in arrays.files}
        if not all(isinstance(array, np.ndarray) for array in held.values()):
            raise ValueError("holds other things than arrays")
        return held
    except (zipfile.BadZipFile, zlib.error, EOFError, MemoryError, KeyError) as error:
        raise ValueError(str(error) or "announces more than memory holds") from error
