"""Structural similarity against another library and at its extremes."""

import numpy as np
import pytest
import torch
from monai.metrics.regression import MultiScaleSSIMMetric
from scipy.ndimage import correlate1d

from medaug.core.errors import ConfigError
from medaug.evaluation.metrics.ms_ssim import (
    C1,
    C2,
    SIGMA,
    WEIGHTS,
    layout,
    ms_ssim,
)


def pictures(count: int, side: int, seed: int) -> torch.Tensor:
    draws = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, side // 4, side // 4, generator=draws)
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")


def test_equal_pictures_are_one_and_others_less() -> None:
    x, y = pictures(4, 32, 0), pictures(4, 32, 1)
    assert torch.allclose(ms_ssim(x, x), torch.ones(4, dtype=torch.float64))
    assert torch.all(ms_ssim(x, y) < 0.9)
    assert torch.allclose(ms_ssim(x, y), ms_ssim(y, x))


def test_a_little_noise_costs_less_than_much() -> None:
    x = pictures(4, 64, 0)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    little, much = (ms_ssim(x, (x + s * noise).clamp(0, 1)).mean() for s in (0.02, 0.3))
    assert 1 > little > much


def test_it_agrees_with_monai_where_five_scales_fit() -> None:
    x = pictures(2, 176, 0)
    y = x * 0.8 + pictures(2, 176, 3) * 0.2
    theirs = MultiScaleSSIMMetric(
        spatial_dims=2, data_range=1.0, kernel_size=11, kernel_sigma=SIGMA, weights=WEIGHTS
    )
    assert torch.allclose(ms_ssim(x, y), theirs(x, y).flatten().double(), atol=1e-4)


def directly(x: np.ndarray, y: np.ndarray) -> float:
    """The formula for two pictures (s, s), by scipy's correlation."""
    scales, size = layout(len(x))
    weights = np.array(WEIGHTS[:scales]) / sum(WEIGHTS[:scales])
    half, result = size // 2, 1.0
    bell = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * SIGMA**2))
    bell /= bell.sum()

    def blur(z: np.ndarray) -> np.ndarray:
        return correlate1d(correlate1d(z, bell, 0), bell, 1)[half:-half, half:-half]

    for scale, weight in enumerate(weights):
        u, v = blur(x), blur(y)
        contrast = 2 * (blur(x * y) - u * v) + C2
        contrast /= blur(x * x) - u**2 + blur(y * y) - v**2 + C2
        full = contrast * (2 * u * v + C1) / (u**2 + v**2 + C1)
        result *= max((full if scale == scales - 1 else contrast).mean(), 0) ** weight
        if scale < scales - 1:
            x, y = (z.reshape(len(z) // 2, 2, -1, 2).mean((1, 3)) for z in (x, y))
    return result


@pytest.mark.parametrize("side", [28, 64])
def test_it_is_its_formula_also_where_contrast_is_negative(side: int) -> None:
    draws = torch.Generator().manual_seed(0)
    corners = torch.rand(60, 1, 4, 4, generator=draws).pow(16).double()
    x, y = torch.nn.functional.interpolate(corners, size=(side, side), mode="bilinear").split(30)
    expected = [directly(a, b) for a, b in zip(x[:, 0].numpy(), y[:, 0].numpy(), strict=True)]
    assert ms_ssim(x, y).tolist() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("side", "expected"),
    [(28, (3, 7)), (32, (3, 7)), (64, (3, 11)), (128, (4, 11)), (256, (5, 11))],
)
def test_every_side_gets_scales_that_fit(side: int, expected: tuple[int, int]) -> None:
    scales, window = layout(side)
    assert (scales, window) == expected
    assert side > (window - 1) * 2 ** (scales - 1)


def test_pictures_too_small_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        layout(16)
    assert str(caught.value) == "structural similarity needs pictures of 25 pixels and more, got 16"
