"""Losses against closed forms and torch's own distributions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance
from torch import distributions as D

from medaug.models import losses


def test_gaussian_kl_is_torchs() -> None:
    mu, logvar = torch.randn(5, 3, 4), torch.randn(5, 3, 4)
    ours = losses.gaussian_kl(mu, logvar)
    theirs = D.kl_divergence(D.Normal(mu, (0.5 * logvar).exp()), D.Normal(0.0, 1.0))
    assert torch.allclose(ours, theirs.flatten(1).mean(1), atol=1e-6)
    assert torch.equal(losses.gaussian_kl(torch.zeros(2, 3), torch.zeros(2, 3)), torch.zeros(2))


@settings(max_examples=20, deadline=None)
@given(st.floats(-8, 8))
def test_adversarial_losses_are_minus_log_sigmoid(logit: float) -> None:
    value = torch.tensor([logit], dtype=torch.float32)
    p = 1 / (1 + math.exp(-logit))
    assert losses.real_loss(value).item() == pytest.approx(-math.log(p), abs=1e-4)
    assert losses.fake_loss(value).item() == pytest.approx(-math.log(1 - p), abs=1e-3)
    assert losses.hinge_real(value).item() == pytest.approx(max(0.0, 1 - logit), abs=1e-5)
    assert losses.hinge_fake(value).item() == pytest.approx(max(0.0, 1 + logit), abs=1e-5)


def test_likelihoods_are_per_sample_means() -> None:
    x, x_hat = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    assert losses.absolute_error(x_hat, x).shape == (3,)
    assert torch.allclose(losses.absolute_error(x + 0.5, x), torch.full((3,), 0.5))
    assert torch.allclose(losses.half_squared_error(x + 2, x), torch.full((3,), 2.0))
    assert torch.allclose(losses.gradient_error(x + 2, x), torch.zeros(3), atol=1e-6)
    ramp = torch.arange(4.0).expand(1, 1, 4, 4)
    assert losses.gradient_error(ramp, torch.zeros_like(ramp)).item() == pytest.approx(1.0)


def test_level_error_is_the_distance_of_the_intensities_in_the_parts_that_show() -> None:
    draws = torch.Generator().manual_seed(0)
    x_hat, x = (torch.rand(2, 1, 4, 6, generator=draws) * 2 - 1 for _ in range(2))
    layout = torch.zeros(2, 3, 4, 6)
    layout[:, 0, :, :3], layout[:, 1, :2, 3:], layout[1, 2, 2, 3:] = 1, 1, 1
    wanted = [
        np.mean(
            [
                wasserstein_distance(a[0][where].ravel(), b[0][where].ravel())
                for where in (np.s_[:, :3], np.s_[:2, 3:])  # three pixels do not count
            ]
        )
        for a, b in zip(x_hat.numpy(), x.numpy(), strict=True)
    ]
    error = losses.level_error(x_hat, x, layout)
    assert torch.allclose(error.double(), torch.tensor(wanted, dtype=torch.float64), atol=1e-6)
    moved = x.flip(-1)  # other places, and in the first part other pixels
    assert losses.level_error(x[..., [2, 1, 0, 5, 4, 3]], x, layout).max() < 1e-6
    assert losses.level_error(moved, x, layout).min() > 0.01
    assert losses.level_error(x_hat, x, torch.zeros_like(layout)).tolist() == [0, 0]


def test_mask_error_is_the_bernoulli_likelihood() -> None:
    logits, mask = torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4).sign()
    theirs = -D.Bernoulli(logits=logits).log_prob((mask + 1) / 2)
    assert torch.allclose(losses.mask_error(logits, mask), theirs.flatten(1).mean(1), atol=1e-6)


def test_draws_have_the_posterior_moments() -> None:
    torch.manual_seed(0)
    mu, logvar = torch.full((20000, 1), 2.0), torch.full((20000, 1), math.log(0.25))
    z = losses.reparametrise(mu, logvar)
    assert z.mean().item() == pytest.approx(2.0, abs=0.02)
    assert z.std().item() == pytest.approx(0.5, abs=0.02)
