"""The scoreboard tells good samples from bad ones, and says what real pictures score."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from medaug.core.errors import ConfigError, WeightsError
from medaug.data.sources.idx import Idx
from medaug.training.checkpoint import write_tensors
from tests.support.script_modules import modules_of

with modules_of("reproducing"):
    from classifier import (
        Classifier,
        accuracy,
        inception_score,
        load,
        save,
        train_classifier,
    )
    from scoreboard import Reference, pair_similarity, real_row, reconstruction_error, score


def test_inception_score_at_its_extremes() -> None:
    certain = torch.eye(10).repeat(100, 1)
    assert inception_score(certain, 10)[0] == pytest.approx(10, rel=1e-6)
    assert inception_score(torch.full((100, 10), 0.1))[0] == pytest.approx(1)
    collapsed = torch.eye(10)[[3]].expand(100, 10)
    assert inception_score(collapsed)[0] == pytest.approx(1, abs=1e-6)


def test_a_classifier_is_the_same_for_the_same_seed_and_survives_its_file(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (200, 16, 16), dtype=torch.uint8)
    labels = torch.arange(200) % 4
    one, two, other = (
        train_classifier(images, labels, 4, count=300, seed=seed) for seed in (0, 0, 1)
    )
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.head.weight, other.head.weight)
    save(tmp_path / "c.safetensors", one, {"test_accuracy": 0.5})
    back, facts = load(tmp_path / "c.safetensors")
    assert facts == {"test_accuracy": 0.5}
    assert all(torch.equal(a, b) for a, b in zip(one.look(images), back.look(images), strict=True))


def test_the_classifier_takes_grey_alone() -> None:
    images = torch.zeros(4, 8, 8, 3, dtype=torch.uint8)
    with pytest.raises(ConfigError, match=r"^the classifier takes grey pictures \(n, s, s\), got "):
        train_classifier(images, torch.zeros(4), 2, count=100)


def test_weights_of_something_else_are_no_classifier(tmp_path: Path) -> None:
    write_tensors(tmp_path / "w.safetensors", {"w": torch.zeros(2)}, {"kind": "image"})
    with pytest.raises(WeightsError, match=r"w\.safetensors: holds no classifier$"):
        load(tmp_path / "w.safetensors")


def test_another_number_of_samples_is_refused() -> None:
    pictures = torch.randint(0, 256, (60, 28, 28), dtype=torch.uint8)
    real = Reference.of(Classifier(28, 10), pictures, pictures, 50)
    with pytest.raises(ConfigError) as caught:
        score(pictures, real)
    assert str(caught.value) == "60 samples cannot be scored against 50 real ones"


def test_reconstruction_error_is_in_units_of_minus_one_to_one() -> None:
    black = torch.zeros(3, 4, 4, dtype=torch.uint8)
    assert reconstruction_error(black, black) == 0
    assert reconstruction_error(black, black + 255) == pytest.approx(4)


def test_pairs_are_of_different_pictures() -> None:
    varied = torch.rand(30, 32, 32, generator=torch.Generator().manual_seed(0))
    assert pair_similarity(varied, 50) < 0.9
    assert pair_similarity(varied[:1].repeat(30, 1, 1), 50) == pytest.approx(1)
    assert pair_similarity(varied, 50) == pair_similarity(varied, 50)


@pytest.fixture(scope="module")
def digits(real_data: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    parts = Idx(real_data / "mnist").parts()
    found = []
    for part in ("train", "test"):
        images, labels = parts[part]
        found += [torch.from_numpy(np.array(images)), torch.from_numpy(np.array(labels))]
    return tuple(found)


@pytest.fixture(scope="module")
def reference(digits: tuple[Tensor, Tensor, Tensor, Tensor]) -> Reference:
    train, labels, test, _ = digits
    classifier = train_classifier(train, labels, 10, count=6000)
    return Reference.of(classifier, train, test, 800)


@pytest.mark.long
@pytest.mark.real
def test_the_classifier_learns(
    digits: tuple[Tensor, Tensor, Tensor, Tensor], reference: Reference
) -> None:
    _, _, test, labels = digits
    assert accuracy(reference.classifier, test[:2000], labels[:2000].long()) > 0.93
    assert accuracy(Classifier(28, 10), test[:500], labels[:500].long()) < 0.4


@pytest.mark.real
def test_real_pictures_score_as_real(reference: Reference) -> None:
    row = real_row(reference)
    assert row["frechet_ratio"] == pytest.approx(1)
    assert row["inception_score"] > 7
    assert row["coverage"] > 0.85
    assert abs(row["mmd_rbf_pixels"]) < 0.005
    assert abs(row["ms_ssim"] - row["ms_ssim_real"]) < 0.03
    assert row["mmd_linear"] == pytest.approx(row["mmd_linear_floor"], rel=0.25)


@pytest.mark.real
@pytest.mark.parametrize("kind", ["noise", "one digit", "one of each class", "blur"])
def test_bad_samples_score_badly(
    digits: tuple[Tensor, Tensor, Tensor, Tensor], reference: Reference, kind: str
) -> None:
    draws = torch.Generator().manual_seed(0)
    real = reference.train
    if kind == "noise":
        bad = torch.randint(0, 256, real.shape, dtype=torch.uint8, generator=draws)
    elif kind == "one digit":
        bad = real[:1].expand_as(real).clone()
        bad[:, 0, 0] = torch.randint(0, 256, (len(bad),), generator=draws).to(torch.uint8)
    elif kind == "one of each class":
        train, labels, *_ = digits
        ten = torch.stack([train[labels == number][0] for number in range(10)])
        bad = ten.repeat(len(real) // 10, 1, 1)
    else:
        wide = torch.nn.functional.avg_pool2d(real[:, None].float(), 9, 1, 4)
        bad = wide[:, 0].to(torch.uint8)
    row, good = score(bad, reference), real_row(reference)
    assert row["frechet_ratio"] > 5
    assert row["coverage"] < 0.5 * good["coverage"]
    fooled = kind == "one of each class"  # each picture certain, the classes even
    assert (row["inception_score"] < good["inception_score"]) != fooled
    if kind == "one digit":
        assert row["ms_ssim"] > 0.95
        assert row["class_kl"] > 2
