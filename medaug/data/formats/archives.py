"""Read zip archives in place: a path that runs through one is a path like any other.

``labels.zip/TCIA_pancreas_labels/label0001.nii.gz`` names a file in ``labels.zip``; an archive may
hold archives, one level deep.  `folders` lists, `opened` reads, and `on_disk` puts the few files
that a decoder needs into a private temporary folder for as long as it decodes.  No name from an
archive is ever used as a path on disk.

Other archives are not read in place, and `how_to_unpack` gives the command for each: a tar has no
table of contents, a compressed one cannot be read from the middle, and 7z and rar need programs of
their own.
"""

import fcntl
import lzma
import os
import shlex
import shutil
import stat
import struct
import tarfile
import tempfile
import weakref
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, cast

from medaug.core.errors import DataError
from medaug.runtime.files import explaining

SUFFIX = ".zip"
MOST_DIRECTORY = 2**26
"""Bytes of the list at the end of an archive: half a million files with names of 88 bytes."""
MOST_BYTES = 4 * 2**30
"""That the files of one scan, or an archive in an archive, may take up unpacked."""
MOST_FILES = 500_000
TOOLS = {
    **dict.fromkeys((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"), "tar -xf {file} -C {to}"),
    ".7z": "7z x {file} -o{to}",
    ".rar": "unrar x {file} {to}",
    ".zip": "unzip {file} -d {to}",
}
"""The command that unpacks an archive, by the ending of its name."""
_TARS = tuple(ending for ending, tool in TOOLS.items() if tool.startswith("tar"))
_LOOKED_AT = 50
"""Entries of a tar until one shows its folder: macOS puts hidden files first."""
_STEEPEST = 100  # an archive in an archive hardly shrinks; one that shrinks more is made to explode
_LONGEST_NAME = 255
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
_ENCRYPTED = 0x1
_KEPT_OPEN = 4
_DIRECTORY_SIZE = 5  # its place in the record that zipfile makes of the end of an archive
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,
    OverflowError,
)
_TEMPORARY, _UNHELD = "medaug-scan-", "medaug-new-"
_AGAIN = "download it again"


@dataclass(frozen=True)
class _Archive:
    file: zipfile.ZipFile
    members: dict[str, zipfile.ZipInfo]


def split(path: Path) -> tuple[Path, str] | None:
    """Split a path into the innermost archive on disk that it runs through, and the rest.

    Returns:
        None for a path on disk.
    """
    if SUFFIX not in str(path).lower():
        return None
    for part in reversed(path.parents):
        if part.suffix.lower() == SUFFIX and part.is_file():
            return part, path.relative_to(part).as_posix()
    return None


def is_archive(path: Path) -> bool:
    """Whether ``path`` is called a zip archive and is a file."""
    return path.suffix.lower() == SUFFIX and path.is_file()


def whole(archive: Path) -> bool:
    """Whether the list of files of a zip archive can be read."""
    try:
        return bool(_archive(archive).members)
    except DataError:
        return False


def folders(
    archive: Path, refused: dict[Path, str], deeper: bool = True
) -> Iterator[tuple[Path, list[str]]]:
    """List the folders in an archive in name order with their file names, hidden ones left out.

    Args:
        archive: on disk, or in an archive on disk.
        refused: takes the archives that cannot be read, with the reason in one sentence.
        deeper: whether the archives in it are listed as well.
    """
    try:
        members = _archive(archive).members
    except DataError as error:
        refused[archive] = str(error)
        return
    names: dict[PurePosixPath, list[str]] = defaultdict(list)
    for name in members:
        path = PurePosixPath(name)
        if not any(part.startswith(".") for part in path.parts):
            names[path.parent].append(path.name)
    for folder in sorted(names):
        yield archive / folder, sorted(names[folder])
        for name in sorted(names[folder]) if deeper else ():
            if name.lower().endswith(SUFFIX):
                yield from folders(archive / folder / name, refused, deeper=False)


@contextmanager
def opened(file: Path) -> Iterator[BinaryIO]:
    """Open ``file``, on disk or in an archive, as a binary stream.

    Raises:
        DataError: the archive does not have it, or what it has is damaged.
    """
    if split(file) is None:
        with file.open("rb") as stream:
            yield stream
        return
    archive, info = _member(file)
    try:
        packed = archive.file.open(info)
    except _UNREADABLE as error:
        raise DataError(f"{file.name} is damaged in its archive; {_AGAIN}") from error
    try:
        with packed:
            yield cast(BinaryIO, packed)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        raise DataError(f"{file.name} is damaged in its archive; {_AGAIN}") from error


def size(file: Path) -> int:
    """The bytes of ``file``, on disk or in an archive.

    Raises:
        DataError: the archive does not have it.
    """
    return file.stat().st_size if split(file) is None else _member(file)[1].file_size


@contextmanager
def on_disk(files: Sequence[Path]) -> Iterator[tuple[Path, ...]]:
    """Have ``files`` as paths on disk, in their order, while the block runs; equal stay equal.

    What is on disk stays where it is.  What is in archives is copied into a temporary folder that
    only this user can read; it is removed with the block, or, after a kill, by the next call.

    Raises:
        DataError: damaged, or more than `MOST_BYTES`.
        OutputError: the disk with the temporary folder is full.
    """
    packed = [file for file in dict.fromkeys(files) if split(file) is not None]
    if not packed:
        yield tuple(files)
        return
    total = sum(size(file) for file in packed)
    if total > MOST_BYTES:
        raise DataError(
            f"{packed[0].name} and its like unpack to {_giga(total)}, accepted are "
            f"{_giga(MOST_BYTES)} for one scan; unpack them by hand"
        )
    with _private_folder() as folder:
        local = {file: folder / str(number) / file.name for number, file in enumerate(packed)}
        for file, copy in local.items():
            with explaining(folder):
                copy.parent.mkdir()
                with opened(file) as stream, copy.open("wb") as target:
                    shutil.copyfileobj(stream, target, 2**20)
        yield tuple(local.get(file, file) for file in files)


def _member(file: Path) -> tuple[_Archive, zipfile.ZipInfo]:
    """The archive right around ``file``, and its entry there."""
    found = split(file)
    assert found is not None
    outer, name = found
    archive = _archive(outer)
    if name in archive.members:
        return archive, archive.members[name]
    for part in list(PurePosixPath(name).parents)[-2::-1]:
        if str(part) in archive.members:
            inner = _archive(outer / part)
            rest = PurePosixPath(name).relative_to(part).as_posix()
            if rest in inner.members:
                return inner, inner.members[rest]
    raise DataError(f"{file.name} is not in {outer.name}")


def _archive(place: Path) -> _Archive:
    found = split(place)
    on_disk_part = place if found is None else found[0]
    try:
        known = on_disk_part.stat()
    except OSError as error:
        raise DataError(f"{place.name} cannot be read") from error
    # A process forked off shares the parent's place in an open file: each opens its own.
    return _opened_archive(place, (known.st_mtime_ns, known.st_size), os.getpid())


@lru_cache(maxsize=_KEPT_OPEN)
def _opened_archive(place: Path, stamp: tuple[int, int], process: int) -> _Archive:
    if stamp[1] == 0:
        raise DataError(f"{place.name} is empty; {_AGAIN}")
    stream = _stream(place) if split(place) is None else _copied(place)
    try:
        listed = directory_bytes(stream)
        if listed > MOST_DIRECTORY:
            raise DataError(
                f"{place.name} lists its files in {listed} bytes, accepted are {MOST_DIRECTORY}"
            )
        file = zipfile.ZipFile(stream)
        members = _checked(place, file)
    except DataError:
        stream.close()
        raise
    except _UNREADABLE as error:
        stream.close()
        raise DataError(f"{place.name} is not a whole zip archive; {_AGAIN}") from error
    weakref.finalize(file, stream.close)
    return _Archive(file, members)


def directory_bytes(stream: IO[bytes]) -> int:
    """The size of an archive's list of files as zipfile will read it; 0 where there is none.

    zipfile goes by these bytes, and not by the number of entries in the same record.
    """
    # There is no public way to this record short of reading the whole list, which is what is to be
    # measured first; another parser could find another record than zipfile does.
    record = zipfile._EndRecData(stream)  # type: ignore[attr-defined]
    return int(record[_DIRECTORY_SIZE]) if record else 0


def _stream(place: Path) -> IO[bytes]:
    try:
        return place.open("rb")
    except OSError as error:
        raise DataError(f"{place.name} cannot be read") from error


def _copied(place: Path) -> IO[bytes]:
    """An archive in an archive as a nameless temporary file, in which one can seek."""
    _, info = _member(place)
    if info.file_size > MOST_BYTES or info.file_size > _STEEPEST * max(info.compress_size, 1):
        raise DataError(
            f"{place.name} unpacks from {info.compress_size} to {info.file_size} bytes; "
            "unpack it by hand"
        )
    stream = tempfile.TemporaryFile()  # noqa: SIM115
    try:
        with explaining(Path(tempfile.gettempdir())), opened(place) as packed:
            shutil.copyfileobj(packed, stream, 2**20)
    except BaseException:
        stream.close()
        raise
    return stream


def _checked(place: Path, file: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files in an archive by name, or what forbids reading it."""
    entries = file.infolist()
    if len(entries) > MOST_FILES:
        raise DataError(f"{place.name} holds {len(entries)} files, accepted are {MOST_FILES}")
    members: dict[str, zipfile.ZipInfo] = {}
    for info in entries:
        name = info.filename.replace("\\", "/")
        if info.is_dir() or name.endswith("/") or stat.S_ISLNK(info.external_attr >> 16):
            continue
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or name[1:2] == ":":
            raise DataError(f"{place.name} holds {name!r}, a name that leaves the archive")
        if max(len(part.encode("utf-8", "replace")) for part in path.parts) > _LONGEST_NAME:
            raise DataError(f"{place.name} holds a name longer than {_LONGEST_NAME} bytes")
        if info.flag_bits & _ENCRYPTED:
            raise DataError(f"{place.name} is encrypted; unpack it with its password")
        if info.compress_type not in _METHODS:
            raise DataError(
                f"{place.name} is compressed in a way that cannot be read here (method "
                f"{info.compress_type}); unpack it by hand"
            )
        if str(path) in members:
            raise DataError(f"{place.name} holds {path} twice; {_AGAIN}")
        members[str(path)] = info
    if not members:
        raise DataError(f"{place.name} holds no files; {_AGAIN}")
    return members


@contextmanager
def _private_folder() -> Iterator[Path]:
    """Make a temporary folder, locked while it is in use so that no other process removes it."""
    _remove_unheld()
    with explaining(Path(tempfile.gettempdir())):
        new = Path(tempfile.mkdtemp(prefix=_UNHELD))
        folder = new.with_name(_TEMPORARY + new.name.removeprefix(_UNHELD))
        handle = os.open(new, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
        new.rename(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _remove_unheld() -> None:
    """Remove what killed processes of this user left."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_TEMPORARY}*"):
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            if os.fstat(handle).st_uid == os.getuid():
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue
        finally:
            os.close(handle)


def _giga(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def is_packed(path: Path) -> bool:
    """Whether ``path`` is called an archive and is a file."""
    return path.name.lower().endswith(tuple(TOOLS)) and path.is_file()


def how_to_unpack(path: Path) -> str:
    """What to do with an archive, in one sentence: the command, and the path to name afterwards."""
    ending = next(e for e in TOOLS if path.name.lower().endswith(e))
    folder = path.with_name(path.name[: -len(ending)])
    inside = None
    if ending in _TARS:
        try:
            inside = _top(path)
        except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError):
            return f"{path}: not a whole tar archive; download it again"
    to, then = (folder, folder) if inside is None else (path.parent, path.parent / inside)
    command = TOOLS[ending].format(file=shlex.quote(str(path)), to=shlex.quote(str(to)))
    made = f"mkdir -p {shlex.quote(str(to))} && " if inside is None and ending in _TARS else ""
    return f"{path}: an archive, and folders are opened; run {made}{command}, then name {then}"


def _top(path: Path) -> str | None:
    """The one folder that all of a tar archive seems to be in, or None."""
    with tarfile.open(path) as packed:
        for _, entry in zip(range(_LOOKED_AT), packed, strict=False):
            parts = PurePosixPath(entry.name).parts
            if not parts or any(part.startswith(".") for part in parts):
                continue
            return parts[0] if len(parts) > 1 or entry.isdir() else None
    return None
