"""Losses and gradient penalties as pure functions; each gives (b,), one value a sample, or says so.

Likelihoods and divergences are means over dimensions, so that their weights survive a change of
size.  Adversarial losses are written on logits that are large for real images; the relativistic
pair compares a fake with the real image at its side, the others look at one image.  Gradient
penalties are computed in float32 whatever the precision around them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from medaug.core.errors import ConfigError

FEWEST = 4
"""Pixels of a part of a layout below which its level is not compared."""


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


def level_error(x_hat: Tensor, x: Tensor, layout: Tensor) -> Tensor:
    """1-Wasserstein distance of the intensities in each part of a layout, mean over its parts.

    It compares the two sets of values, wherever in the part they lie.

    Args:
        x_hat: intensities (b, c, h, w) in [-1, 1].
        x: what they should be.
        layout: the parts (b, k, h, w), one-hot, or zero in all where there is none; parts of
            fewer than 4 pixels are left out.
    """
    inside, part = layout.float().max(1)
    ids = torch.where(inside > 0, part + 1, 0).flatten(1)
    apart = 4 * ids[:, None]  # so that sorting keeps the parts together
    drawn = (x_hat.float().flatten(2) + apart).sort(-1).values
    real = (x.float().flatten(2) + apart).sort(-1).values
    gap = (drawn - real).abs().mean(1)
    sums = gap.new_zeros(len(x), layout.shape[1] + 1)
    pixels = sums.scatter_add(1, ids, torch.ones_like(gap))[:, 1:]
    sums = sums.scatter_add(1, ids.sort(-1).values, gap)[:, 1:]
    shown = (pixels >= FEWEST).float()
    return (sums / pixels.clamp_min(1) * shown).sum(1) / shown.sum(1).clamp_min(1)


def half_squared_error(x_hat: Tensor, x: Tensor) -> Tensor:
    """Half the mean squared difference: a unit-variance Gaussian in nats per dimension."""
    return per_sample(0.5 * (x_hat.float() - x.float()).square())


def mask_error(logits: Tensor, mask: Tensor) -> Tensor:
    """Binary cross-entropy in nats per pixel of masks, or shares, in [-1, 1] under ``logits``."""
    target = (mask.float() + 1) / 2
    return per_sample(F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none"))


def gaussian_kl(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL of N(mu, exp(logvar)) from N(0, I), in nats per code dimension."""
    mu, logvar = mu.float(), logvar.float()
    return per_sample(0.5 * (mu.square() + logvar.exp() - 1 - logvar))


def reparametrise(mu: Tensor, logvar: Tensor) -> Tensor:
    """A draw of N(mu, exp(logvar)) through which gradients flow."""
    return mu + (0.5 * logvar).exp() * torch.randn_like(mu)


def imq_mmd(codes: Tensor, prior: Tensor) -> Tensor:
    """Squared MMD of two batches of codes (b, d) under inverse multiquadratics, a scalar.

    Tolstikhin et al. 2018: kernels C / (C + distance^2) with C = 2 d s summed over seven scales
    s; unbiased within each batch.  It may be negative.
    """
    codes, prior = codes.float().flatten(1), prior.float().flatten(1)
    count, dim = codes.shape
    apart = 1 - torch.eye(count, device=codes.device)
    total = codes.new_zeros(())
    within = [torch.cdist(side, side).square() * apart for side in (codes, prior)]
    across = torch.cdist(codes, prior).square()
    for scale in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0):
        c = 2.0 * dim * scale
        for distance in within:
            total = total + (apart * c / (c + distance)).sum() / (count * (count - 1))
        total = total - 2 * (c / (c + across)).mean()
    return total


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


@dataclass(frozen=True)
class AdversarialLoss:
    """The objectives of a discriminator and of a generator.

    Attributes:
        discriminator_loss: logits on real and on fake images to named terms (b,).
        generator_loss: logits on fakes, and on real images where ``paired``, to values (b,).
        paired: whether ``generator_loss`` looks at the real images.
    """

    discriminator_loss: Callable[[Tensor, Tensor], dict[str, Tensor]]
    generator_loss: Callable[[Tensor, Tensor | None], Tensor]
    paired: bool = False


def _separate(real: Callable[[Tensor], Tensor], fake: Callable[[Tensor], Tensor]) -> Callable:
    return lambda on_real, on_fake: {"real": real(on_real), "fake": fake(on_fake)}


def _margin(higher: Tensor, lower: Tensor | None) -> Tensor:
    assert lower is not None
    return per_sample(F.softplus((lower - higher).float()))


ADVERSARIAL_LOSSES = {
    "logistic": AdversarialLoss(
        _separate(real_loss, fake_loss), lambda fake, real: real_loss(fake)
    ),
    "saturating": AdversarialLoss(
        _separate(real_loss, fake_loss), lambda fake, real: -fake_loss(fake)
    ),
    "hinge": AdversarialLoss(
        _separate(hinge_real, hinge_fake), lambda fake, real: -per_sample(fake)
    ),
    "wasserstein": AdversarialLoss(
        _separate(lambda on_real: -per_sample(on_real), per_sample),
        lambda fake, real: -per_sample(fake),
    ),
    "relativistic": AdversarialLoss(
        lambda on_real, on_fake: {"margin": _margin(on_real, on_fake)},
        _margin,
        paired=True,
    ),
}
"""Goodfellow et al. 2014 (logistic: the non-saturating form), Lim and Ye 2017, Arjovsky et al.
2017, Jolicoeur-Martineau 2019 in the paired form of Huang et al. 2024 (R3GAN)."""


def adversarial_loss(name: str) -> AdversarialLoss:
    """The adversarial loss called ``name``.

    Raises:
        ConfigError: no such loss.
    """
    if name not in ADVERSARIAL_LOSSES:
        known = ", ".join(ADVERSARIAL_LOSSES)
        raise ConfigError(f"config model.adversarial_loss: {name!r} is not known (known: {known})")
    return ADVERSARIAL_LOSSES[name]


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
