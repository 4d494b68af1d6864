"""Write files whole or not at all, explain a full disk, and lock files and folders."""

import errno
import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from medaug.core.errors import OutputError

PART = ".part"
"""Ending of the name of a file that is being written."""
PATIENCE_S = 5.0
"""Seconds to wait for a lock: a killed process's workers keep it until they end."""
POLL_S = 0.02
SEAL = "sha256"
REASONS = {
    errno.ENOSPC: "no space left on the disk; free some and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some and run the same command again",
    errno.EROFS: "the disk is read-only; choose another place",
    errno.EACCES: "no permission to write there; choose another place",
    errno.EPERM: "no permission to write there; choose another place",
    errno.EFBIG: "the file would be larger than this process may write (ulimit -f)",
}


@contextmanager
def explaining(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write ``path`` into one sentence.

    Raises:
        OutputError: the disk is full, read-only, over quota, or writing is not permitted.
    """
    try:
        yield
    except OSError as error:
        reason = REASONS.get(error.errno or 0)
        if reason is None:
            raise
        raise OutputError(f"{path}: {reason}") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces ``path``, synced to the disk, if the block succeeds."""
    with explaining(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=PART, dir=path.parent)
        os.close(handle)
        part = Path(name)
        try:
            yield part
            with part.open("rb") as written:
                os.fsync(written.fileno())
            part.chmod(0o644)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def remove_parts(folder: Path) -> None:
    """Remove the half-written files that a killed process left below ``folder``; hold it first."""
    for part in folder.rglob(f".*{PART}"):
        part.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all."""
    with replacing(path) as part:
        part.write_bytes(data)


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON with sorted keys, whole or not at all."""
    write_bytes(path, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())


def parse_json(text: str | bytes | bytearray) -> Any:
    """Return the content of JSON text.

    Raises:
        ValueError: not JSON, not text, or nested more deeply than any file of medaug.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``content``, which goes to JSON, with a checksum over all of it."""
    bare = {key: value for key, value in content.items() if key != SEAL}
    canonical = json.dumps(json.loads(json.dumps(bare)), sort_keys=True)  # as it is read back
    return {**bare, SEAL: hashlib.sha256(canonical.encode()).hexdigest()}


def unsealed(content: Any) -> dict[str, Any]:
    """Return what was sealed, without its checksum; content that has none is not checked.

    Raises:
        ValueError: not an object, or it does not match its checksum.
    """
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    bare = {key: value for key, value in content.items() if key != SEAL}
    if SEAL in content and sealed(bare)[SEAL] != content[SEAL]:
        raise ValueError("the content does not match its checksum")
    return bare


def write_checked(path: Path, data: bytes) -> None:
    """Write ``data`` and after it its sha256, whole or not at all."""
    write_bytes(path, data + hashlib.sha256(data).digest())


def read_checked(path: Path) -> bytes:
    """Return the data that ``write_checked`` wrote.

    Raises:
        ValueError: it does not match its checksum.
    """
    content = path.read_bytes()
    data, checksum = content[:-32], content[-32:]
    if hashlib.sha256(data).digest() != checksum:
        raise ValueError(f"{path}: the content does not match its checksum")
    return data


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file ``path`` for a moment; other processes wait as long as it takes.

    The file is removed before the lock is released, so a process that waited for it opens it again.
    """
    while True:
        handle = _open_lock(path, path)
        fcntl.flock(handle, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.fstat(handle).st_ino == path.stat().st_ino:
                break
        os.close(handle)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold ``folder``, made where needed, for this process; the lock ends with it.

    Raises:
        OutputError: another process holds it for longer than `PATIENCE_S`, or the folder cannot be
            made.
    """
    with explaining(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with held(folder / ".lock"):
        yield


@contextmanager
def held(path: Path, shared: bool = False) -> Iterator[None]:
    """Hold the lock file ``path``, which stays; `exclusive` does so with that of a folder.

    Args:
        path: the lock file, made where needed.
        shared: whether others may hold it at the same time, if shared as well.

    Raises:
        OutputError: another process holds it for longer than `PATIENCE_S`.
    """
    handle = _open_lock(path, path.parent)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not _try_lock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise OutputError(f"{path.parent}: another process is working in it; wait for it")
            time.sleep(POLL_S)
        yield
    finally:
        os.close(handle)


def is_held(path: Path) -> bool:
    """Whether a process holds the lock file ``path``, which is made where needed."""
    handle = _open_lock(path, path)
    try:
        return not _try_lock(handle, fcntl.LOCK_EX)
    finally:
        os.close(handle)


def _open_lock(path: Path, subject: Path) -> int:
    with explaining(subject):
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)


def _try_lock(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
