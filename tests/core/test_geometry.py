"""Resampling against closed forms, and affines against the points they should map to."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medaug.core import geometry
from medaug.core.types import AIR_HU

AFFINE = np.array([[0.8, 0, 0, -200], [0, 0.9, 0, -150], [0, 0, 2.5, 30], [0, 0, 0, 1]])
SIZES = st.integers(1, 40)


def test_spacing_of_an_oblique_affine():
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    assert geometry.spacing(turn @ AFFINE) == pytest.approx((0.8, 0.9, 2.5))


def test_window_keeps_its_centre_and_has_the_field_of_view():
    window = geometry.window_affine(AFFINE, (100.25, 80.5), 300.0, 64)
    assert geometry.spacing(window) == pytest.approx((300 / 64, 300 / 64, 2.5))
    np.testing.assert_allclose(
        window @ [31.5, 31.5, 7, 1], AFFINE @ [100.25, 80.5, 7, 1], atol=1e-9
    )


def test_window_of_the_whole_grid_is_the_grid():
    square = np.diag([0.8, 0.8, 1.0, 1.0])
    np.testing.assert_allclose(geometry.window_affine(square, (31.5, 31.5), 64 * 0.8, 64), square)


@given(SIZES, SIZES, st.floats(-30, 30), st.floats(0.2, 6))
@settings(max_examples=60, deadline=None)
def test_weights_and_outside_share_add_to_one(n_in, n_out, start, step):
    weights, outside = geometry.resampling_matrix(n_in, n_out, start, step)
    assert weights.shape == (n_out, n_in)
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(axis=1) + outside, 1, atol=1e-5)


def test_unit_step_is_the_identity_and_a_shift_moves():
    weights, outside = geometry.resampling_matrix(5, 5, 0.0, 1.0)
    np.testing.assert_array_equal(weights, np.eye(5))
    np.testing.assert_array_equal(outside, 0)
    weights, outside = geometry.resampling_matrix(5, 5, 2.0, 1.0)
    np.testing.assert_array_equal(weights, np.eye(5, k=2))
    np.testing.assert_array_equal(outside, [0, 0, 0, 1, 1])


@pytest.mark.parametrize("step", [0.4, 1.0, 2.0, 3.1])
def test_a_ramp_stays_a_ramp(step):
    """Linear interpolation and a symmetric filter both reproduce straight lines."""
    weights, outside = geometry.resampling_matrix(100, 20, 30.0, step)
    assert outside.max() == 0
    # a triangle sampled at integers is off by a little where its width is no integer
    tolerance = 1e-3 if step in (0.4, 1.0, 2.0) else 0.06
    np.testing.assert_allclose(
        weights @ np.arange(100.0), 30 + step * np.arange(20), atol=tolerance
    )


def test_image_beyond_its_edge_is_air():
    volume = np.full((10, 12, 3), 50, np.int16)
    image = geometry.resample_image(volume, np.eye(4), (4.5, 5.5), 40.0, 40)
    assert image.shape == (3, 40, 40)
    assert image.dtype == np.int16
    assert (image[:, 20:, :][:, 10:] == AIR_HU).all()
    assert (image[:, 15:25, 16:24] == 50).all()
    assert sorted(np.unique(image)) == [-1024, 50]


def test_padding_below_air_counts_as_air():
    volume = np.full((8, 8, 2), -2048, np.int16)
    image = geometry.resample_image(volume, np.eye(4), (3.5, 3.5), 8.0, 4)
    assert (image == -1024).all()


def test_image_agrees_with_a_direct_average():
    """Halving at integer offsets weighs neighbours 1:2:1 along each axis."""
    rng = np.random.default_rng(0)
    volume = rng.integers(-900, 1500, (32, 32, 4)).astype(np.int16)
    image = geometry.resample_image(volume, np.eye(4), (15.0, 15.0), 30.0, 15)
    smooth = volume.astype(float)
    for axis in (0, 1):
        smooth = (np.roll(smooth, 1, axis) + 2 * smooth + np.roll(smooth, -1, axis)) / 4
    np.testing.assert_allclose(image[:, 1:-1, 1:-1], smooth[3:-3:2, 3:-3:2].T, atol=0.51)


def test_labels_stay_in_register_with_the_image():
    """Where the mask's own image is brighter than half, and nowhere else, the label is set."""
    x, y, _ = np.mgrid[:64, :64, :3]
    mask = ((x - 30) ** 2 + (y - 22) ** 2 < 15**2).astype(np.uint8)
    window = (np.eye(4), (28.3, 25.7), 50.0, 23)
    image = geometry.resample_image(mask.astype(np.int16) * 1000, *window)
    outside_is_air = np.where(image < 0, 0, image)
    label = geometry.resample_labels(mask, *window)
    clear = np.abs(outside_is_air - 500) > 1
    np.testing.assert_array_equal(label[clear], outside_is_air[clear] > 500)


def test_of_several_labels_the_largest_share_wins():
    labels = np.zeros((12, 12, 1), np.uint8)
    labels[:6], labels[6:] = 3, 7
    result = geometry.resample_labels(labels, np.eye(4), (5.5, 5.5), 12.0, 12)
    np.testing.assert_array_equal(result[0], labels[:, :, 0].T)
    assert set(np.unique(geometry.resample_labels(labels, np.eye(4), (5.5, 5.5), 12.0, 5))) == {
        3,
        7,
    }


def test_body_centre_ignores_the_couch():
    x, y, _ = np.mgrid[:128, :128, :10]
    hu = np.full((128, 128, 10), -1000, np.int16)
    hu[((x - 70) / 40) ** 2 + ((y - 60) / 28) ** 2 < 1] = 30
    hu[:, 8:11] = -150
    centre = geometry.body_center(hu, np.diag([2.0, 2.0, 3.0, 1.0]))
    assert centre == pytest.approx((70, 60), abs=2)


def test_without_a_body_the_middle_is_the_centre():
    assert geometry.body_center(np.full((20, 30, 4), -1000, np.int16), np.eye(4)) == (9.5, 14.5)


def test_label_centre():
    labels = np.zeros((20, 30, 4), np.uint8)
    assert geometry.label_center(labels) is None
    labels[3:8, 10:12, 2] = 1
    assert geometry.label_center(labels) == (5.0, 10.5)
