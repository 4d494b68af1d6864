"""Say in one sentence what the system refused a process: memory, files, threads, disk space."""

import errno
from collections.abc import Iterator

from medaug.runtime.files import REASONS

_LACKING = {
    errno.EMFILE: "too many open files for this process; raise the limit (ulimit -n)",
    errno.ENFILE: "too many open files on this machine; try again later",
    errno.ENOMEM: "not enough memory; use a smaller size or batch, or fewer workers",
    errno.EAGAIN: "no more processes or threads can be started; use fewer workers",
}
_WORDS = {
    "can't allocate memory": errno.ENOMEM,
    "cannot allocate memory": errno.ENOMEM,
    "failed to map segment": errno.ENOMEM,
    "out of memory": errno.ENOMEM,
    "bad_alloc": errno.ENOMEM,
    "can't start new thread": errno.EAGAIN,
    "too many open files": errno.EMFILE,
}
"""Words by which errors of other types are recognised."""
_UNMADE = "could not create a primitive", "could not get source code"
"""Whole messages of oneDNN, where it gets no memory for the code it generates, and of Python, where
it gets none to read a file of its library; a message that only contains them is another one."""


def set_aside() -> list[bytes]:
    """Allocate half a megabyte to free when memory has run out, so that an error can be reported.

    It is in small blocks, which are on the heap: large ones have pages of their own, which could
    not be mapped again.
    """
    return [bytes(1000) for _ in range(512)]


def lacking(error: BaseException) -> str:
    """Say which of memory, files and threads ran out; an empty string where none did."""
    for cause in _causes(error):
        if isinstance(cause, MemoryError):
            return _LACKING[errno.ENOMEM]
        if isinstance(cause, OSError) and cause.errno in _LACKING:
            return _LACKING[cause.errno]
        said = str(cause).strip().lower()
        if said in _UNMADE and isinstance(cause, RuntimeError | OSError):
            return _LACKING[errno.ENOMEM]
        if isinstance(cause, RuntimeError | ImportError):
            for words, number in _WORDS.items():
                if words in said:
                    return _LACKING[number]
    return ""


def sentence(error: BaseException) -> str:
    """Say what ran out, or why the disk refuses a file; empty where ``error`` is something else."""
    if found := lacking(error):
        return found
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in REASONS:
            return f"{cause.filename or 'a file'}: {REASONS[cause.errno]}"
        if isinstance(cause, RuntimeError) and "DataLoader worker" in str(cause):
            return f"a worker died ({str(cause).strip()}); run the same command with fewer workers"
    return ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error`` and the errors that it came from."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        yield cause
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__
