"""What the filter measures of a slice, and the bounds it draws from them."""

import numpy as np
import pytest
import torch

from medaug.core.errors import ConfigError
from medaug.synthesis.filter.measures import distance, measure, noise, overlap, parts
from medaug.synthesis.filter.reference import by_size, fitted
from medaug.synthesis.filter.settings import FilterConfig, resolve_filter


def test_settings_are_checked() -> None:
    assert resolve_filter({"hu_margin": 5, "segmenter_images": "2Ki"}).segmenter_images == 2048
    with pytest.raises(ConfigError, match=r"filter.hu_margn is not known; did you mean filter.hu"):
        resolve_filter({"hu_margn": 5})
    with pytest.raises(ConfigError, match=r"config filter.tail: .*less than 0.5, got 0.7"):
        resolve_filter({"tail": 0.7})
    assert all(field.description for field in FilterConfig.model_fields.values())


def test_noise_is_that_of_the_pixels() -> None:
    rng = np.random.default_rng(0)
    smooth = np.linspace(-100, 200, 64 * 64, dtype=np.float32).reshape(64, 64)
    for sigma in (5, 20, 60):
        grainy = (smooth + rng.normal(0, sigma, smooth.shape)).astype(np.float32)
        assert noise(grainy) == pytest.approx(sigma, rel=0.1)
    assert noise(np.zeros((8, 8), np.float32)) == 0


def test_figures_of_a_slice() -> None:
    image = np.full((32, 32), -160, np.float32)
    image[4:28, 4:28] = 20
    image[10:16, 10:16] = 90
    label = np.zeros((32, 32), np.uint8)
    label[10:16, 10:16] = 2
    label[16, 16] = 2
    label[0, 0:4] = 5
    found = measure(image, label, [2, 5, 7], 5, -160.0)
    assert found.pixels == [37, 4, 0]
    assert found.components == [1, 1, 0]
    assert found.hu_median[0] == 90
    assert found.hu_contrast[0] == 70
    assert np.isnan(found.hu_median[1:]).all()
    assert found.body_share == pytest.approx(37 / 41)
    assert parts(np.eye(4, dtype=bool)) == 1


def test_overlap_pools_all_labels() -> None:
    a = np.array([[1, 1, 1, 2, 0]], np.uint8)
    b = np.array([[1, 1, 0, 0, 0]], np.uint8)
    found = overlap(a, b, [1, 2, 3])
    assert found[:2] == pytest.approx([9 / 10, 5 / 6])
    assert np.isnan(found[2])
    assert found[3] == pytest.approx(9 / 11)


def test_distance_is_a_root_mean_square_over_cells() -> None:
    rng = np.random.default_rng(0)
    image = rng.uniform(-100, 100, (16, 16)).astype(np.float32)
    others = torch.from_numpy(np.stack([image + 30, image[:, ::-1] - 7]).reshape(2, -1))
    assert distance(image, others, -160.0).tolist() == pytest.approx([30, 7], abs=0.05)


def test_bounds_hold_for_a_patient_who_was_not_there() -> None:
    rng = np.random.default_rng(0)
    missed, plainly = [], []
    for _ in range(300):
        values = rng.normal(np.repeat(rng.normal(0, 10, 21), 20), 1)
        seen, new = values[:400], values[400:]
        low, high = fitted(seen, np.repeat(np.arange(20), 20), 0.01)
        first, last = np.quantile(seen, [0.01, 0.99])
        assert low <= first
        assert high >= last
        missed.append(((new < low) | (new > high)).mean())
        plainly.append(((new < first) | (new > last)).mean())
    assert np.mean(missed) < 0.7 * np.mean(plainly)


def test_bounds_follow_the_size() -> None:
    sizes = np.arange(1, 401.0)
    bounds = by_size(1000 / sizes, sizes, np.arange(400) % 8, 0.01, first=10)
    assert bounds.at(5)[0] > bounds.at(50)[1] > bounds.at(300)[1]
    assert by_size(np.full(3, np.nan), sizes[:3], np.zeros(3, int), 0.01).at(4) == (-np.inf, np.inf)
