"""What the system refuses a process, in one sentence: memory, files, threads, room."""

import errno

from medaug.files import REASONS

_STARVED = {
    errno.EMFILE: "too many open files for this process; raise the limit (ulimit -n)",
    errno.ENFILE: "too many open files on this machine; try again later",
    errno.ENOMEM: "not enough memory; use a smaller size or batch, or fewer workers",
    errno.EAGAIN: "no more processes or threads can be started; use fewer workers",
    errno.EIO: "the disk reports an input or output error; check it",
}
_MEMORY = ("can't allocate memory", "out of memory", "cannot allocate memory", "bad_alloc")
_THREAD = "can't start new thread"
_FILES = "too many open files"


def sentence(error: BaseException) -> str:
    """What is missing, or an empty string where ``error`` is something else."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if found := _of(cause):
            return found
        cause = cause.__cause__ or cause.__context__
    return ""


def _of(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return _STARVED[errno.ENOMEM]
    if isinstance(error, OSError):
        reason = (REASONS | _STARVED).get(error.errno or 0, "")
        return f"{error.filename}: {reason}" if reason and error.filename else reason
    text = str(error).lower()
    if isinstance(error, RuntimeError | ImportError):
        if any(words in text for words in _MEMORY):
            return _STARVED[errno.ENOMEM]
        if _THREAD in text:
            return _STARVED[errno.EAGAIN]
        if _FILES in text:
            return _STARVED[errno.EMFILE]
    return ""
