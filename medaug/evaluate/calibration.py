"""Whether intervals hold as often as they say, and masks are as sure as they are right."""

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

Values = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

BINS = 10


def covered(draws: Values, real: Values, level: float) -> Flags:
    """Whether each real value lies in the prediction interval that its draws give.

        mean +- t(k - 1, (1 + level) / 2) s sqrt(1 + 1/k)

    is exact at any number of draws where they and the real value are draws of one normal
    distribution, while quantiles of few draws are too narrow.

    Args:
        draws: (k, m), k of 2 and more.
        real: (m,).
        level: share that is to hold, such as 0.9.
    """
    k = len(draws)
    half = student.ppf((1 + level) / 2, k - 1) * np.sqrt(1 + 1 / k) * draws.std(0, ddof=1)
    held: Flags = np.abs(real - draws.mean(0)) <= half
    return held


def gaps(probability: Values, true: Flags, bins: int = BINS) -> Values:
    """Sum of probability less truth (bins,) over what falls into each of equal bins of [0, 1]."""
    place = np.minimum((probability * bins).astype(np.int64), bins - 1)
    said, was = (np.bincount(place, part, bins) for part in (probability, true))
    return np.asarray(said - was, np.float64)


def calibration_error(probability: Values, true: Flags, bins: int = BINS) -> float:
    """Expected calibration error (Naeini, Cooper and Hauskrecht 2015) of probabilities (m,).

    The mean gap between the probability and how often it is right, over equal bins of [0, 1],
    weighted by what falls into each; not a number where there is nothing.
    """
    return float(np.abs(gaps(probability, true, bins)).sum() / len(true)) if len(true) else np.nan


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
