"""Find the nearest real slices of other slices, patient by patient, and compare distances.

Distances are root mean squares over features, in float64.  Slices of one patient are alike, so a
set of references is as large as its patients are many: where training and held-out patients differ
in number, the figures are what as many of each would give.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[np.float64]

BLOCK = 500


def distances(a: Tensor, b: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Root mean square differences of the rows of ``a`` (n, d) and ``b`` (m, d), in row blocks.

    Yields which rows of ``a``, and float64 (rows, m).
    """
    middle = b.double().mean(0)
    b = b.double() - middle
    square = b.square().sum(1)
    for start in range(0, len(a), BLOCK):
        rows = a[start : start + BLOCK].double() - middle
        total = rows.square().sum(1)[:, None] + square - 2 * rows @ b.T
        yield slice(start, start + len(rows)), total.clamp_min_(0).div_(b.shape[1]).sqrt_()


def by_case(a: Tensor, b: Tensor, cases: Sequence[str], own: Sequence[str] | None = None) -> Array:
    """Distance of each row of ``a`` (n, d) to the nearest row of ``b`` (m, d) in each case.

    Args:
        a: features (n, d).
        b: references.
        cases: case of each reference, (m,).
        own: case of each row of ``a``, which is left out, as infinity.

    Returns:
        (n, different cases), cases in alphabetical order.
    """
    names, number = np.unique(np.array(cases), return_inverse=True)
    index = torch.from_numpy(number)
    found = torch.full((len(a), len(names)), math.inf, dtype=torch.float64)
    for rows, apart in distances(a, b):
        part = found[rows]
        found[rows] = part.scatter_reduce(1, index.expand(len(part), -1), apart, "amin")
    result = found.numpy()
    if own is not None:
        result[np.array(own)[:, None] == names[None]] = math.inf
    return result


def expected(minima: Array, count: int) -> Array:
    """What the nearest distance is on average over all choices of ``count`` cases, (n,).

    Of k cases in order of distance, the i-th is the nearest chosen one in
    C(k - i, count - 1) of C(k, count) choices.  ``minima`` is (n, cases); infinite ones are no
    cases, so that k may differ from row to row.
    """
    ordered = np.sort(minima, 1)
    there = np.isfinite(ordered).sum(1)
    if not 1 <= count <= there.min():
        raise ValueError(f"{count} of {there.min()} cases cannot be chosen")
    result = np.empty(len(ordered))
    for k in np.unique(there).tolist():
        weights = [math.comb(k - i, count - 1) / math.comb(k, count) for i in range(1, k + 1)]
        result[there == k] = ordered[there == k, :k] @ np.array(weights)
    return result


def closer(train: Array, heldout: Array) -> float:
    """Share of slices closer to training, as equal numbers of patients would have it.

    With T of n slices closest to one of P training patients and H to one of Q held-out ones, the
    share is (T / P) / (T / P + H / Q): 1/2 where no patient is closer than another, and 1 where
    every slice is a copy.  At P = Q it is T / n.

    Args:
        train: distances to P training patients (n, P); infinite ones are no patients.
        heldout: to Q held-out ones (n, Q), likewise.
    """
    mine = (train.min(1) < heldout.min(1)).mean()
    patients = [np.isfinite(side[0]).sum() for side in (train, heldout)]
    a, b = mine / patients[0], (1 - mine) / patients[1]
    return float(a / (a + b))


def alone(train: Tensor) -> Tensor:
    """Distance (m,) of each row (m, d) to the nearest other one."""
    found = torch.empty(len(train), dtype=torch.float64)
    for rows, apart in distances(train, train):
        apart[torch.arange(len(apart)), torch.arange(rows.start, rows.stop)] = math.inf
        found[rows] = apart.amin(1)
    return found


def authentic(
    a: Tensor,
    train: Tensor,
    cases: Sequence[str],
    other: Tensor,
    own: Sequence[str] | None = None,
) -> npt.NDArray[np.bool_]:
    """Which rows of ``a`` (n, d) are new rather than noisy copies (Alaa et al. 2022, sec. 4.3).

    A row is new where it is farther from the nearest training row (m, d) than that row is from
    its own nearest other, which ``alone`` gives.  With ``own``, training rows of a row's own case
    are left out.
    """
    new = torch.empty(len(a), dtype=torch.bool)
    names = np.array(cases)
    for rows, apart in distances(a, train):
        if own is not None:
            apart[torch.from_numpy(np.array(own[rows])[:, None] == names)] = math.inf
        nearest = apart.min(1)
        new[rows] = nearest.values > other[nearest.indices]
    return new.numpy()
