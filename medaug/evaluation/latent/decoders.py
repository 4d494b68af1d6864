"""Treat a trained model as a density over pictures, for likelihoods and AIS.

The latent variable is the noise, which is N(0, I) for every model: a prior that maps noise to codes
is part of the decoder.  The encoder's q is used where noise and code are the same.
"""

import math

import torch
from torch import Tensor

from medaug.evaluation.latent.likelihood import Density, Posterior, fit_sigma, gaussian
from medaug.models.autoencoder import Autoencoder
from medaug.models.base import Model
from medaug.models.priors import GaussianPrior


def density(model: Model, sigma: float, cond: Tensor | None = None) -> Density:
    """p(x | noise) = N(decode(prior(noise)), sigma^2 I) on pictures in [-1, 1].

    Args:
        model: in evaluation mode.
        sigma: deviation of a pixel; see ``sigma_of``.
        cond: rows (b, k), or layouts (b, k, h, w), that go with the pictures, where the model is
            conditioned.
    """
    shape = model.noise_shape

    def decode(noise: Tensor) -> Tensor:
        told = _repeated(cond, len(noise))
        return model.decode(model.prior(noise.unflatten(1, shape), told), told)

    return gaussian(decode, sigma, math.prod(shape), _posterior(model, cond))


def _repeated(cond: Tensor | None, n: int) -> Tensor | None:
    return None if cond is None else cond.repeat(n // len(cond), *[1] * (cond.ndim - 1))


def _posterior(model: Model, cond: Tensor | None) -> Posterior | None:
    if not isinstance(model, Autoencoder) or not isinstance(model.code, GaussianPrior):
        return None
    if not model.stochastic:
        return None

    def posterior(x: Tensor) -> tuple[Tensor, Tensor]:
        told = _repeated(cond, len(x))
        return model.encode(x, told)

    return posterior


@torch.no_grad()
def sigma_of(model: Autoencoder, x: Tensor, cond: Tensor | None = None) -> float:
    """The deviation that makes validation pictures most probable around their reconstructions."""
    return fit_sigma(x, model.decode(model.encode(x, cond)[0], cond))
