"""Measure whether stated uncertainty is right: intervals, mask votes, and where the spread lies.

Rank correlation and sparsification are those of Ilg et al. 2018, "Uncertainty Estimates and
Multi-Hypotheses Networks for Optical Flow".
"""

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata
from scipy.stats import t as student

Values = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

BINS = 10
STEPS = 50
"""Shares of the pixels that are left out: 0, 1/50 ... 49/50."""


def covered(draws: Values, real: Values, level: float) -> Flags:
    """Whether each real value lies in the prediction interval that its draws give.

        mean +- t(k - 1, (1 + level) / 2) s sqrt(1 + 1/k)

    is exact at any number of draws where they and the real value are draws of one normal
    distribution, while quantiles of few draws are too narrow.

    Args:
        draws: (k, m), k of 2 and more.
        real: (m,).
        level: share of intervals that should hold, such as 0.9.
    """
    k = len(draws)
    half = student.ppf((1 + level) / 2, k - 1) * np.sqrt(1 + 1 / k) * draws.std(0, ddof=1)
    held: Flags = np.abs(real - draws.mean(0)) <= half
    return held


def gaps(probability: Values, true: Flags, bins: int = BINS) -> Values:
    """Sum of probability less truth (bins,) over what falls into each of equal bins of [0, 1].

    The absolute values, summed and divided by how many there are, are the expected calibration
    error (Naeini, Cooper and Hauskrecht 2015).
    """
    place = np.minimum((probability * bins).astype(np.int64), bins - 1)
    said, was = (np.bincount(place, part, bins) for part in (probability, true))
    return np.asarray(said - was, np.float64)


def energy_distance(drawn: Flags, real: Flags) -> float:
    """Squared generalised energy distance of masks (k, m) and (r, m), Kohl et al. 2018.

        2 E d(S, Y) - E d(S, S') - E d(Y, Y'),   d = 1 - intersection over union

    over all pairs, each with itself included; two empty masks are equal, d = 0.
    """
    return float(
        2 * _apart(drawn, real).mean() - _apart(drawn, drawn).mean() - _apart(real, real).mean()
    )


def _apart(a: Flags, b: Flags) -> Values:
    one, other = a.astype(np.float64), b.astype(np.float64)
    both = one @ other.T
    either = one.sum(1)[:, None] + other.sum(1) - both
    share = np.divide(both, either, out=np.ones_like(both), where=either > 0)
    return np.asarray(1 - share)


def rank_correlation(spread: Values, error: Values) -> float:
    """Spearman's coefficient of two arrays (m,); not a number where either is constant."""
    a, b = rankdata(spread), rankdata(error)
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt(np.square(a).sum() * np.square(b).sum()))
    return float((a * b).sum() / scale) if scale else float("nan")


def remaining(error: Values, order_by: Values, steps: int = STEPS) -> Values:
    """Mean error left (steps,) without the pixels of the largest ``order_by``, over that of all.

    Where the order leaves ties open, it is the expected value.

    Args:
        error: at least 0 and not 0 throughout, (m,).
        order_by: (m,).
        steps: step j leaves out the share j / steps, rounded down to whole pixels.
    """
    _, tied, count = np.unique(order_by, return_inverse=True, return_counts=True)
    expected = (np.bincount(tied, error) / count)[tied]
    kept = np.cumsum(expected[np.argsort(order_by, kind="stable")])
    left = len(error) - np.arange(steps) * len(error) // steps
    curve: Values = kept[left - 1] / left / error.mean()
    return curve


def sparsification_error(error: Values, spread: Values, steps: int = STEPS) -> tuple[float, float]:
    """Areas above the sparsification curve of the error itself: 0 is a perfect order.

    Args:
        error: at least 0, (m,).
        spread: (m,).
        steps: of the curves.

    Returns:
        The area up to the curve of ``spread``, and up to that of a random order; not a number
        twice where there is no error.
    """
    if not error.any():
        return float("nan"), float("nan")
    best = remaining(error, error, steps)
    return float((remaining(error, spread, steps) - best).mean()), float((1 - best).mean())
