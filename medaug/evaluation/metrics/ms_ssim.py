"""Compute multi-scale structural similarity (Wang et al. 2003) of pairs of pictures.

Pictures too small for the standard five scales of an 11-pixel window take fewer and smaller ones;
the weights are the first of the standard ones, scaled to sum to 1.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from medaug.core.errors import ConfigError

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SIGMA = 1.5
BLOCK = 100
C1, C2 = 0.01**2, 0.03**2
LAYOUTS = ((161, 5, 11), (81, 4, 11), (41, 3, 11), (25, 3, 7))


def layout(side: int) -> tuple[int, int]:
    """Choose how many scales and which window fit a side: side > (window - 1) 2^(scales - 1).

    Raises:
        ConfigError: the pictures are too small for any.
    """
    for least, scales, window in LAYOUTS:
        if side >= least:
            return scales, window
    raise ConfigError(f"structural similarity needs pictures of 25 pixels and more, got {side}")


def ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """Similarity (b,) of pictures (b, 1, s, s) in [0, 1]; 1 where they are equal."""
    scales, size = layout(x.shape[-1])
    weights = torch.tensor(WEIGHTS[:scales], dtype=torch.float64)
    weights = weights / weights.sum()
    x, y = x.double(), y.double()
    result = torch.ones(len(x), dtype=torch.float64)
    for scale, weight in enumerate(weights.tolist()):
        similarity, contrast = _ssim(x, y, size)
        last = scale == scales - 1
        result *= (similarity if last else contrast).clamp_min(0).pow(weight)
        if not last:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return result


def _ssim(x: Tensor, y: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Similarity and its contrast-structure part, means over positions (b,)."""
    offset = torch.arange(size, dtype=torch.float64) - size // 2
    bell = (-(offset**2) / (2 * SIGMA**2)).exp()
    line = (bell / bell.sum())[None, None, None]

    def blur(z: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(z, line), line.mT)

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    contrast = (2 * covariance + C2) / (var_x + var_y + C2)
    full = contrast * (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    return full.flatten(1).mean(1), contrast.flatten(1).mean(1)


def similarities(pictures: Callable[[Tensor], Tensor], first: Tensor, second: Tensor) -> Tensor:
    """Similarity (p,) of pairs of pictures.

    Args:
        pictures: takes numbers (b,) to pictures (b, s, s) in [0, 1].
        first: numbers (p,).
        second: numbers (p,) of the pictures that they are compared with.
    """
    parts = zip(first.split(BLOCK), second.split(BLOCK), strict=True)
    return torch.cat([ms_ssim(pictures(i)[:, None], pictures(j)[:, None]) for i, j in parts])
