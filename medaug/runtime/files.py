"""Files appear whole or not at all, and a full disk is told as such."""

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
PATIENCE_S = 5.0
"""How long a held folder is waited for: a killed process's workers keep its lock until they die."""
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
        OutputError: the disk is full, read-only, over quota, or not ours to write.
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
    """A temporary path beside ``path`` that takes its place, synced, if the block succeeds."""
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
    """Remove what a killed process left half-written below ``folder``, which this one holds."""
    for part in folder.rglob(f".*{PART}"):
        part.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all."""
    with replacing(path) as part:
        part.write_bytes(data)


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON with stable key order, whole or not at all."""
    write_bytes(path, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())


def parse_json(text: str | bytes | bytearray) -> Any:
    """The content of JSON text.

    Raises:
        ValueError: not JSON, not text, or nested too deeply to be anything of ours.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


SEAL = "sha256"


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """``content``, which goes to JSON, with a checksum over all of it."""
    bare = {key: value for key, value in content.items() if key != SEAL}
    canonical = json.dumps(json.loads(json.dumps(bare)), sort_keys=True)  # as it is read back
    return {**bare, SEAL: _digest(canonical.encode())}


def unsealed(content: Any) -> dict[str, Any]:
    """What was sealed, without its checksum; content without one is taken as it is.

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
    """Write ``data`` and a checksum after it, whole or not at all."""
    write_bytes(path, data + hashlib.sha256(data).digest())


def read_checked(path: Path) -> bytes:
    """What ``write_checked`` wrote.

    Raises:
        ValueError: it does not match its checksum.
    """
    content = path.read_bytes()
    data, seal = content[:-32], content[-32:]
    if hashlib.sha256(data).digest() != seal:
        raise ValueError(f"{path}: the content does not match its checksum")
    return data


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file ``path`` for a while; other processes wait.

    The file is removed before it is let go, so whoever waited for it looks again.
    """
    while True:
        with explaining(path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
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
    """Hold ``folder``, made where needed, for this process; the lock dies with it.

    Raises:
        OutputError: another process holds it, or the folder cannot be made.
    """
    with explaining(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not _locked(handle):
            if time.monotonic() > deadline:
                raise OutputError(f"{folder}: another process is working in it; wait for it")
            time.sleep(0.02)
        yield
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
