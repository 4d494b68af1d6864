"""Find synthetic slices that are training slices, even if shifted, mirrored, noised or bent.

A slice is looked up among the training slices by its thumbnail, as in the filter, and compared with
the likeliest ones by normalised cross-correlation at the best shift, as it is and mirrored.  What
is correlated is a band of detail: a Gaussian of one 64th of the side minus one of four, which takes
the outline that all bodies share, and most of the pixel noise, out of the comparison.  The
threshold lies between what at most 1 % of held-out slices reach and what copies reach that were
planted on purpose, since a few held-out patients say little of the next one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import beta
from torch import Tensor
from torch.nn import functional as F

from medaug.core.seeds import derive, generator
from medaug.core.types import HU
from medaug.data.feed.warp import field, warp
from medaug.synthesis.filter.measures import descriptor, distance

SIDE = 64
"""Slices are compared at no more than so many pixels a side."""

FINE, COARSE = 1 / 64, 4 / 64
"""Widths of the two Gaussians, shares of the side."""

REACH = 4 / 64
"""Largest shift that is tried, share of the side."""

CANDIDATES = 8
"""Training slices by thumbnail that a slice is compared with in detail."""

FALSE_POSITIVES = 0.01
CONFIDENCE = 0.95

LARGEST = 0.9999
"""Correlations are clipped to it before they are put on Fisher's scale."""

BEND = {"rotate": 0.03, "scale": 0.03, "shift": 2 / 64, "elastic": 0.004}
"""Largest warp of a planted copy: radians, and shares of the side."""

NOISE_HU = 30.0
"""Noise of a planted copy."""

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Match:
    """The training slice that another slice is most like.

    Attributes:
        index: of the training slice.
        score: correlation of detail, -1 to 1; 1 for a copy.
        mirrored: whether the training slice was flipped left to right for it.
        shift: pixels down and right by which it was moved, at the size of comparison.
    """

    index: int
    score: float
    mirrored: bool
    shift: tuple[int, int]


def reduced(images: HU) -> npt.NDArray[np.float32]:
    """Average slices (n, y, x) to at most 64 pixels a side, in HU."""
    sides = min(SIDE, images.shape[1]), min(SIDE, images.shape[2])
    parts = torch.from_numpy(np.asarray(images)).split(256)
    small = [F.adaptive_avg_pool2d(part.float()[:, None], sides)[:, 0] for part in parts]
    return torch.cat(small).numpy()


def detail(images: npt.NDArray[np.float32]) -> Tensor:
    """The band of detail (n, y, x) of slices float32 (n, y, x), of mean 0 and norm 1."""
    side = max(images.shape[1:])
    fine, coarse = (gaussian_filter(images, (0, s * side, s * side)) for s in (FINE, COARSE))
    band = torch.from_numpy(fine - coarse)
    band = band - band.mean((1, 2), keepdim=True)
    return band / band.flatten(1).norm(dim=1).clamp_min(1e-6)[:, None, None]


class Search:
    """An index of training slices.

    Args:
        parts: slices (m, y, x) of each part, clipped to the window; read one after the other, so
            that they need not be in memory together.
        cases: case of each slice.
        low: lower end of the window.
    """

    def __init__(self, parts: Iterable[HU], cases: Sequence[str], low: float) -> None:
        self.low, self.cases = low, np.array(cases)
        thumbnails, spectra = [], []
        for images in parts:
            small = reduced(images)
            self.shape = small.shape[1:]
            self.reach = max(1, round(REACH * max(self.shape)))
            thumbnails.append(descriptor(torch.from_numpy(small)))
            spectra.append(self._spectrum(detail(small)))
        self.thumbnails, self.spectra = torch.cat(thumbnails), torch.cat(spectra)

    def _spectrum(self, band: Tensor) -> Tensor:
        """Spectra padded with zeros, so that what is shifted out does not come in opposite."""
        return torch.fft.rfft2(band, s=self._padded)

    @property
    def _padded(self) -> tuple[int, int]:
        return self.shape[0] + self.reach, self.shape[1] + self.reach

    def match(self, images: HU, own: Sequence[str] | None = None) -> list[Match]:
        """Find the training slice most like each slice.

        Args:
            images: (n, y, x), clipped to the window, as large as the training slices.
            own: case of each, whose training slices are left out; None to leave out none.
        """
        small = reduced(images)
        bands = detail(small)
        found = []
        for row, (image, band) in enumerate(zip(small, bands, strict=True)):
            apart = distance(image, self.thumbnails, self.low)
            if own is not None:
                apart[torch.from_numpy(self.cases == own[row])] = torch.inf
            likely = apart.topk(min(CANDIDATES, len(apart)), largest=False)
            found.append(self._compare(band, likely.indices[likely.values.isfinite()]))
        return found

    def scores(self, images: HU, own: Sequence[str] | None = None) -> Scores:
        """The scores of ``match`` alone."""
        return np.array([match.score for match in self.match(images, own)])

    def _compare(self, band: Tensor, likely: Tensor) -> Match:
        """The best of the candidates, as they are or mirrored, over all shifts within reach."""
        both = self._spectrum(torch.stack([band, band.flip(1)]))
        product = both[:, None] * self.spectra[likely].conj()
        surface = torch.fft.irfft2(product, s=self._padded)
        window = torch.arange(-self.reach, self.reach + 1)
        near = surface[..., window, :][..., window]
        at = np.unravel_index(int(near.argmax()), near.shape)
        mirrored, place, down, across = (int(i) for i in at)
        shift = down - self.reach, across - self.reach
        # the mirrored search moves the mirrored slice; seen from the training slice it is opposite
        if mirrored:
            shift = shift[0], -shift[1]
        score = float(near[mirrored, place, down, across])
        return Match(int(likely[place]), score, bool(mirrored), shift)


@dataclass(frozen=True)
class Threshold:
    """The score above which a slice is a suspected copy.

    Attributes:
        value: the score.
        unseen: the score that at most 1 % of slices of unseen patients lie above.
        planted: the score that 95 % of planted copies lie above.
        found: share of the planted copies above ``value``.
    """

    value: float
    unseen: float
    planted: float
    found: float


def threshold(unseen: Scores, planted: Scores) -> Threshold:
    """Set the threshold half way between what held-out slices and what planted copies reach.

    Half way on Fisher's scale; at that of the held-out slices where copies reach no higher.

    Args:
        unseen: scores of held-out slices.
        planted: scores of copies planted on purpose.
    """
    low, high = highest(unseen), float(np.quantile(planted, 1 - CONFIDENCE))
    value = low
    if high > low:
        ends = np.arctanh(np.clip([low, high], -LARGEST, LARGEST))
        value = max(low, float(np.tanh(ends.mean())))
    return Threshold(value, low, high, float((planted > value).mean()))


def highest(scores: Scores) -> float:
    """The lowest of ``scores`` that at most 1 % of new slices will exceed, at 95 % confidence.

    By how few of these exceed it (Clopper and Pearson 1934); the highest of fewer than 299.
    """
    ordered, n = np.sort(scores)[::-1], len(scores)
    above = 0
    while above + 1 < n and beta.ppf(CONFIDENCE, above + 2, n - above - 1) <= FALSE_POSITIVES:
        above += 1
    return float(ordered[above])


def aligned(train: HU, match: Match, low: float) -> HU:
    """Mirror and move a training slice (y, x) onto what it matches; ``low`` fills what is left."""
    image = train[:, ::-1] if match.mirrored else train
    scale = max(train.shape) / min(SIDE, max(train.shape))
    down, across = (round(step * scale) for step in match.shift)
    h, w = image.shape
    moved = np.full_like(image, round(low))
    moved[max(down, 0) : h + min(down, 0), max(across, 0) : w + min(across, 0)] = image[
        max(-down, 0) : h + min(-down, 0), max(-across, 0) : w + min(-across, 0)
    ]
    return moved


def planted(images: HU, window_hu: tuple[float, float], seed: int, per_hu: float = 1.0) -> HU:
    """Make near-copies of slices (n, y, x): every other one mirrored, all bent, shifted and noised.

    Args:
        images: clipped to the window.
        window_hu: the window, to which the copies are clipped as well.
        seed: of warps and noise.
        per_hu: stored units that weigh as one HU of CT; scales the noise of 30 HU.
    """
    low, high = window_hu
    x = torch.from_numpy(np.array(images)).float()
    x[::2] = x[::2].flip(2)
    x = (x - low) * (2 / (high - low)) - 1
    draws = generator(seed, "planted")
    moved = warp(x[:, None], field(len(x), (x.shape[1], x.shape[2]), draws, **BEND))[:, 0]
    grain = np.random.default_rng(derive(seed, "noise")).normal(0, NOISE_HU * per_hu, moved.shape)
    changed = (moved.numpy() + 1) * ((high - low) / 2) + low + grain
    return np.rint(changed).clip(low, high).astype(np.int16)
