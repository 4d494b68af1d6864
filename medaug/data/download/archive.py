"""Zip files from elsewhere, unpacked without trusting them."""

import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from medaug.core.errors import DownloadError, MedaugError
from medaug.core.text import is_file_name
from medaug.data.download.http import SpoiledError
from medaug.data.formats.archives import MOST_DIRECTORY, directory_bytes
from medaug.runtime.files import explaining
from medaug.runtime.resources import lacking

_BLOCK = 2**20
_LONGEST_ENTRY = 2**10
"""Bytes that the list of an archive may spend on a file."""
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
)
"""What zipfile raises of damaged bytes; the last of a version or packing that it does not know."""
_KNOWN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_SPECIAL = {stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK}


def unpack(
    archive: Path,
    folder: Path,
    wanted: Callable[[str], bool],
    most_files: int,
    most_bytes: int,
) -> list[Path]:
    """Unpack the wanted files of ``archive`` right into ``folder``, by their last name.

    Args:
        archive: a zip file.
        folder: made where needed.
        wanted: says of the last part of a name whether the file is unpacked.
        most_files: entries that the archive may hold.
        most_bytes: that may come out of it, counted as they come.

    Raises:
        SpoiledError: not a whole zip file, or a file in it does not match its CRC-32.
        DownloadError: it names places outside itself, holds links or devices, is encrypted, names
            a file twice, or is larger than allowed; nothing of it is kept.
        OutputError: the disk does not take it.
    """
    try:
        with archive.open("rb") as stream:
            if directory_bytes(stream) > min(MOST_DIRECTORY, most_files * _LONGEST_ENTRY):
                raise DownloadError(f"{archive.name}: lists more than {most_files} files")
        with zipfile.ZipFile(archive) as packed:
            entries = packed.infolist()
            if len(entries) > most_files:
                raise DownloadError(
                    f"{archive.name}: {len(entries)} files in it, at most {most_files} are expected"
                )
            chosen = _chosen(archive.name, entries, wanted)
            with explaining(folder):
                folder.mkdir(parents=True, exist_ok=True)
            try:
                left = most_bytes
                for name, entry in chosen.items():
                    left -= _write(packed, entry, folder / name, left)
            except Exception:
                for name in chosen:
                    (folder / name).unlink(missing_ok=True)
                raise
    except MedaugError:
        raise
    except _BROKEN as error:
        if lacking(error):
            raise
        raise SpoiledError(f"{archive.name} is not a whole zip file ({error})") from error
    return [folder / name for name in chosen]


def _chosen(
    archive: str, entries: list[zipfile.ZipInfo], wanted: Callable[[str], bool]
) -> dict[str, zipfile.ZipInfo]:
    chosen: dict[str, zipfile.ZipInfo] = {}
    seen = set()
    for entry in entries:
        where = f"{archive}: {entry.orig_filename!r}"
        path = PurePosixPath(entry.orig_filename)
        if path.is_absolute() or ".." in path.parts or set(entry.orig_filename) & set("\\:\0"):
            raise DownloadError(f"{where} points outside the archive; nothing was unpacked")
        if stat.S_IFMT(entry.external_attr >> 16) in _SPECIAL:
            raise DownloadError(f"{where} is a link or a device; nothing was unpacked")
        if entry.flag_bits & 1:
            raise DownloadError(f"{where} is encrypted; nothing was unpacked")
        if entry.compress_type not in _KNOWN:
            raise DownloadError(f"{where} is packed in a way that zip files seldom are")
        if entry.is_dir() or path.name.startswith(".") or not wanted(path.name):
            continue
        if not is_file_name(path.name):
            raise DownloadError(f"{where} is no name for a file; nothing was unpacked")
        if path.name.casefold() in seen:
            raise DownloadError(f"{where} is the second file of that name; nothing was unpacked")
        seen.add(path.name.casefold())
        chosen[path.name] = entry
    return chosen


def _write(packed: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, left: int) -> int:
    """Unpack one file of at most ``left`` bytes; how many they were."""
    count = 0
    with packed.open(entry) as source, explaining(path), path.open("wb") as target:
        while block := source.read(_BLOCK):
            count += len(block)
            if count > left:
                raise DownloadError(
                    f"{packed.filename}: unpacks to more than is expected; nothing of it is kept"
                )
            target.write(block)
    return count
