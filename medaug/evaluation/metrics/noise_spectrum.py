"""Measure the noise power spectrum of flat tissue and how steep the edges of organs are.

The spectrum is that of Siewerdsen, Cunningham and Jaffray 2002; ICRU Report 87 for CT:

    NPS(fx, fy) = pixel^2 / (nx ny sum(w^2) / (nx ny)) < |DFT[w (HU - plane)]|^2 >     HU^2 mm^2

with the Hann window w, over square patches that lie in the body.  Only the flattest of them count,
since a patch with an organ's edge in it shows anatomy.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medaug.core.types import HU
from medaug.evaluation.metrics.mask_shapes import Masks, Values
from medaug.evaluation.slices.evidence import SliceSet

LEAST_SIDE, SIDES = 12, 8
"""A patch is an eighth of the slice, and at least so many pixels."""

FLATTEST = 0.25
"""Share of a slice's patches that counts, one at least."""

SKIN_PIXELS = 2
"""The outline of the body is left out: how much of it a pixel takes is a matter of chance."""

EDGES = 95.0
"""Percentile of the gradients in the body that is reported: edges, which noise hardly raises."""


@dataclass(frozen=True)
class Spectra:
    """Radially averaged spectra.

    Attributes:
        frequency: middle of each ring, cycles per mm (rings,).
        power: mean over the patches of each slice, HU^2 mm^2 (n, rings); not a number in slices
            without a patch.
    """

    frequency: Values
    power: Values


def patch_side(size: int) -> int:
    """Pixels a side of the patches of slices of ``size`` pixels a side."""
    return max(LEAST_SIDE, size // SIDES)


def spectra(slices: SliceSet, inside: Masks) -> Spectra:
    """The spectrum of each slice's flat tissue."""
    side = patch_side(min(slices.images.shape[1:]))
    ring, frequency = rings(side, slices.pixel_mm)
    power = np.full((len(slices), len(frequency)), np.nan)
    for i, (image, within) in enumerate(zip(slices.images, inside, strict=True)):
        patches = _patches(image, within, side)
        if not len(patches):
            continue
        level = periodograms(patches, slices.pixel_mm).mean(0)
        sums = np.bincount(ring.ravel(), level.ravel(), len(frequency) + 1)[1:]
        power[i] = sums / np.bincount(ring.ravel(), minlength=len(frequency) + 1)[1:]
    return Spectra(frequency, power)


def periodograms(patches: Values, pixel_mm: float) -> Values:
    """Spectra (n, s, s) in HU^2 mm^2 of patches (n, s, s), a plane taken off each."""
    side = patches.shape[-1]
    bell = np.hanning(side + 2)[1:-1]
    window = bell[:, None] * bell
    power = np.abs(np.fft.fft2(flattened(patches) * window)) ** 2
    return power * pixel_mm**2 / np.square(window).sum()


def flattened(patches: Values) -> Values:
    """Patches (n, s, s) less the plane that fits each best."""
    side = patches.shape[-1]
    place = np.arange(side) - (side - 1) / 2
    square = np.square(place).sum() * side
    down = np.einsum("nyx,y->n", patches, place) / square
    across = np.einsum("nyx,x->n", patches, place) / square
    return (
        patches
        - patches.mean((1, 2), keepdims=True)
        - down[:, None, None] * place[:, None]
        - across[:, None, None] * place
    )


def rings(side: int, pixel_mm: float) -> tuple[npt.NDArray[np.int64], Values]:
    """Ring of each of the (side, side) frequencies, 0 for what is in none, and their middles.

    Rings are as wide as the frequencies lie apart, from the second, since the plane took the first
    away, to the largest that a pixel can show.
    """
    f = np.fft.fftfreq(side)
    ring = np.rint(np.hypot(f[:, None], f) * side).astype(np.int64) - 1
    last = side // 2 - 1
    ring[(ring < 1) | (ring > last)] = 0
    return ring, (np.arange(1, last + 1) + 1) / (side * pixel_mm)


def _patches(image: HU, within: Masks, side: int) -> Values:
    """The flattest patches (m, s, s) of those, half over each other, that lie in the body."""
    step = side // 2
    view = np.lib.stride_tricks.sliding_window_view(image, (side, side))[::step, ::step]
    whole = np.lib.stride_tricks.sliding_window_view(within, (side, side))[::step, ::step]
    patches = view[whole.all((2, 3))].astype(np.float64)
    if not len(patches):
        return patches
    rough = flattened(patches).std((1, 2))
    return patches[np.argsort(rough, kind="stable")[: max(1, round(FLATTEST * len(patches)))]]


def log_distance(a: Values, b: Values) -> float:
    """Root mean square over the frequencies of the gap of two spectra (rings,) in dB.

    Gray and Markel 1976.
    """
    return float(np.sqrt(np.square(10 * np.log10(a / b)).mean()))


def sharpness(slices: SliceSet, inside: Masks) -> Values:
    """Gradient at the steeper edges in each slice's body, HU per mm (n,)."""
    return np.array([
        steepness(image, within) / slices.pixel_mm
        for image, within in zip(slices.images, inside, strict=True)
    ])  # fmt: skip


def steepness(image: HU, within: Masks) -> float:
    """95th percentile of the gradient's length in the body without its skin, HU per pixel.

    By Sobel's differences, which are exact for a ramp; not a number where no body is left.
    """
    core = ndimage.binary_erosion(within, iterations=SKIN_PIXELS)
    if not core.any():
        return float("nan")
    down, across = (ndimage.sobel(image.astype(np.float64), axis) / 8 for axis in (0, 1))
    return float(np.percentile(np.hypot(down, across)[core], EDGES))
