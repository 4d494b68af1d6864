"""Label-driven contrast randomisation: every tissue gets an intensity of its own, at random.

After Billot et al., SynthSeg: Segmentation of brain MRI scans of any contrast and resolution
without retraining, Medical Image Analysis 2023.  There every structure is labelled; here what no
label covers is divided by its intensity, and the texture within a tissue may stay.
"""

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.cluster import vq

from medaug.core.errors import ConfigError
from medaug.core.geometry import HU_RANGE
from medaug.transforms.scan import Scan, fitting

Texture = Literal["kept", "gaussian"]

_SAMPLED = 20_000
"""How many voxels give the percentiles and the classes of the background."""


def check_contrast(
    clusters: int,
    means: tuple[float, float] | None,
    gains: tuple[float, float],
    deviations: tuple[float, float],
    texture: str,
    strength: float,
    limits: tuple[float, float],
) -> None:
    """Refuse arguments of `randomise_contrast` that are out of range.

    Raises:
        ConfigError: naming the argument, its value and what is accepted.
    """
    if clusters < 1:
        raise ConfigError(f"clusters must be at least 1, got {clusters}")
    if texture not in get_args(Texture):
        raise ConfigError(f"texture must be kept or gaussian, got {texture!r}")
    if not 0 <= strength <= 1:
        raise ConfigError(f"strength must be from 0 to 1, got {strength}")
    ranges = {"means": means, "gains": gains, "deviations": deviations, "limits": limits}
    for name, pair in ranges.items():
        if pair is not None and not pair[0] <= pair[1]:
            raise ConfigError(f"{name} must be (low, high), got {pair}")
    for name in ("gains", "deviations"):
        if not ranges[name][0] >= 0:  # type: ignore[index]
            raise ConfigError(f"{name} must not be negative, got {ranges[name]}")


def randomise_contrast(
    mine: Scan,
    rng: np.random.Generator,
    *,
    clusters: int = 4,
    means: tuple[float, float] | None = None,
    gains: tuple[float, float] = (0.5, 1.5),
    deviations: tuple[float, float] = (0.0, 30.0),
    texture: Texture = "kept",
    strength: float = 1.0,
    limits: tuple[float, float] = HU_RANGE,
) -> Scan:
    """Give every label and every class of the background of ``mine`` a new mean intensity.

    Args:
        mine: its label map, if any, stays as it is.
        rng: where the draws come from.
        clusters: into how many classes of intensity to divide what no label covers.
        means: range of the new means, in the image's unit; None for that of the image's own
            intensities, from the 1st to the 99th percentile.
        gains: range of the factor on the texture, where that is kept.
        deviations: range of the standard deviation, where the texture is Gaussian.
        texture: ``kept``, a voxel's difference from its tissue's mean; or ``gaussian``, noise
            instead.
        strength: from 0, every mean and the kept texture's gain as they are, to 1, as drawn.
        limits: lowest and highest intensity of the result; HU unless given.

    Raises:
        ConfigError: an argument is out of range.
    """
    check_contrast(clusters, means, gains, deviations, texture, strength, limits)
    tissues = _tissues(mine, clusters)
    size, count = _sums(tissues, None), int(tissues.max()) + 1
    result = np.empty(mine.image.shape, np.float32)
    for values, changed in zip(mine.image, result, strict=True):
        low, high = means or np.percentile(_some(values), (1, 99))
        old = _sums(tissues, values) / np.maximum(size, 1)
        new = old + strength * (rng.uniform(low, high, count) - old)
        gain = 1 + strength * (rng.uniform(*gains, count) - 1)
        spread = rng.uniform(*deviations, count)
        if texture == "kept":
            changed[...] = gain.astype(np.float32)[tissues]
            changed *= values
            changed += (new - gain * old).astype(np.float32)[tissues]
        else:
            rng.standard_normal(dtype=np.float32, out=changed)
            changed *= spread.astype(np.float32)[tissues]
            changed += new.astype(np.float32)[tissues]
    np.clip(result, *limits, out=result)
    return Scan(fitting(result, mine.image.dtype), mine.label, mine.spacing, mine.known)


def _tissues(mine: Scan, clusters: int) -> npt.NDArray[np.uint16]:
    """Number the tissues from 0 (*space): classes of the background, then labels by id."""
    label = np.zeros(mine.space, np.uint8) if mine.label is None else mine.label
    background = label == 0
    tissues = np.zeros(mine.space, np.uint16)
    first = 0
    if background.any():
        values = mine.image[0][background]
        edges = _edges(_some(values), clusters)
        tissues[background] = np.searchsorted(edges.astype(np.float32), values)
        first = len(edges) + 1
    _, numbers = np.unique(label[~background], return_inverse=True)
    tissues[~background] = first + numbers
    return tissues


def _sums(
    tissues: npt.NDArray[np.uint16], values: npt.NDArray[Any] | None
) -> npt.NDArray[np.float64]:
    """Sum the values, or count the voxels, by tissue; row by row, to need little memory."""
    count = int(tissues.max()) + 1
    total = np.zeros(count)
    for row, which in enumerate(tissues):
        weights = None if values is None else values[row].ravel()
        total += np.bincount(which.ravel(), weights, count)
    return total


def _some(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Take evenly spread voxels, enough to know the distribution."""
    flat = values.ravel()
    return flat[:: max(1, len(flat) // _SAMPLED)].astype(np.float64)


def _edges(values: npt.NDArray[Any], clusters: int) -> npt.NDArray[np.float64]:
    """Divide intensities by k-means: the edges, ascending; fewer where values are few."""
    distinct = np.unique(values)
    shares = (np.arange(clusters) + 0.5) / clusters
    guess = np.unique(np.quantile(distinct, shares, method="nearest"))
    if len(guess) == 1:
        return np.empty(0)
    found, _ = vq.kmeans(values[:, None], guess[:, None])
    centres = np.sort(found[:, 0])
    return (centres[1:] + centres[:-1]) / 2
