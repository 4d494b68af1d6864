"""Commands that are stopped, run twice at once, or shown a clock that jumps.

The same command again must end well, and leave the bytes that the undisturbed one leaves.

*kill*, *terminate*: SIGKILL and SIGTERM to the whole process group at moments spread over an
undisturbed run.  *double*: two processes at once on one run or one output folder: the second waits,
or refuses clearly.  *clock*: a command is killed, the times of all files that it left are scattered
over a century, and the same command goes on under a clock that is decades off at every look.
"""

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from process import Command, Running, run, stopped
from victims import Trial, World, difference

KILL_SEED, DOUBLE_SEED, CLOCK_SEED = 20, 23, 24
CLEAN = {0, 75, 130, -signal.SIGTERM}
"""How a command may end that is asked to stop: at its end, to be run again, or by the signal."""
BUSY = "another process"
SPAN_S = 40 * 365 * 86400


def _struck(number: signal.Signals, world: World, scratch: Path, count: int) -> Iterator[Trial]:
    """Each command, stopped ``count`` times by the same signal; it may not show a traceback."""
    for name in world.victims:
        victim, _, duration = world.undisturbed(name)
        draws = np.random.default_rng([KILL_SEED, number, len(name)])
        for moment in (np.arange(count) + draws.uniform(0, 1, count)) / count * duration:
            folder = scratch / f"{name}-{number.name}"
            first = stopped(victim.command(), folder, float(moment), number)
            unclean = number == signal.SIGTERM and first.code not in CLEAN
            lost = f"ended with {first.code}" if unclean else ""
            again, lost = world.again(name, folder, lost)
            what = f"{name}: {number.name} after {moment:.3f} of {duration:.3f} s"
            yield Trial(name, what, lost, [first, again], "midway" if first.code else "at the end")
            shutil.rmtree(folder)


kill = partial(_struck, signal.SIGKILL)
terminate = partial(_struck, signal.SIGTERM)


def double(world: World, scratch: Path, count: int) -> Iterator[Trial]:
    """The same command twice, the second a moment later."""
    for name in world.victims:
        victim, wanted, duration = world.undisturbed(name)
        draws = np.random.default_rng([DOUBLE_SEED, len(name)])
        for number in range(count):
            folder = scratch / f"double-{name}"
            delay = float(draws.uniform(0, duration)) if number else 0.0
            first = Running(victim.command(), folder)
            over = first.ended(delay)
            two = run(victim.command(), folder)
            one = first.wait() if over is None else first.end(over)
            refused, lost = [end for end in (one, two) if end.code], ""
            for end in refused:
                if end.code != 2 or BUSY not in end.sentence:
                    lost = f"ended with {end.code}: {end.sentence or end.said[-200:]!r}"
            if len(refused) == 2:
                lost = lost or "neither of them did it"
            lost = lost or difference(wanted, victim.contents(folder))
            again, lost = world.again(name, folder, lost)
            what = f"{name}: the second after {delay:.3f} of {duration:.3f} s"
            note = "the second refused" if refused else "both went through"
            yield Trial(name, what, lost, [one, two, again], note)
            shutil.rmtree(folder)


def jump() -> None:
    """Have the clock of this process and of all that it forks say a random time."""
    draws, true = random.Random(CLOCK_SEED), time.time

    def now() -> float:
        return true() + draws.uniform(-SPAN_S, SPAN_S)

    time.time = now
    time.time_ns = lambda: int(now() * 1e9)


def clock(world: World, scratch: Path, count: int) -> Iterator[Trial]:
    """``count`` kills of each command, with a clock that jumps before and after."""
    for name in world.victims:
        victim, _, duration = world.undisturbed(name)
        draws = np.random.default_rng([CLOCK_SEED, len(name)])
        for moment in draws.uniform(0, duration, count):
            folder = scratch / f"clock-{name}"
            command = Command(victim.words, before=jump)
            first = stopped(command, folder, float(moment), signal.SIGKILL)
            for path in folder.rglob("*"):
                os.utime(path, (float(draws.uniform(0, SPAN_S)),) * 2)
            again, lost = world.again(name, folder, command=command)
            what = f"{name}: killed after {moment:.3f} of {duration:.3f} s"
            yield Trial(name, what, lost, [first, again], "midway" if first.code else "at the end")
            shutil.rmtree(folder)
