"""Fill one cache by several processes that know of each other only their numbers.

Process i of k cuts every k-th case.  At its end it leaves a record of the scans it could not use;
the process that finds all k records finishes the cache as one process would have.  All k hold one
lock together, which keeps away a process that fills the cache alone; a lock of its own keeps away
a second process i of k.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from medaug.core.errors import ConfigError, OutputError
from medaug.data.cache.store import read_index
from medaug.runtime.files import exclusive, explaining, held, is_held, locked, write_json

POLL_S = 0.2
BRIEF = ".turn"
"""The lock file of a cache for changes to its index, which take a moment."""
SHARED = ".share-*-of-*.json", ".lock-*-of-*"


def check(part: tuple[int, int]) -> None:
    """Refuse a ``part`` (i, k) that is not one of k shares.

    Raises:
        ConfigError: i is not from 0 to k - 1.
    """
    number, count = part
    if count < 1 or not 0 <= number < count:
        raise ConfigError(f"shard {number}/{count}: the first number counts from 0 to {count} - 1")


def mine(names: Sequence[str], part: tuple[int, int]) -> set[str]:
    """The ids among ``names`` that share ``part`` (i, k) cuts: every k-th in name order."""
    number, count = part
    return set(sorted(names)[number::count])


@contextmanager
def sharing(cache: Path, part: tuple[int, int]) -> Iterator[None]:
    """Fill ``cache`` together with the other shares, and with no other process.

    Args:
        cache: the folder, made where needed.
        part: (i, k) for share i of k, counted from 0.

    Raises:
        OutputError: a process that fills it alone, or this very share, is at work.
    """
    if part[1] == 1:
        with exclusive(cache):
            yield
        return
    with explaining(cache):
        cache.mkdir(parents=True, exist_ok=True)
    own = cache / f".lock-{part[0]}-of-{part[1]}"
    with held(cache / ".lock", shared=True), held(own):
        yield


class Records:
    """The records that the shares of one cache leave when they end.

    Args:
        cache: the folder.
        part: this process's share (i, k).
        index: what the cache is to hold; records of anything else do not count.
    """

    def __init__(self, cache: Path, part: tuple[int, int], index: Mapping[str, Any]) -> None:
        self.cache, self.part = cache, part
        text = json.dumps({k: v for k, v in index.items() if k != "failed"}, sort_keys=True)
        self.about = hashlib.sha256(text.encode()).hexdigest()

    def path(self, number: int) -> Path:
        """The file of share ``number``."""
        return self.cache / f".share-{number}-of-{self.part[1]}.json"

    def begin(self) -> None:
        """Remove this share's record, since it is at work again."""
        self.path(self.part[0]).unlink(missing_ok=True)

    def leave(self, failed: Mapping[str, str]) -> dict[str, str] | None:
        """Record why cases of this share failed, by id.

        Returns:
            the failures of all shares where every one has ended, else None.
        """
        if self.part[1] == 1:
            return dict(failed)
        write_json(self.path(self.part[0]), {"about": self.about, "failed": dict(failed)})
        every: dict[str, str] = {}
        for number in range(self.part[1]):
            try:
                record = json.loads(self.path(number).read_text())
            except FileNotFoundError:
                return None
            if record["about"] != self.about:
                return None
            every |= record["failed"]
        return every

    def clear(self) -> None:
        """Remove all records and locks of shares: the cache is finished."""
        _remove(self.cache, *SHARED)


def sweep(cache: Path) -> None:
    """Remove the records that a process left which was killed just after it finished ``cache``.

    They do no harm, so a cache that cannot be written stays as it is.
    """
    if any(True for pattern in (BRIEF, *SHARED) for _ in cache.glob(pattern)):
        with suppress(OutputError), locked(cache / BRIEF):
            if (read_index(cache) or {}).get("complete"):
                _remove(cache, *SHARED)


def _remove(cache: Path, *patterns: str) -> None:
    for pattern in patterns:
        for path in cache.glob(pattern):
            path.unlink(missing_ok=True)


def wait(cache: Path, patience_s: float = 60.0) -> None:
    """Wait until the other shares have finished ``cache``.

    Args:
        cache: the folder.
        patience_s: how long, in seconds, it may lie unfinished while no process is at work.

    Raises:
        OutputError: it lay so for longer.
    """
    seen = time.monotonic()
    while not (read_index(cache) or {}).get("complete"):
        if is_held(cache / ".lock"):
            seen = time.monotonic()
        elif time.monotonic() - seen > patience_s:
            raise OutputError(
                f"{cache}: the other shares ended before they were done; run the same command again"
            )
        time.sleep(POLL_S)
