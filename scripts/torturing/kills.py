"""kill -9 and SIGTERM to the whole process group at moments spread over an undisturbed run.

The same command again must end well, and leave the bytes that the undisturbed one leaves.
"""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from process import run, stopped
from trial import Trial, difference
from victims import World

SEED = 20
CLEAN = {0, 75, 130, -signal.SIGTERM}
"""How a command may end that was asked to stop: at its end, to be run again, or by the signal."""


def kill(world: World, scratch: Path, count: int) -> Iterator[Trial]:
    """SIGKILL to each command, ``count`` times."""
    for name in world.victims:
        yield from struck(world, name, scratch, count, signal.SIGKILL)


def terminate(world: World, scratch: Path, count: int) -> Iterator[Trial]:
    """SIGTERM likewise; it may not show a traceback either."""
    for name in world.victims:
        yield from struck(world, name, scratch, count, signal.SIGTERM)


def struck(
    world: World, name: str, scratch: Path, count: int, number: signal.Signals
) -> Iterator[Trial]:
    """One command, stopped ``count`` times by the same signal."""
    victim, wanted, duration = world.undisturbed(name)
    draws = np.random.default_rng([SEED, number, len(name)])
    moments = (np.arange(count) + draws.uniform(0, 1, count)) / count * duration
    for moment in moments:
        folder = scratch / f"{name}-{number.name}"
        first = stopped(victim.command(), folder, float(moment), number)
        midway = first.code != 0
        lost = ""
        if number == signal.SIGTERM and first.code not in CLEAN:
            lost = f"ended with {first.code}"
        again = run(victim.command(), folder)
        if again.code:
            lost = lost or f"the same command ended with {again.code}"
        lost = lost or difference(wanted, victim.contents(folder))
        what = f"{name}: {number.name} after {moment:.3f} of {duration:.3f} s"
        yield Trial(name, what, lost, [first, again], "midway" if midway else "at the end")
        shutil.rmtree(folder)
