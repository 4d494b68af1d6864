"""Whether figures grow: the exponent of a cost, and the trend of a level with its interval."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

BLOCKS = 12
CONFIDENCE = 0.95


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
