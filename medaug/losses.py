"""Losses as pure functions on logits; each returns one value a sample, shape (b,), unless told.

Likelihoods and divergences are means over dimensions, so that their weights survive a change of
size.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def per_sample(values: Tensor) -> Tensor:
    """The mean over everything but the batch, in float32."""
    return values.float().reshape(len(values), -1).mean(1)


def absolute_error(x_hat: Tensor, x: Tensor) -> Tensor:
    """Mean absolute difference."""
    return per_sample((x_hat - x).abs())


def gradient_error(x_hat: Tensor, x: Tensor) -> Tensor:
    """Mean absolute difference of the differences between neighbours, along both axes."""
    difference = (x_hat - x).float()
    return per_sample(difference.diff(dim=-1).abs()) + per_sample(difference.diff(dim=-2).abs())


def half_squared_error(x_hat: Tensor, x: Tensor) -> Tensor:
    """Half the mean squared difference: a unit-variance Gaussian in nats per dimension."""
    return per_sample(0.5 * (x_hat.float() - x.float()).square())


def mask_error(logits: Tensor, mask: Tensor) -> Tensor:
    """Binary cross-entropy in nats per pixel of masks in [-1, 1] under ``logits``."""
    target = (mask.float() + 1) / 2
    return per_sample(F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none"))


def gaussian_kl(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL of N(mu, exp(logvar)) from N(0, I), in nats per code dimension."""
    mu, logvar = mu.float(), logvar.float()
    return per_sample(0.5 * (mu.square() + logvar.exp() - 1 - logvar))


def real_loss(logits: Tensor) -> Tensor:
    """-log D(x) in nats."""
    return per_sample(F.softplus(-logits.float()))


def fake_loss(logits: Tensor) -> Tensor:
    """-log(1 - D(x)) in nats."""
    return per_sample(F.softplus(logits.float()))


def hinge_real(logits: Tensor) -> Tensor:
    """max(0, 1 - D(x)), over patches."""
    return per_sample(F.relu(1 - logits.float()))


def hinge_fake(logits: Tensor) -> Tensor:
    """max(0, 1 + D(x)), over patches."""
    return per_sample(F.relu(1 + logits.float()))


def reparametrise(mu: Tensor, logvar: Tensor) -> Tensor:
    """A draw of N(mu, exp(logvar)) through which gradients flow."""
    return mu + (0.5 * logvar).exp() * torch.randn_like(mu)
