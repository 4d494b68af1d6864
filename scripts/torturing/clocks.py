"""A clock that jumps by decades at every look, and files of the past and the future.

A command is killed, the times of all files that it left are scattered over a century, and the same
command goes on under a clock that says something else each time it is asked.
"""

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from process import Command, run, stopped
from trial import Trial, difference
from victims import World

SEED = 24
SPAN_S = 40 * 365 * 86400


def jump() -> None:
    """Have the clock of this process and of all that it forks say a random time."""
    draws, true = random.Random(SEED), time.time

    def now() -> float:
        return true() + draws.uniform(-SPAN_S, SPAN_S)

    time.time = now
    time.time_ns = lambda: int(now() * 1e9)


def jumping(world: World, scratch: Path, count: int) -> Iterator[Trial]:
    """``count`` kills of each command, with the clock gone mad before and after."""
    for name in world.victims:
        victim, wanted, duration = world.undisturbed(name)
        draws = np.random.default_rng([SEED, len(name)])
        for moment in draws.uniform(0, duration, count):
            folder = scratch / f"clock-{name}"
            command = Command(victim.words, before=jump)
            first = stopped(command, folder, float(moment), signal.SIGKILL)
            for path in folder.rglob("*"):
                os.utime(path, (float(draws.uniform(0, SPAN_S)),) * 2)
            again = run(command, folder)
            lost = f"ended with {again.code}" if again.code else ""
            lost = lost or difference(wanted, victim.contents(folder))
            what = f"{name}: killed after {moment:.3f} of {duration:.3f} s"
            note = "midway" if first.code else "at the end"
            yield Trial(name, what, lost, [first, again], note)
            shutil.rmtree(folder)
