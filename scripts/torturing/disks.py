"""A disk that is full after 0, 1, 2, ... bytes, and one that turns read-only.

The command must end with status 2 and one sentence, and the same command with the bytes of an
undisturbed run once there is room.  The disk is a tmpfs; where none may be mounted, these two are
left out, and the limit on the size of a file (see limits.py) stands in.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from process import End, run, stopped
from trial import Trial, difference
from victims import Victim, World

SEED = 22
PAGE = os.sysconf("SC_PAGE_SIZE")
ROOM = "256m"
PATIENCE_S = 30.0
FULL = ("no space left on the disk", "left; free some")
READ_ONLY = ("the disk is read-only",)


def mounted() -> bool:
    """Whether this process may mount a disk."""
    if os.geteuid() or shutil.which("mount") is None:
        return False
    place = Path("/proc/self/mounts")
    return place.exists() and subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True
    ).returncode == 0  # fmt: skip


@contextmanager
def disk(place: Path) -> Iterator[Path]:
    """A disk of memory at ``place``."""
    place.mkdir(parents=True)
    _mount("-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", place)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
        place.rmdir()


def _mount(*words: object) -> None:
    subprocess.run(["mount", *map(str, words)], check=True, capture_output=True)


def _protect(place: Path) -> None:
    """Turn the disk read-only, once the workers of a killed command have ended too."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return _mount("-o", "remount,ro", place)
        except subprocess.CalledProcessError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def full(world: World, scratch: Path, count: int) -> Iterator[Trial]:
    """``count`` sizes of the disk from nothing to what the command needs."""
    for name in world.victims:
        victim, wanted, _ = world.undisturbed(name)
        with disk(scratch / "measured") as place:
            run(victim.command(), place)
            status = os.statvfs(place)
            needed = (status.f_blocks - status.f_bfree) * status.f_frsize
        pages = sorted({int(p) for p in np.linspace(1, max(needed // PAGE - 1, 1), count)})
        for size in pages:
            with disk(scratch / f"full-{name}") as place:
                _mount("-o", f"remount,size={size * PAGE}", place)
                first = run(victim.command(), place)
                lost = _told(first, FULL) if first.code else ""
                lost = lost or leftovers(place)
                _mount("-o", f"remount,size={ROOM}", place)
                again, then = _cured(victim, place, wanted)
            what = f"{name}: a disk of {size} pages of {PAGE} bytes"
            note = "refused" if first.code else "there was room"
            yield Trial(name, what, lost or then, [first, again], note)


def read_only(world: World, scratch: Path, count: int) -> Iterator[Trial]:
    """The disk turns read-only after ``count`` moments of work, the first before any."""
    for name in world.victims:
        victim, wanted, duration = world.undisturbed(name)
        draws = np.random.default_rng([SEED, len(name)])
        for number in range(count):
            with disk(scratch / f"read-only-{name}") as place:
                moment = 0.0
                if number:
                    moment = float(draws.uniform(0, duration))
                    stopped(victim.command(), place, moment, signal.SIGKILL)
                _protect(place)
                before = victim.contents(place)
                first = run(victim.command(), place)
                complete = difference(wanted, before) == ""
                lost = "" if complete or first.code else "it ended well and wrote nothing"
                lost = _told(first, READ_ONLY) if first.code else lost
                _mount("-o", "remount,rw", place)
                again, then = _cured(victim, place, wanted)
            what = f"{name}: read-only after {moment:.3f} of {duration:.3f} s"
            note = "refused" if first.code else "nothing to write"
            yield Trial(name, what, lost or then, [first, again], note)


def _cured(victim: Victim, place: Path, wanted: dict[str, str]) -> tuple[End, str]:
    """The same command on a disk that takes it again, and what is lost then."""
    again = run(victim.command(), place)
    if again.code:
        return again, f"with a disk that takes it, it ended with {again.code}"
    return again, difference(wanted, victim.contents(place))


def _told(end: End, words: tuple[str, ...]) -> str:
    """What is wrong with the way a command said that the disk does not take it."""
    if end.code != 2:
        return f"ended with {end.code}"
    return "" if any(told in end.sentence for told in words) else f"said {end.sentence!r}"


def leftovers(place: Path) -> str:
    """Half-written files, which a command that was not killed removes itself."""
    found = [
        str(p.relative_to(place)) for p in place.rglob("*.part*") if ".download" not in p.parts
    ]
    return f"left {found[0]} half-written" if found else ""
