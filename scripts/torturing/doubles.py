"""Two processes at once on one run or one output folder: the second waits, or refuses clearly."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from process import Running, run
from trial import Trial, difference
from victims import World

SEED = 23
BUSY = "another process"


def double(world: World, scratch: Path, count: int) -> Iterator[Trial]:
    """The same command twice, the second a moment later."""
    for name in world.victims:
        victim, wanted, duration = world.undisturbed(name)
        draws = np.random.default_rng([SEED, len(name)])
        for number in range(count):
            folder = scratch / f"double-{name}"
            delay = float(draws.uniform(0, duration)) if number else 0.0
            first = Running(victim.command(), folder)
            over = first.ended(delay)
            second = Running(victim.command(), folder)
            two = second.wait()
            one = first.wait() if over is None else first.end(over)
            refused = [end for end in (one, two) if end.code]
            lost = ""
            for end in refused:
                if end.code != 2 or BUSY not in end.sentence:
                    lost = f"ended with {end.code}: {end.sentence or end.said[-200:]!r}"
            if len(refused) == 2:
                lost = lost or "neither of them did it"
            lost = lost or difference(wanted, victim.contents(folder))
            again = run(victim.command(), folder)
            if again.code:
                lost = lost or f"afterwards it ended with {again.code}"
            lost = lost or difference(wanted, victim.contents(folder))
            what = f"{name}: the second after {delay:.3f} of {duration:.3f} s"
            note = "the second refused" if refused else "both went through"
            yield Trial(name, what, lost, [one, two, again], note)
            shutil.rmtree(folder)
