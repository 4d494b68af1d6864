"""One cache filled by several processes that know nothing of each other but their numbers.

Process i of k cuts every k-th case.  At its end it leaves a record of the scans it could not use,
and whoever finds all k records finishes the cache as one process would have.  A shared lock keeps
away who would fill the cache alone; a lock of its own keeps away a second process i of k.
"""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from medaug.core.errors import ConfigError, OutputError
from medaug.data.cache.store import read_index
from medaug.runtime.files import PATIENCE_S, exclusive, explaining, locked, write_json

POLL_S = 0.2
TURN = ".turn"
"""The lock of a cache for what takes a moment."""
SHARED = ".share-*-of-*.json", ".lock-*-of-*"


def check(part: tuple[int, int]) -> None:
    """Refuse a share that is none.

    Raises:
        ConfigError: it is not i of k with i from 0 to k - 1.
    """
    number, count = part
    if count < 1 or not 0 <= number < count:
        raise ConfigError(f"shard {number}/{count}: the first number counts from 0 to {count} - 1")


def mine(names: Sequence[str], part: tuple[int, int]) -> set[str]:
    """Which of ``names`` are this process's."""
    number, count = part
    return set(sorted(names)[number::count])


@contextmanager
def sharing(cache: Path, part: tuple[int, int]) -> Iterator[None]:
    """Fill ``cache`` beside the other shares, and beside nobody else.

    Raises:
        OutputError: a process that fills it alone, or this very share, is at work.
    """
    if part[1] == 1:
        with exclusive(cache):
            yield
        return
    with explaining(cache):
        cache.mkdir(parents=True, exist_ok=True)
        whole = os.open(cache / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        own = os.open(cache / f".lock-{part[0]}-of-{part[1]}", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _take(whole, fcntl.LOCK_SH, cache)
        _take(own, fcntl.LOCK_EX, cache)
        yield
    finally:
        os.close(own)
        os.close(whole)


def _take(handle: int, kind: int, cache: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise OutputError(
                    f"{cache}: another process is working in it; wait for it"
                ) from None
            time.sleep(0.02)


class Records:
    """What the shares of one cache have left so far.

    Args:
        cache: the folder.
        part: this process's share.
        index: what the cache is to hold; records of anything else do not count.
    """

    def __init__(self, cache: Path, part: tuple[int, int], index: Mapping[str, Any]) -> None:
        self.cache, self.part = cache, part
        text = json.dumps({k: v for k, v in index.items() if k != "failed"}, sort_keys=True)
        self.about = hashlib.sha256(text.encode()).hexdigest()

    def path(self, number: int) -> Path:
        """Where share ``number`` leaves its record."""
        return self.cache / f".share-{number}-of-{self.part[1]}.json"

    def begin(self) -> None:
        """This share is at work again."""
        self.path(self.part[0]).unlink(missing_ok=True)

    def leave(self, failed: Mapping[str, str]) -> dict[str, str] | None:
        """Record this share's failures; those of all where every share has ended, else None."""
        if self.part[1] == 1:
            return dict(failed)
        write_json(self.path(self.part[0]), {"about": self.about, "failed": dict(failed)})
        every: dict[str, str] = {}
        for number in range(self.part[1]):
            try:
                told = json.loads(self.path(number).read_text())
            except FileNotFoundError:
                return None
            if told["about"] != self.about:
                return None
            every |= told["failed"]
        return every

    def clear(self) -> None:
        """The cache is finished."""
        _remove(self.cache, *SHARED)


def sweep(cache: Path) -> None:
    """Remove what a process left that was killed just after it finished ``cache``.

    It does no harm where it lies, so a cache that cannot be written stays as it is.
    """
    if any(True for pattern in (TURN, *SHARED) for _ in cache.glob(pattern)):
        with suppress(OutputError), locked(cache / TURN):
            if (read_index(cache) or {}).get("complete"):
                _remove(cache, *SHARED)


def _remove(cache: Path, *patterns: str) -> None:
    for pattern in patterns:
        for path in cache.glob(pattern):
            path.unlink(missing_ok=True)


def wait(cache: Path, patience_s: float = 60.0) -> None:
    """Wait until the other shares have finished ``cache``.

    Raises:
        OutputError: nobody has been at work for ``patience_s`` and it is not finished.
    """
    seen = time.monotonic()
    while not (read_index(cache) or {}).get("complete"):
        if _busy(cache):
            seen = time.monotonic()
        elif time.monotonic() - seen > patience_s:
            raise OutputError(
                f"{cache}: the other shares ended before they were done; run the same command again"
            )
        time.sleep(POLL_S)


def _busy(cache: Path) -> bool:
    """Whether a process holds the cache."""
    handle = os.open(cache / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
