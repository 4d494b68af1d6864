"""Spectra, edges and histograms against closed forms and independent libraries."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage, signal
from scipy.stats import wasserstein_distance

from medaug.evaluation.families import appearance
from medaug.evaluation.figures import Figure
from medaug.evaluation.metrics.noise_spectrum import (
    flattened,
    log_distance,
    patch_side,
    periodograms,
    rings,
    spectra,
    steepness,
)
from medaug.evaluation.slices.evidence import Evidence, SliceSet

WINDOW = (-160.0, 240.0)


def people(n: int, seed: int, noise: float = 12.0, shift: float = 0.0) -> SliceSet:
    """Bodies of soft tissue in fat, with noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    images = np.full((n, 64, 64), -1000.0)
    for image in images:
        radius = rng.uniform(0.75, 0.85)
        image[x**2 + y**2 < radius**2] = -100
        image[x**2 + y**2 < (radius - 0.15) ** 2] = 50
    images[images > -1000] += shift + rng.normal(0, noise, (images > -1000).sum())
    clipped = np.clip(images.round(), *WINDOW).astype(np.int16)
    return SliceSet(
        clipped, None, [f"{seed} {i}" for i in range(n)], np.zeros(n, np.int64), 2.0, 3.0, {}
    )


def looks_of(made: SliceSet) -> dict[str, Figure]:
    found, curves, skipped = appearance.figures(
        Evidence(made, people(20, 1), people(20, 2), WINDOW)
    )
    assert not skipped
    assert set(curves[0].lines) == {"synthetic", "training", "held-out"}
    return {figure.name: figure for figure in found}


def test_a_spectrum_is_scipys_periodogram() -> None:
    """Of the rows, once the columns are transformed; scipy's density is over fs times n."""
    patch = np.random.default_rng(0).normal(0, 10, (1, 16, 16))
    bell = np.hanning(18)[1:-1]
    detrended = flattened(patch)[0]
    spectrum = np.fft.fft(detrended * bell[:, None] * bell, axis=0)
    _, density = signal.periodogram(
        spectrum, fs=1 / 2.0, axis=1, detrend=False, return_onesided=False
    )
    expected = density * 16 * 2.0 / np.square(bell).sum() ** 2
    assert periodograms(patch, 2.0)[0] == pytest.approx(expected, rel=1e-9)


def test_white_noise_has_a_flat_spectrum_of_its_variance() -> None:
    patches = np.random.default_rng(1).normal(0, 10, (4000, 16, 16))
    power = periodograms(patches, 1.5).mean(0)
    ring, frequency = rings(16, 1.5)
    level = [power[ring == number].mean() for number in range(1, len(frequency) + 1)]
    assert level == pytest.approx(np.full(len(level), 100 * 1.5**2), rel=0.03)
    assert frequency[-1] == pytest.approx(1 / (2 * 1.5))


def test_a_plane_is_taken_off_and_a_wave_stays_in_its_ring() -> None:
    y, x = np.mgrid[:16, :16].astype(float)
    assert np.abs(flattened((3 * x - 2 * y + 7)[None])).max() < 1e-9
    ring, frequency = rings(16, 1.0)
    power = periodograms(np.cos(2 * np.pi * 5 * x / 16)[None], 1.0)[0]
    sums = np.bincount(ring.ravel(), power.ravel())[1:]
    assert frequency[sums.argmax()] == 5 / 16


def test_log_distance_counts_decibels() -> None:
    level = np.random.default_rng(2).uniform(1, 2, 9)
    assert log_distance(level, level) == 0
    assert log_distance(10 * level, level) == pytest.approx(10)
    assert log_distance(level * [2, 0.5, 1, 1, 1, 1, 1, 1, 1], level) == pytest.approx(
        np.sqrt(2 / 9) * 10 * np.log10(2)
    )


def test_slices_without_flat_tissue_have_no_spectrum() -> None:
    made = people(3, 0)
    inside = made.bodies.copy()
    inside[1] = False
    found = spectra(made, inside)
    assert np.isfinite(found.power).all(1).tolist() == [True, False, True]
    assert patch_side(64) == 12
    assert patch_side(256) == 32


def test_the_steepness_of_a_ramp_is_its_slope() -> None:
    y, x = np.mgrid[:30, :30]
    ramp = (3 * x + 4 * y).astype(np.int16)
    assert steepness(ramp, np.ones((30, 30), bool)) == pytest.approx(5)
    assert np.isnan(steepness(ramp, np.zeros((30, 30), bool)))
    step = np.where(x < 15, 0, 100).astype(np.int16)
    smooth = ndimage.gaussian_filter(step.astype(float), 1.5).round().astype(np.int16)
    assert steepness(smooth, np.ones((30, 30), bool)) < steepness(step, np.ones((30, 30), bool))


def test_the_histogram_distance_is_scipys_over_pixels() -> None:
    made, heldout = people(20, 3, shift=7), people(20, 2)
    a, b = (part.images[part.bodies] for part in (made, heldout))
    found = looks_of(made)["fidelity.histogram"]
    assert found.value == pytest.approx(wasserstein_distance(a, b), abs=1e-6)


def test_what_is_planted_is_what_is_told() -> None:
    assert not [f for f in looks_of(people(20, 3)).values() if f.passed is False]
    shifted = looks_of(people(20, 3, shift=20))
    assert shifted["fidelity.level.fat"].value == pytest.approx(20, abs=2)
    assert shifted["fidelity.level.soft"].value == pytest.approx(20, abs=2)
    noisy = looks_of(people(20, 3, noise=24))
    assert noisy["fidelity.noise"].value == pytest.approx(20 * np.log10(2), abs=0.5)
    made = people(20, 3)
    images = ndimage.gaussian_filter(made.images.astype(float), (0, 1, 1)).round()
    blurred = looks_of(replace(made, images=images.astype(np.int16)))
    failed = {name for name, figure in blurred.items() if figure.passed is False}
    assert {"fidelity.noise", "fidelity.sharpness"} <= failed


def test_air_alone_is_skipped_with_a_reason() -> None:
    air = people(4, 0)
    air = replace(air, images=np.full_like(air.images, -160))
    found, _, skipped = appearance.figures(Evidence(air, people(4, 1), people(4, 2), WINDOW))
    assert not found
    assert len(skipped) == 5
