"""Too few file descriptors, too little memory, too small files: success, or one sentence.

Without the limit the same command ends with the bytes of an undisturbed run.
"""

import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from disks import leftovers
from process import Command, run
from trial import Trial, difference
from victims import World

DESCRIPTORS = (6, 8, 10, 12, 14, 16, 20, 24, 32, 64)
MEMORY_MB = (0, 1, 2, 4, 8, 16, 32, 64, 128, 512)
"""Above what the process holds when the command begins."""
FILE_BYTES = (0, 100, 1000, 5000, 20000, 80000, 300000, 1000000)


def descriptors(world: World, scratch: Path, count: int) -> Iterator[Trial]:
    """RLIMIT_NOFILE."""
    yield from _tried(world, scratch, "descriptors", resource.RLIMIT_NOFILE, DESCRIPTORS, count)


def files(world: World, scratch: Path, count: int) -> Iterator[Trial]:
    """RLIMIT_FSIZE."""
    yield from _tried(world, scratch, "bytes a file", resource.RLIMIT_FSIZE, FILE_BYTES, count)


def memory(world: World, scratch: Path, count: int) -> Iterator[Trial]:
    """RLIMIT_AS."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    bounds = tuple(held + mb * 2**20 for mb in MEMORY_MB)
    yield from _tried(world, scratch, "bytes of memory", resource.RLIMIT_AS, bounds, count)


def _tried(
    world: World, scratch: Path, what: str, which: int, bounds: tuple[int, ...], count: int
) -> Iterator[Trial]:
    places = sorted({int(k) for k in np.linspace(0, len(bounds) - 1, min(count, len(bounds)))})
    for name in world.victims:
        for place in places:
            yield _limited(world, name, scratch, f"{bounds[place]} {what}", {which: bounds[place]})


def _limited(world: World, name: str, scratch: Path, bound: str, limits: dict[int, int]) -> Trial:
    """A command under limits of its process, then without."""
    victim, wanted, _ = world.undisturbed(name)
    folder = scratch / f"limited-{name}"
    first = run(Command(victim.words, limits), folder)
    lost = ""
    if first.code:
        lost = "" if first.code == 2 and first.sentence else f"ended with {first.code}"
    else:
        lost = difference(wanted, victim.contents(folder))
    lost = lost or leftovers(folder)
    again = run(victim.command(), folder)
    if again.code:
        lost = lost or f"without the limit it ended with {again.code}"
    lost = lost or difference(wanted, victim.contents(folder))
    shutil.rmtree(folder)
    return Trial(
        name, f"{name} with {bound}", lost, [first, again], "refused" if first.code else "enough"
    )
