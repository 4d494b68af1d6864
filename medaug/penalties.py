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
    with torch.autocast(real.device.type, enabled=False):
        real, fake = real.detach().float(), fake.detach().float()
        share = torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device)
        between = (real + share * (fake - real)).requires_grad_()
        (gradient,) = torch.autograd.grad(score(between).sum(), between, create_graph=True)
        return ((gradient.flatten(1).square().sum(1) + 1e-12).sqrt() - 1).square()
