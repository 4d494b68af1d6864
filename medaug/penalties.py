"""Gradient penalties, computed in float32 whatever the precision around them."""

from collections.abc import Callable

import torch
from torch import Tensor


def gradient_penalty(score: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """(|grad score(u)| - 1)^2 at one u on the line from each real to its fake, shape (b,).

    Gulrajani et al. 2017, Eq. 3.  The norm is over all dimensions of a sample; ``score`` must
    treat samples apart, so no batch statistics.

    Args:
        score: images (b, ...) to scores (b,).
        real: images (b, ...); no gradient flows to them.
        fake: images of the same shape; no gradient flows to them.
    """
    real, fake = real.detach().float(), fake.detach().float()
    share = torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device)
    square = squared_slope(score, real + share * (fake - real))
    return ((square + 1e-12).sqrt() - 1).square()


def squared_slope(score: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """|grad score(u)|^2 at ``at``, shape (b,).

    On real images it is R1, on fakes R2 of Mescheder, Geiger and Nowozin 2018, both weighted by
    gamma / 2.

    Args:
        score: images (b, ...) to scores (b,).
        at: images (b, ...); no gradient flows to them.
    """
    with torch.autocast(at.device.type, enabled=False):
        u = at.detach().float().requires_grad_()
        (gradient,) = torch.autograd.grad(score(u).sum(), u, create_graph=True)
        return gradient.flatten(1).square().sum(1)
