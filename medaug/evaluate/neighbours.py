"""Precision, recall, density and coverage from nearest neighbours in a feature space."""

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 1000


@dataclass(frozen=True)
class Cover:
    """How two sets of features lie in each other.

    Attributes:
        precision: share of fakes inside the ball of some real one (Kynkaanniemi et al. 2019).
        recall: share of reals inside the ball of some fake.
        density: real balls around a fake, over k; may exceed 1 (Naeem et al. 2020).
        coverage: share of reals whose ball holds a fake.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def cover(real: Tensor, fake: Tensor, k: int = 5) -> Cover:
    """Compare features (n, d) and (m, d); a ball reaches to the k-th neighbour, itself excluded."""
    middle = real.double().mean(0)
    real, fake = (real.double() - middle).float(), (fake.double() - middle).float()
    real_radius, fake_radius = radii(real, k), radii(fake, k)
    inside, counts, covered = [], [], torch.zeros(len(real), dtype=torch.bool)
    for block in fake.split(BLOCK):
        within = torch.cdist(block, real) < real_radius
        inside.append(within.any(1))
        counts.append(within.sum(1))
        covered |= within.any(0).cpu()
    found = [(torch.cdist(block, fake) < fake_radius).any(1) for block in real.split(BLOCK)]
    return Cover(
        precision=torch.cat(inside).double().mean().item(),
        recall=torch.cat(found).double().mean().item(),
        density=torch.cat(counts).double().mean().item() / k,
        coverage=covered.double().mean().item(),
    )


def radii(x: Tensor, k: int) -> Tensor:
    """Distance of each of ``x`` (n, d) to its k-th nearest other, (n,)."""
    return torch.cat([torch.cdist(rows, x).kthvalue(k + 1).values for rows in x.split(BLOCK)])
