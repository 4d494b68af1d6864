"""Take radiomics features: the grey values of a slice and how they neighbour each other.

First-order statistics, grey-level co-occurrence (Haralick et al. 1973) and rotation-invariant
local binary patterns (Ojala et al. 2002) after the definitions of the Image Biomarker
Standardisation Initiative (Zwanenburg et al. 2020), all from histograms of whole HU inside the
body, and therefore exact.
"""

import hashlib

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medaug.core.modality import CT, Modality
from medaug.core.types import HU
from medaug.evaluation.features.extractor import blocks

LEVELS = 16
"""Grey levels of the co-occurrence matrix, equally wide over the window."""
BINS = 32
"""Equally wide parts of the window, for the first-order entropy."""
AIR = 0.025
"""Share of the window above its foot that is still air."""
MIDDLES = {"CT": ((-150, -30), (0, 150)), "MR": ((100, 400), (400, 700))}
"""Bands whose medians are taken: fat and soft tissue, and what is dark and medium in MR."""
OFFSETS = ((0, 1), (1, 0), (1, 1), (1, -1))
RING = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
STEPS = 2048
"""Jumps from pixel to pixel are counted up to this, HU."""
VERSION = 1

FIRST_ORDER = (
    *("inside", "mean", "deviation", "skewness", "kurtosis", "entropy"),
    *("tenth", "median", "ninetieth", "fat", "soft tissue"),
)
GLCM = tuple(
    f"glcm {name}"
    for name in ("contrast", "dissimilarity", "homogeneity", "energy", "correlation", "entropy")
)
LBP = tuple(f"lbp {i}" for i in range(10))
GRAIN = ("noise", "grain", "edges")
NAMES = FIRST_ORDER + GRAIN + GLCM + LBP

Rows = npt.NDArray[np.float64]


class Texture:
    """Features by ``NAMES``, standardised by those of the training slices.

    Args:
        window_hu: HU outside it are clipped.
        mean: of each feature over the training slices, (features,).
        deviation: standard deviation of each feature over the training slices, (features,); 1
            where it is the same for all.
        modality: of the slices.
    """

    name = "texture"

    def __init__(
        self,
        window_hu: tuple[float, float],
        mean: Rows,
        deviation: Rows,
        modality: Modality = CT,
    ) -> None:
        self.window_hu, self.mean, self.deviation = window_hu, mean, deviation
        self.modality = modality
        facts = f"{VERSION} {window_hu} {mean.round(9).tolist()} {deviation.round(9).tolist()}"
        facts += "" if modality is CT else f" {modality.name}"
        self.version = f"{VERSION}.{hashlib.sha256(facts.encode()).hexdigest()[:12]}"

    @classmethod
    def fit(cls, images: HU, window_hu: tuple[float, float], modality: Modality = CT) -> "Texture":
        """Make the feature space, standardised by training slices (n, y, x)."""
        raw = measured(images, window_hu, modality)
        deviation = raw.std(0)
        flat = deviation <= 1e-9 + 1e-9 * np.abs(raw.mean(0))
        return cls(window_hu, raw.mean(0), np.where(flat, 1, deviation), modality)

    def __call__(self, images: HU) -> Tensor:
        found = (measured(images, self.window_hu, self.modality) - self.mean) / self.deviation
        return torch.from_numpy(found).float()


def measured(images: HU, window_hu: tuple[float, float], modality: Modality = CT) -> Rows:
    """The features (n, ``NAMES``) of slices (n, y, x), not standardised."""
    return np.concatenate([_block(part, window_hu, modality) for part in blocks(images)])


def _block(images: HU, window_hu: tuple[float, float], modality: Modality) -> Rows:
    low, high = round(window_hu[0]), round(window_hu[1])
    x = np.clip(images, low, high).astype(np.int64)
    inside = x > low + AIR * (high - low)
    parts = [_first_order(x, inside, low, high, MIDDLES[modality.name]), _grain(x, inside)]
    levels = np.minimum((x - low) * LEVELS // (high - low), LEVELS - 1)
    return np.concatenate([*parts, glcm(levels, inside), lbp(x, inside)], 1)


def counts(values: npt.NDArray[np.int64], inside: npt.NDArray[np.bool_], bins: int) -> Rows:
    """How often each whole number below ``bins`` occurs inside, (n, bins)."""
    n = len(values)
    row = np.arange(n).reshape(-1, *[1] * (values.ndim - 1)) * (bins + 1)
    place = row + np.where(inside, values, bins)
    found = np.bincount(place.reshape(-1), minlength=n * (bins + 1))
    return found.reshape(n, bins + 1)[:, :bins].astype(np.float64)


def quantile(histogram: Rows, share: float) -> Rows:
    """The smallest bin (n,) up to which a share of the counts lies; 0 where there are none."""
    total = histogram.sum(1, keepdims=True)
    return (histogram.cumsum(1) >= share * total).argmax(1).astype(np.float64)


def entropy(shares: Rows) -> Rows:
    """Bits (n,) of distributions (n, bins)."""
    logs = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    return -(shares * logs).sum(1)


def _first_order(
    x: npt.NDArray[np.int64],
    inside: npt.NDArray[np.bool_],
    low: int,
    high: int,
    middles: tuple[tuple[int, int], ...],
) -> Rows:
    hu = np.arange(low, high + 1)
    histogram = counts(x - low, inside, len(hu))
    total = histogram.sum(1)
    shares = histogram / np.maximum(total, 1)[:, None]
    mean = shares @ hu
    gap = hu - mean[:, None]
    deviation = np.sqrt((shares * gap**2).sum(1))
    unit = np.where(deviation > 0, deviation, 1)
    coarse = shares @ np.eye(BINS)[(hu - low) * BINS // len(hu)]
    medians = []
    for start, stop in middles:
        among = (hu >= start) & (hu <= stop)
        if not among.any():
            medians.append(np.full(len(x), (start + stop) / 2))
            continue
        found = histogram[:, among]
        middle = quantile(found, 0.5) + max(start, low)
        medians.append(np.where(found.sum(1) > 0, middle, (start + stop) / 2))
    return np.stack(
        [
            total / x[0].size,
            mean,
            deviation,
            (shares * gap**3).sum(1) / unit**3,
            (shares * gap**4).sum(1) / unit**4,
            entropy(coarse),
            *(quantile(histogram, share) + low for share in (0.1, 0.5, 0.9)),
            *medians,
        ],
        1,
    )


def _grain(x: npt.NDArray[np.int64], inside: npt.NDArray[np.bool_]) -> Rows:
    """Quartile and median of the size of the Laplacian, and the steepest twentieth of slopes."""
    middle = x[:, 1:-1, 1:-1]
    around = x[:, :-2, 1:-1] + x[:, 2:, 1:-1] + x[:, 1:-1, :-2] + x[:, 1:-1, 2:]
    bend = np.minimum(np.abs(4 * middle - around), STEPS - 1)
    slope = np.abs(x[:, 2:, 1:-1] - x[:, :-2, 1:-1]) + np.abs(x[:, 1:-1, 2:] - x[:, 1:-1, :-2])
    within = inside[:, 1:-1, 1:-1]
    bends = counts(bend, within, STEPS)
    slopes = counts(np.minimum(slope, STEPS - 1), within, STEPS)
    return np.stack([quantile(bends, 0.25), quantile(bends, 0.5), quantile(slopes, 0.95)], 1)


def glcm(levels: npt.NDArray[np.int64], inside: npt.NDArray[np.bool_]) -> Rows:
    """Features (n, ``GLCM``) of the symmetric matrix over four directions, pairs inside alone."""
    n, h, w = levels.shape
    matrix = np.zeros((n, LEVELS * LEVELS))
    for down, across in OFFSETS:
        first = (slice(None), slice(0, h - down), slice(max(0, -across), w - max(0, across)))
        second = (slice(None), slice(down, h), slice(max(0, across), w + min(0, across)))
        both = inside[first] & inside[second]
        matrix += counts(levels[first] * LEVELS + levels[second], both, LEVELS * LEVELS)
    square = matrix.reshape(n, LEVELS, LEVELS)
    square = square + square.transpose(0, 2, 1)
    square /= np.maximum(square.sum((1, 2), keepdims=True), 1)
    i, j = np.indices((LEVELS, LEVELS))
    edge = square.sum(2)
    mean = edge @ np.arange(LEVELS)
    variance = edge @ np.arange(LEVELS) ** 2 - mean**2
    joint = (square * (i * j)).sum((1, 2)) - mean**2
    return np.stack(
        [
            (square * (i - j) ** 2).sum((1, 2)),
            (square * np.abs(i - j)).sum((1, 2)),
            (square / (1 + (i - j) ** 2)).sum((1, 2)),
            (square**2).sum((1, 2)),
            np.divide(joint, variance, out=np.ones(n), where=variance > 1e-12),
            entropy(square.reshape(n, -1)),
        ],
        1,
    )


def lbp(x: npt.NDArray[np.int64], inside: npt.NDArray[np.bool_]) -> Rows:
    """Shares (n, 10) of the uniform rotation-invariant patterns of the eight nearest pixels.

    Pattern k below 9: k neighbours in one arc are at least as bright; 9: more than one arc.
    """
    h, w = x.shape[1:]
    middle = x[:, 1:-1, 1:-1]
    bright = [
        x[:, 1 + down : h - 1 + down, 1 + across : w - 1 + across] >= middle
        for down, across in RING
    ]
    ones = sum(b.astype(np.int64) for b in bright)
    turns = sum((bright[k] != bright[k - 1]).astype(np.int64) for k in range(len(RING)))
    code = np.where(turns <= 2, ones, 9)
    found = counts(code, inside[:, 1:-1, 1:-1], 10)
    return found / np.maximum(found.sum(1, keepdims=True), 1)
