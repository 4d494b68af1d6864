"""What the system refuses a process, in one sentence: memory, files, threads, room."""

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
"""What libraries say in errors of other kinds."""
_UNMADE = "could not create a primitive", "could not get source code"
"""All that oneDNN says where memory for the code it writes is refused, and Python where there is
none to read a file of its library; longer words are others."""


def set_aside() -> list[bytes]:
    """Half a megabyte to give back where nothing else is left, or no sentence could be said.

    In pieces that lie on the heap, not in pages of their own that nobody could map again.
    """
    return [bytes(1000) for _ in range(512)]


def lacking(error: BaseException) -> str:
    """Which of memory, files and threads ran out, or an empty string where none did."""
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
    """The same, or why the disk does not take it; empty where ``error`` is something else."""
    if found := lacking(error):
        return found
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in REASONS:
            return f"{cause.filename or 'a file'}: {REASONS[cause.errno]}"
        if isinstance(cause, RuntimeError) and "DataLoader worker" in str(cause):
            return f"a worker died ({str(cause).strip()}); run the same command with fewer workers"
    return ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    """``error`` and what it came of."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        yield cause
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__
