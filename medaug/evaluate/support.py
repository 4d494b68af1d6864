"""Alpha-precision and beta-recall (Alaa et al. 2022): how typical, and how much of the typical.

The alpha-support of a set is the ball about its mean that holds the share alpha of it.  The paper
first maps features onto a sphere by a trained network; here the mean of the given features is the
centre, the "naive" form of its authors, so that nothing has to be trained and repeated.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medaug.evaluate.neighbours import BLOCK, distances

SHARES = np.linspace(0, 1, 30)

Row = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Typical:
    """How far out each slice lies, from which both curves follow.

    Attributes:
        rank: share of the reals that lie farther in than each fake, (m,); 1 beyond all of them.
        reached: share of the fakes that lie farther in than the one that reaches each real slice,
            (n,); above 1 where none does.
    """

    rank: Row
    reached: Row

    def precision(self) -> Row:
        """Share of fakes in the real alpha-support, for each of ``SHARES``."""
        return (self.rank[:, None] <= SHARES).mean(0)

    def recall(self) -> Row:
        """Share of reals reached by the fakes' beta-support, for each of ``SHARES``."""
        return (self.reached[:, None] <= SHARES).mean(0)


def integrated(curve: Row) -> float:
    """1 - 2 times the mean distance of a curve (30,) from the diagonal; 1 at best, 0 at worst."""
    return float(1 - np.abs(SHARES - curve).sum() / SHARES.sum())


def weighted(places: Row, weights: Row) -> float:
    """``integrated`` of the curve of ``rank`` or ``reached`` (n,), each counted so many times."""
    return integrated(weights @ (places[:, None] <= SHARES) / weights.sum())


def typical(real: Tensor, fake: Tensor, radius: Tensor) -> Typical:
    """Compare features (n, d) and (m, d).

    A real slice is reached where its nearest fake lies within its ``radius`` (n,), the distance to
    the nearest other real one.
    """
    real, fake = real.double(), fake.double()
    inner = (real - real.mean(0)).norm(dim=1).sort().values
    rank = torch.searchsorted(inner, (fake - real.mean(0)).norm(dim=1)) / len(inner)
    spread = (fake - fake.mean(0)).norm(dim=1)
    order = torch.searchsorted(spread.sort().values, spread) / len(spread)
    reached = []
    for start in range(0, len(real), BLOCK):
        nearest = distances(real[start : start + BLOCK], fake).min(1)
        out = order[nearest.indices]
        reached.append(torch.where(nearest.values <= radius[start : start + BLOCK], out, 2.0))
    return Typical(rank.double().numpy(), torch.cat(reached).double().numpy())
