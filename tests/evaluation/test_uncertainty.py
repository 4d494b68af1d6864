"""Uncertainty against closed forms and independent libraries, and of a model that is at hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.calibration import calibration_curve
from torchmetrics.classification import BinaryCalibrationError

from medaug.core.errors import ConfigError
from medaug.data.cache.prepare import SliceCache
from medaug.evaluation.families import uncertainty
from medaug.evaluation.figures import Family
from medaug.evaluation.metrics.calibration import (
    covered,
    energy_distance,
    gaps,
    rank_correlation,
    remaining,
    sparsification_error,
)
from medaug.evaluation.slices.alternatives import Alternatives, alternatives_of
from medaug.evaluation.slices.evidence import Evidence, SliceSet, real_slices
from medaug.synthesis.generator import Generator

WINDOW = (-160.0, 240.0)


def test_rank_correlation_is_scipys_with_ties_too() -> None:
    rng = np.random.default_rng(0)
    spread, error = rng.integers(0, 9, 500).astype(float), rng.random(500)
    assert rank_correlation(spread, error) == pytest.approx(
        spearmanr(spread, error).statistic, abs=1e-12
    )
    assert rank_correlation(error, np.exp(error)) == pytest.approx(1)
    assert np.isnan(rank_correlation(np.ones(5), error[:5]))


def test_a_perfect_order_has_no_sparsification_error_and_a_constant_one_is_random() -> None:
    error = np.random.default_rng(1).exponential(size=1000)
    ause, chance = sparsification_error(error, error**2)
    assert ause == pytest.approx(0, abs=1e-12)
    constant, again = sparsification_error(error, np.ones(1000))
    assert constant == pytest.approx(again)
    assert again == chance
    assert sparsification_error(error, -error)[0] > chance
    assert np.isnan(sparsification_error(np.zeros(9), np.ones(9))).all()


def test_the_curve_of_exponential_errors_is_its_closed_form() -> None:
    """Without its largest share f, the mean of an exponential variable is 1 + f log f / (1 - f)."""
    error = np.random.default_rng(2).exponential(size=400_000)
    share = np.arange(1, 50) / 50
    expected = 1 + share * np.log(share) / (1 - share)
    assert remaining(error, error)[1:] == pytest.approx(expected, abs=0.01)


def test_the_curve_is_what_leaving_pixels_out_gives() -> None:
    rng = np.random.default_rng(3)
    error, spread = rng.random(173), rng.random(173)
    curve = remaining(error, spread, 10)
    order = np.argsort(-spread)
    for j in range(10):
        assert curve[j] == pytest.approx(error[order[173 * j // 10 :]].mean() / error.mean())


@pytest.mark.parametrize("k", [2, 4, 20])
@pytest.mark.parametrize("level", [0.5, 0.9])
def test_intervals_of_normal_draws_hold_as_often_as_they_say(k: int, level: float) -> None:
    rng = np.random.default_rng(4)
    draws, real = rng.normal(30, 5, (k, 100_000)), rng.normal(30, 5, 100_000)
    assert covered(draws, real, level).mean() == pytest.approx(level, abs=0.006)
    assert covered(draws, 5 * (real - 30) + 30, level).mean() < level - 0.1


def test_calibration_agrees_with_torchmetrics_and_scikit_learn() -> None:
    rng = np.random.default_rng(5)
    probability = rng.random(4000)
    true = rng.random(4000) < probability**2
    found = np.abs(gaps(probability, true)).sum() / 4000
    other = BinaryCalibrationError(n_bins=10, norm="l1")
    value = other(torch.from_numpy(probability), torch.from_numpy(true.astype(int)))
    assert found == pytest.approx(value.item(), abs=1e-6)
    right, said = calibration_curve(true, probability, n_bins=10)
    count = np.histogram(probability, 10, (0, 1))[0]
    assert found == pytest.approx((np.abs(right - said) * count).sum() / 4000, abs=1e-12)
    assert not gaps(np.array([0.0, 1.0]), np.array([False, True])).any()
    assert np.abs(gaps(np.array([0.0, 1.0]), np.array([True, False]))).sum() == 2


def test_energy_distance_of_plain_masks_is_known() -> None:
    real = np.array([[1, 1, 0, 0]], bool)
    half, other, empty = (np.array([row], bool) for row in ([1, 0, 0, 0], [0, 0, 1, 1], [0] * 4))
    assert energy_distance(real, real) == 0
    assert energy_distance(half, real) == pytest.approx(2 * 0.5)
    assert energy_distance(other, real) == 2
    assert energy_distance(empty, empty) == 0
    both = np.concatenate([real, other])
    assert energy_distance(both, both) == pytest.approx(0)
    assert energy_distance(both, real) == pytest.approx(2 * 0.5 - 0.5)


def people(n: int, seed: int = 0) -> SliceSet:
    """Slices of a body with an organ."""
    rng = np.random.default_rng(seed)
    images, labels = np.full((n, 32, 32), -160.0), np.zeros((n, 32, 32), np.uint8)
    images[:, 4:28, 4:28] = 40 + rng.normal(0, 20, (n, 24, 24))
    labels[:, 10:16, 10:20] = 1
    cases = [f"case {i // 2}" for i in range(n)]
    rounded = np.clip(images.round(), *WINDOW).astype(np.int16)
    return SliceSet(rounded, labels, cases, np.arange(n), 5.0, 3.0, {"organ": 1})


def drawn(real: SliceSet, truthful: bool, k: int = 12) -> Alternatives:
    """Alternatives whose spread is the error's own deviation, or its opposite.

    The scan is one more draw of the same distribution, so that intervals hold as they say.
    """
    rng = np.random.default_rng(7)
    n = len(real)
    deviation = np.broadcast_to(np.linspace(2, 30, 32), (n, 32, 32))
    mean = real.images - rng.normal(0, 1, real.images.shape) * deviation
    told = deviation if truthful else deviation[..., ::-1]
    images = mean[:, None] + rng.normal(0, 1, (n, k, 32, 32)) * told[:, None]
    shifts = rng.integers(-1, 2, (n, k))
    labels = np.stack([
        np.stack([np.roll(real.labels[i], shift, 1) for shift in shifts[i]]) for i in range(n)
    ])  # fmt: skip
    return Alternatives(images.round().astype(np.int16), labels, real, 0, "draws")


def figures(family: Family) -> dict[str, float]:
    return {figure.name.removeprefix("uncertainty."): figure.value for figure in family.figures}


def evidence(real: SliceSet) -> Evidence:
    return Evidence(real, real, real, (-1000.0, 1000.0))


def test_a_truthful_spread_passes_and_a_misleading_one_fails() -> None:
    real = people(12)
    family = uncertainty.measure(evidence(real), drawn(real, True))
    assert not family.failed
    found = figures(family)
    assert found["coverage.50"] == pytest.approx(0.5, abs=0.02)
    assert found["coverage.90"] == pytest.approx(0.9, abs=0.02)
    assert found["scale"] == pytest.approx(1, abs=0.05)
    assert found["rank"] > 0.3
    assert found["energy.organ"] < found["single.organ"]
    for figure in family.figures:
        assert figure.low is not None
        assert figure.low <= figure.value <= figure.high
    assert set(family.curves[0].lines) == {"by the spread", "by the error itself", "at random"}
    misled = uncertainty.measure(evidence(real), drawn(real, False))
    names = {figure.name for figure in misled.failed}
    assert {"uncertainty.rank", "uncertainty.sparsification"} <= names


def test_a_model_too_sure_of_itself_fails_by_its_coverage() -> None:
    real = people(6)
    sure = drawn(real, True)
    mean = sure.images.mean(1, keepdims=True)
    sure = replace(sure, images=(mean + 0.2 * (sure.images - mean)).round().astype(np.int16))
    family = uncertainty.measure(evidence(real), sure)
    assert [figure.name for figure in family.failed] == ["uncertainty.coverage.90"]
    assert figures(family)["scale"] > 3


def test_the_picture_shows_slice_spread_and_error() -> None:
    real = people(6)
    (picture,) = uncertainty.measure(evidence(real), drawn(real, True)).pictures
    assert len(picture.rows) == 4
    for slice_, spread, wrong in picture.rows:
        assert slice_.shape == spread.shape == wrong.shape == (32, 32, 3)
        # x grows to the patient's right, which is shown on the left
        assert spread[4:28, 4:16].astype(int).sum() > spread[4:28, 16:28].astype(int).sum()
        assert slice_.dtype == wrong.dtype == np.uint8


def test_what_cannot_be_measured_is_said() -> None:
    real = people(4)
    told = uncertainty.measure(evidence(real), "The model has no encoder.")
    assert (told.skipped, told.figures) == (["The model has no encoder."], [])
    unmarked = uncertainty.measure(evidence(real), replace(drawn(real, True), labels=None))
    assert any(reason.startswith("Masks") for reason in unmarked.skipped)
    assert not any("organ" in figure.name for figure in unmarked.figures)
    still = np.repeat(real.images[:, None], 3, 1)
    certain = uncertainty.measure(evidence(real), Alternatives(still, None, real, 0, "copies"))
    assert any(reason.startswith("uncertainty.rank") for reason in certain.skipped)
    assert figures(certain)["coverage.90"] == 1
    air = replace(real, images=np.full_like(real.images, -1000))
    nothing = uncertainty.measure(evidence(air), Alternatives(still, None, air, 0, "copies"))
    assert nothing.skipped == ["The held-out slices show no body."]


def test_alternatives_must_fit_the_slices() -> None:
    real = people(4)
    with pytest.raises(ConfigError, match=r"wanted as \(n, k, y, x\)"):
        Alternatives(real.images[:, None], None, real, 0, "one")
    with pytest.raises(ConfigError, match="labels are wanted"):
        Alternatives(np.repeat(real.images[:, None], 2, 1), real.labels, real, 0, "two")


def test_a_run_is_asked_about_held_out_slices(tiny_run: Path, phantom_cache: Path) -> None:
    heldout = real_slices(SliceCache.open(phantom_cache), "heldout", WINDOW)
    made = Generator.from_pretrained(tiny_run, "cpu")
    found = alternatives_of(made, heldout, 3, seed=1, most=4)
    assert isinstance(found, Alternatives)
    assert found.images.shape == (4, 3, 32, 32)
    assert found.labels is not None
    assert found.masks_seen
    again, other = (alternatives_of(made, heldout, 3, seed=s, most=4) for s in (1, 2))
    assert isinstance(again, Alternatives)
    assert isinstance(other, Alternatives)
    assert np.array_equal(found.images, again.images)
    assert not np.array_equal(found.images, other.images)
    assert np.array_equal(found.images[:, :2], _of(made, heldout, 2).images)
    assert _of(made, heldout, 2, 1.0).images.std() != _of(made, heldout, 2).images.std()
    family = uncertainty.measure(Evidence(heldout, heldout, heldout, WINDOW), found)
    assert {"uncertainty.rank", "uncertainty.coverage.90"} <= {f.name for f in family.figures}


def _of(made: Generator, heldout: SliceSet, k: int, strength: float = 0.5) -> Alternatives:
    found = alternatives_of(made, heldout, k, seed=1, strength=strength, most=4)
    assert isinstance(found, Alternatives)
    return found


def test_a_run_that_is_given_masks_has_no_masks_to_calibrate(
    layout_run: Path, phantom_cache: Path
) -> None:
    heldout = real_slices(SliceCache.open(phantom_cache), "heldout", WINDOW)
    found = alternatives_of(Generator.from_pretrained(layout_run, "cpu"), heldout, 2, most=3)
    assert isinstance(found, Alternatives)
    assert found.labels is None
    assert found.images.shape == (3, 2, 32, 32)
    bare = replace(heldout, labels=None)
    told = alternatives_of(Generator.from_pretrained(layout_run, "cpu"), bare, 2)
    assert isinstance(told, str)


def test_a_run_that_cannot_be_asked_says_why(tiny_run: Path, phantom_cache: Path) -> None:
    heldout = real_slices(SliceCache.open(phantom_cache), "heldout", WINDOW)
    made = Generator.from_pretrained(tiny_run, "cpu")
    larger = replace(heldout, images=np.zeros((2, 64, 64), np.int16), labels=None)
    assert "32 pixels a side" in str(alternatives_of(made, larger.pick(np.arange(2))))
    assert "takes masks" in str(alternatives_of(made, replace(heldout, labels=None)))
    with pytest.raises(ConfigError, match="at least 2"):
        alternatives_of(made, heldout, 1)


def test_a_model_without_an_encoder_says_so(phantom_cache: Path, tmp_path: Path) -> None:
    from medaug.core.config import resolve
    from medaug.training.loop import fit

    wishes = {
        "data": {"size": 32},
        "model": {"name": "gan"},
        "train": {"images": 16, "batch": 8, "snapshot_every": 16, "precision": "float32"},
    }
    cache = SliceCache.open(phantom_cache)
    fit(resolve(wishes), cache, tmp_path / "gan", device="cpu")
    heldout = real_slices(cache, "heldout", WINDOW)
    told = alternatives_of(Generator.from_pretrained(tmp_path / "gan", "cpu"), heldout)
    assert told == "The model has no encoder, so it cannot be asked about held-out slices."
