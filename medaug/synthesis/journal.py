"""Which samples of a folder are finished: kept through kills, and beside other processes.

``manifest.csv`` holds one row for each finished sample, in the order of their indices.  Rows reach
it in two steps, so that finishing a sample costs one short append:

1. A process that writes shard i of k opens ``.journal-i-of-k`` and holds a lock on it while it
   lives.  Once all files of a sample are in place, its row is appended there in a single write.
2. At its end, and whenever a process finds the journal of one that died, the rows are merged into
   the manifest, which is replaced whole, and the journal is removed.

Every step that touches more than one's own journal happens under the lock of the folder.  So at
any moment a row is in the manifest, in a journal, or in both; a kill loses at most the rows of
files just written (which are then found in place and kept) and leaves at most a broken last line
(which is ignored) and hidden leftovers of half-written files (which the next process that owns
their shard removes).  Locks belong to the operating system and die with their process.
"""

import errno
import fcntl
import os
import re
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from medaug.core.errors import OutputError
from medaug.runtime.files import PART, explaining, replacing, write_bytes
from medaug.runtime.files import locked as turn
from medaug.synthesis.manifest import COLUMNS, Pages, Row, Rows, csv_line, pages_of, signed_line

MANIFEST = "manifest.csv"
_LOCK = ".medaug.lock"
_JOURNAL = re.compile(r"\.journal-(\d+)-of-(\d+)")
_LEFTOVER = re.compile(r"\.(syn_\d+|real_.+_z\d+(?=(?:_0000)?\.nii\.gz\.)|)[^/]*\.part")


def in_shard(case: str, number: int, count: int) -> bool:
    """Whether the real case called ``case`` belongs to shard ``number`` of ``count``."""
    return zlib.crc32(case.encode()) % count == number


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for a moment; other processes wait."""
    with turn(folder / _LOCK):
        yield


def read(folder: Path) -> Rows:
    """All finished rows, wherever they are; nothing is changed.

    Raises:
        OutputError: the manifest is not one of this version.
    """
    journals = []
    for path in _journals(folder):
        with suppress(FileNotFoundError):  # merged meanwhile, so the manifest read below has it
            journals.append(pages_of(path))
    return Rows([_manifest(folder), *journals])


class Journal:
    """The rows of one shard while it is being written; made by ``enter``, which holds the lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._guard = threading.Lock()
        with explaining(path):
            self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        fcntl.flock(self._handle, fcntl.LOCK_EX)

    def append(self, row: Row) -> None:
        """Add one finished sample; safe to call from several threads."""
        line = signed_line(row[column] for column in COLUMNS[:-1])
        with self._guard, explaining(self.path):
            if os.write(self._handle, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Let go of the journal; its rows stay for the next process to find."""
        os.close(self._handle)


def enter(folder: Path, shard: tuple[int, int], block_size: int) -> tuple[Journal, Rows]:
    """Open the journal of ``shard`` and gather what is finished; call under ``locked``.

    Journals of dead processes are merged, and leftovers of half-written files of this shard's
    blocks are removed.

    Raises:
        OutputError: a living process writes the same share, or another division into shards.
    """
    number, count = shard
    stale = []
    for path in _journals(folder):
        if _dead(path):
            stale.append(path)
            continue
        other, of = _JOURNAL.fullmatch(path.name).groups()  # type: ignore[union-attr]
        if int(of) != count or int(other) == number:
            raise OutputError(
                f"{folder}: another process is writing shard {other}/{of} there, which overlaps "
                f"shard {number}/{count}; wait for it to end"
            )
    rows = _merge(folder, stale)

    def owned(case: str) -> bool:
        if case.startswith("syn_"):
            return int(case.removeprefix("syn_")) // block_size % count == number
        return not case or in_shard(case, number, count)

    _sweep(folder, owned)
    return Journal(folder / f".journal-{number}-of-{count}"), rows


def leave(folder: Path, journal: Journal) -> Rows:
    """Merge the journal into the manifest and remove it; call under ``locked``.

    Returns:
        All finished rows by index, those of other processes that still write excepted.
    """
    stale = [path for path in _journals(folder) if path == journal.path or _dead(path)]
    rows = _merge(folder, stale)
    if not (folder / MANIFEST).exists():
        write_bytes(folder / MANIFEST, csv_line(COLUMNS))
    return rows


def _merge(folder: Path, journals: list[Path]) -> Rows:
    rows = Rows([_manifest(folder), *(pages_of(path) for path in journals)])
    if rows.news:
        with replacing(folder / MANIFEST) as part, part.open("wb") as table:
            table.write(csv_line(COLUMNS))
            table.writelines(rows.lines())
    for path in journals:
        path.unlink()
    return rows


def _journals(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _JOURNAL.fullmatch(path.name))


def _dead(path: Path) -> bool:
    handle = os.open(path, os.O_WRONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def _sweep(folder: Path, owned: Callable[[str], bool]) -> None:
    for place in (folder, *(path for path in folder.iterdir() if path.is_dir())):
        with os.scandir(place) as entries:
            hidden = [e.name for e in entries if e.name[0] == "." and e.name.endswith(PART)]
        for name in hidden:
            match = _LEFTOVER.fullmatch(name)
            if match and owned(match[1]):
                (place / name).unlink(missing_ok=True)


def _manifest(folder: Path) -> Pages:
    """The manifest, or nothing where there is none."""
    path = folder / MANIFEST
    try:
        pages = pages_of(path)
    except FileNotFoundError:
        return b""
    header = csv_line(COLUMNS)
    if pages[: len(header)] != header:
        raise OutputError(
            f"{path}: not a manifest of this version (its first line lists other columns); "
            "choose another folder"
        )
    return pages
