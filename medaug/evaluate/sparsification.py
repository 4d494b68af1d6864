"""Whether the largest spread lies where the largest error does: rank correlation, sparsification.

Ilg et al. 2018, "Uncertainty Estimates and Multi-Hypotheses Networks for Optical Flow".
"""

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Values = npt.NDArray[np.float64]

STEPS = 50
"""Shares of the pixels that are left out: 0, 1/50 ... 49/50."""


def rank_correlation(spread: Values, error: Values) -> float:
    """Spearman's coefficient of two arrays (m,); not a number where either is constant."""
    a, b = rankdata(spread), rankdata(error)
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt(np.square(a).sum() * np.square(b).sum()))
    return float((a * b).sum() / scale) if scale else float("nan")


def remaining(error: Values, order_by: Values, steps: int = STEPS) -> Values:
    """Mean error (steps,) once the pixels with the largest ``order_by`` are left out, over that
    of all pixels; the expected value where the order leaves ties open.

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
    """Area between the curve by ``spread`` and the one by the error itself, and the same of a
    random order: 0 is a perfect order.

    Args:
        error: at least 0, (m,).
        spread: (m,).
        steps: see ``remaining``.

    Returns:
        Both areas; not a number twice where there is no error.
    """
    if not error.any():
        return float("nan"), float("nan")
    best = remaining(error, error, steps)
    return float((remaining(error, spread, steps) - best).mean()), float((1 - best).mean())
