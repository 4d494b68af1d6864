"""Too little of something: room on the disk, the right to write, descriptors, memory, file size.

The command must end well, or with status 2 and one sentence; and the same command must leave the
bytes of an undisturbed run once there is enough.  Disks are tmpfs; where none may be mounted,
*full* and *readonly* are left out, and the limit on the size of a file stands in.
"""

import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from process import Command, End, run, stopped
from victims import Trial, World, difference

SEED = 22
PAGE = os.sysconf("SC_PAGE_SIZE")
ROOM = "256m"
PATIENCE_S = 30.0
FULL = ("no space left on the disk", "left; free some")
READ_ONLY = ("the disk is read-only",)
DESCRIPTORS = (6, 8, 10, 12, 14, 16, 20, 24, 32, 64)
MEMORY_MB = (0, 1, 2, 4, 8, 16, 32, 64, 128, 512)
"""Above what the process holds when the command begins."""
FILE_BYTES = (0, 100, 1000, 5000, 20000, 80000, 300000, 1000000)


def mounted() -> bool:
    """Whether this process may mount a disk."""
    if os.geteuid() or shutil.which("mount") is None or not Path("/proc/self/mounts").exists():
        return False
    command = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True).returncode == 0


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
        victim, _, _ = world.undisturbed(name)
        with disk(scratch / "measured") as place:
            run(victim.command(), place)
            status = os.statvfs(place)
            needed = (status.f_blocks - status.f_bfree) * status.f_frsize
        pages = sorted({int(p) for p in np.linspace(1, max(needed // PAGE - 1, 1), count)})
        for size in pages:
            with disk(scratch / f"full-{name}") as place:
                _mount("-o", f"remount,size={size * PAGE}", place)
                first = run(victim.command(), place)
                lost = _unclear(first, FULL) or leftovers(place)
                _mount("-o", f"remount,size={ROOM}", place)
                again, lost = world.again(name, place, lost)
            what = f"{name}: a disk of {size} pages of {PAGE} bytes"
            note = "refused" if first.code else "there was room"
            yield Trial(name, what, lost, [first, again], note)


def read_only(world: World, scratch: Path, count: int) -> Iterator[Trial]:
    """The disk turns read-only after ``count`` moments of work, the first before any."""
    for name in world.victims:
        victim, wanted, duration = world.undisturbed(name)
        draws = np.random.default_rng([SEED, len(name)])
        for number in range(count):
            with disk(scratch / f"read-only-{name}") as place:
                moment = float(draws.uniform(0, duration)) if number else 0.0
                if number:
                    stopped(victim.command(), place, moment, signal.SIGKILL)
                _protect(place)
                complete = difference(wanted, victim.contents(place)) == ""
                first = run(victim.command(), place)
                lost = _unclear(first, READ_ONLY)
                if not (complete or first.code):
                    lost = "it ended well and wrote nothing"
                _mount("-o", "remount,rw", place)
                again, lost = world.again(name, place, lost)
            what = f"{name}: read-only after {moment:.3f} of {duration:.3f} s"
            note = "refused" if first.code else "nothing to write"
            yield Trial(name, what, lost, [first, again], note)


def _unclear(end: End, words: tuple[str, ...] = ("",)) -> str:
    """What is wrong with the way a command says what it lacks; empty where it needs nothing."""
    if not end.code:
        return ""
    if end.code != 2 or not end.sentence:
        return f"ended with {end.code}, said {end.sentence!r}"
    return "" if any(word in end.sentence for word in words) else f"said {end.sentence!r}"


def leftovers(place: Path) -> str:
    """Half-written files, which a command that was not killed removes itself."""
    parts = (path.relative_to(place) for path in place.rglob("*.part*"))
    found = [str(path) for path in parts if ".download" not in path.parts]
    return f"left {found[0]} half-written" if found else ""


def _limited(
    what: str, which: int, bounds: tuple[int, ...], world: World, scratch: Path, count: int
) -> Iterator[Trial]:
    """Each command under some limits of its process, then without."""
    if which == resource.RLIMIT_AS:
        held = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE
        bounds = tuple(held + mb * 2**20 for mb in bounds)
    places = sorted({int(k) for k in np.linspace(0, len(bounds) - 1, min(count, len(bounds)))})
    for name in world.victims:
        victim, wanted, _ = world.undisturbed(name)
        for bound in (bounds[place] for place in places):
            folder = scratch / f"limited-{name}"
            first = run(Command(victim.words, {which: bound}), folder)
            lost = _unclear(first)
            if not first.code:
                lost = difference(wanted, victim.contents(folder))
            again, lost = world.again(name, folder, lost or leftovers(folder))
            shutil.rmtree(folder)
            note = "refused" if first.code else "enough"
            yield Trial(name, f"{name} with {bound} {what}", lost, [first, again], note)


descriptors = partial(_limited, "descriptors", resource.RLIMIT_NOFILE, DESCRIPTORS)
files = partial(_limited, "bytes a file", resource.RLIMIT_FSIZE, FILE_BYTES)
memory = partial(_limited, "bytes of memory", resource.RLIMIT_AS, MEMORY_MB)
