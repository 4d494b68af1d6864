"""CutMix for segmentation: a box of another case, image and label map alike.

Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features,
ICCV 2019.  There the classes are mixed by area; here every voxel brings its own label.
"""

import numpy as np

from medaug.core.errors import ConfigError
from medaug.transforms.scan import Region, Scan, put


def box(space: tuple[int, ...], rng: np.random.Generator, alpha: float = 1.0) -> Region:
    """Draw a random box (*space) as the paper does.

    The share of voxels that stays is drawn from Beta(alpha, alpha).  The box has the proportions
    of the whole and its centre anywhere; what sticks out is cut off.  An axis with a single voxel
    is not divided.

    Raises:
        ConfigError: alpha is not above 0.
    """
    if not alpha > 0:
        raise ConfigError(f"alpha must be above 0, got {alpha}")
    divided = [n for n in space if n > 1]
    edge = (1 - rng.beta(alpha, alpha)) ** (1 / max(len(divided), 1))
    region = np.zeros(space, bool)
    spans = []
    for n in space:
        if n == 1:
            spans.append(slice(None))
            continue
        middle, half = rng.uniform(0, n), edge * n / 2
        spans.append(slice(max(0, round(middle - half)), min(n, round(middle + half))))
    region[tuple(spans)] = True
    return region


def cutmix(mine: Scan, other: Scan, rng: np.random.Generator, *, alpha: float = 1.0) -> Scan:
    """Put a random box of ``other`` into ``mine``, image and label map alike.

    Args:
        mine: stays as it is.
        other: of the same shape and channels.
        rng: where the draws come from.
        alpha: the share of voxels that stays is drawn from Beta(alpha, alpha); above 0.

    Raises:
        ConfigError: alpha is not above 0, or shapes, channels or label maps do not fit.
    """
    return put(mine, other, box(mine.space, rng, alpha))
