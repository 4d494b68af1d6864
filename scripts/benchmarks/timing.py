"""What times are compared by: sides in turns, ratios of pairs, the exponent of a cost, a trend."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

import numpy as np
from scipy import stats

T = TypeVar("T")
BLOCKS = 12
CONFIDENCE = 0.95


def clocked(work: Callable[[], object]) -> dict[str, float]:
    """Wall and processor seconds of one call, as ``seconds`` and ``cpu_seconds``."""
    started, cpu = time.perf_counter(), time.process_time()
    work()
    return {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}


def in_turns(sides: Mapping[str, Callable[[int], T]], turns: int) -> dict[str, list[T]]:
    """What each side returns for the number of each turn; every other turn runs backwards.

    So a machine that slows down slows all sides alike.
    """
    found: dict[str, list[T]] = {name: [] for name in sides}
    for turn in range(turns):
        for name in list(sides)[:: -1 if turn % 2 else 1]:
            found[name].append(sides[name](turn))
    return found


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the paired ratios."""
    return median(a / b for a, b in zip(ours, theirs, strict=True))


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """p of the least-squares fit of ``cost = c * size ** p``: 1 is linear, 2 quadratic."""
    slope, _ = np.polyfit(np.log(sizes), np.log(costs), 1)
    return float(slope)


@dataclass(frozen=True)
class Trend:
    """How a level changed over a whole span.

    Attributes:
        level: its median.
        growth: by how much the fitted line rises over the span.
        low: lower end of the 95 % interval of the growth.
        high: upper end.
    """

    level: float
    growth: float
    low: float
    high: float


def trend(at: Sequence[float], levels: Sequence[float], blocks: int = BLOCKS) -> Trend:
    """The straight line through ``levels``, seen at ascending moments ``at``.

    Neighbouring looks at one process resemble each other, which would make the interval of a plain
    fit too narrow; so the line goes through the medians of ``blocks`` stretches of equally many
    looks, each of two at least.

    Raises:
        ValueError: fewer than four looks.
    """
    if len(levels) < 4:
        raise ValueError(f"{len(levels)} looks; a trend needs at least 4")
    count = max(4, min(blocks, len(levels) // 2))
    xs = np.array([np.mean(part) for part in np.array_split(np.asarray(at, float), count)])
    ys = np.array([np.median(part) for part in np.array_split(np.asarray(levels, float), count)])
    apart = xs - xs.mean()
    slope = float(apart @ (ys - ys.mean()) / (apart @ apart))
    left = ys - ys.mean() - slope * apart
    error = float(np.sqrt(left @ left / (count - 2) / (apart @ apart)))
    span = float(at[-1] - at[0])
    reach = float(stats.t.ppf(0.5 + CONFIDENCE / 2, count - 2)) * error * span
    growth = slope * span
    return Trend(float(np.median(levels)), growth, growth - reach, growth + reach)
