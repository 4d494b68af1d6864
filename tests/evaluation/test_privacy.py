"""Privacy: closed forms and other libraries, planted copies, and what must not alarm."""

from dataclasses import replace
from math import comb
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.distance import cdist
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score, roc_curve

from medaug.core.errors import ConfigError
from medaug.data.cache.prepare import SliceCache
from medaug.data.feed.warp import field, warp
from medaug.data.sources.phantom.painting import draw_organs
from medaug.data.sources.phantom.shapes import Organ
from medaug.evaluation.families.membership import auc, interval, loss_of, tpr
from medaug.evaluation.families.privacy import exact_interval, measure
from medaug.evaluation.figures import Bound, Family
from medaug.evaluation.metrics import nearest
from medaug.evaluation.metrics.copies import Search, aligned, highest, threshold
from medaug.evaluation.metrics.nearest import alone, authentic, by_case, closer, expected
from medaug.evaluation.slices.evidence import Evidence, SliceSet, real_slices
from medaug.synthesis.generator import Generator

WINDOW = (-160.0, 240.0)
VAE = {"latent_dim": 4, "prior": "gaussian"}
SIZE = 64


def patients(first: int, count: int) -> SliceSet:
    """The slices of phantom patients that show the pancreas."""
    images, labels, cases, heights = [], [], [], []
    for number in range(first, first + count):
        hu, organs, _ = draw_organs(number, (SIZE, SIZE, 24), (6.0, 6.0, 8.0))
        marks = (organs == Organ.PANCREAS).astype(np.uint8)
        for z in np.flatnonzero(marks.any((0, 1))):
            images.append(hu[:, :, z].T.clip(*WINDOW).astype(np.int16))
            labels.append(marks[:, :, z].T)
            cases.append(f"p{number:03d}")
            heights.append(z)
    names = {"pancreas": 1}
    return SliceSet(np.stack(images), np.stack(labels), cases, np.array(heights), 6, 8, names)


@pytest.fixture(scope="module")
def real() -> dict[str, SliceSet]:
    """Patients of training, held out, and such as no threshold was chosen on."""
    return {"train": patients(0, 8), "heldout": patients(100, 6), "unseen": patients(200, 8)}


def as_synthetic(images: np.ndarray, labels: np.ndarray | None = None) -> SliceSet:
    """Slices of single synthetic cases."""
    n = len(images)
    whole = np.rint(images).clip(*WINDOW).astype(np.int16)
    names = [f"syn_{i}" for i in range(n)]
    return SliceSet(whole, labels, names, np.zeros(n, np.int64), 6, 8, {"pancreas": 1})


def judged(real: dict[str, SliceSet], synthetic: SliceSet, **more: object) -> Family:
    return measure(Evidence(synthetic, real["train"], real["heldout"], WINDOW), **more)  # type: ignore[arg-type]


def shifted(images: np.ndarray, down: int, across: int) -> np.ndarray:
    return ndimage.shift(images, (0, down, across), order=0, cval=WINDOW[0])


def noised(images: np.ndarray, hu: float) -> np.ndarray:
    return (images + np.random.default_rng(0).normal(0, hu, images.shape)).clip(*WINDOW)


def bent(images: np.ndarray) -> np.ndarray:
    x = torch.from_numpy((images + 160.0) / 200 - 1).float()[:, None]
    draws = torch.Generator().manual_seed(0)
    grid = field(len(x), (SIZE, SIZE), draws, rotate=0.03, scale=0.03, shift=0.01, elastic=0.004)
    return (warp(x, grid)[:, 0].numpy() + 1) * 200 - 160


CHANGES = {
    "exact": lambda x: x,
    "shifted": lambda x: shifted(x, 2, -3),
    "mirrored": lambda x: x[:, :, ::-1],
    "noised": lambda x: noised(x, 30),
    "brighter": lambda x: x + 30,
    "bent": bent,
    "all": lambda x: noised(shifted(x[:, :, ::-1], -2, 1), 25),
}


def with_copies(real: dict[str, SliceSet], change: str) -> SliceSet:
    """Unseen slices of which one in ten is a changed training slice."""
    base = real["unseen"].some(100, 0).images.astype(float)
    base[:10] = CHANGES[change](real["train"].some(10, 3).images.astype(float))
    return as_synthetic(base)


@pytest.mark.long
@pytest.mark.parametrize("change", CHANGES)
def test_one_copy_in_ten_fails_and_is_listed(real: dict[str, SliceSet], change: str) -> None:
    family = judged(real, with_copies(real, change))
    assert "privacy.copies" in [figure.name for figure in family.failed]
    listed = family.details["copies"]["listed"]
    copied = real["train"].some(10, 3)
    places = list(zip(copied.cases, copied.heights.tolist(), strict=True))
    found = {row["synthetic"]: row for row in listed}
    right = 0
    for number, (case, height) in enumerate(places):
        if row := found.get(f"syn_{number}"):
            right += row["training"] == case and abs(row["training_slice"] - height) <= 1
            if change in ("mirrored", "all"):
                assert row["mirrored"]
    assert right >= 9
    assert len(listed) <= 11
    pictures = family.pictures[0]
    assert [len(row) for row in pictures.rows] == [3] * 8
    assert pictures.row_names[0].startswith("suspected copy")
    assert all(cell.dtype == np.uint8 for row in pictures.rows for cell in row)


def harmless(real: dict[str, SliceSet]) -> dict[str, SliceSet]:
    base = real["unseen"].some(100, 0)
    x = base.images.astype(float)
    assert base.labels is not None
    return {
        "unseen": base,
        "heldout": real["heldout"],
        "blur": as_synthetic(ndimage.gaussian_filter(x, (0, 1.5, 1.5))),
        "noise": as_synthetic(noised(x, 40)),
        "collapse": as_synthetic(np.repeat(x[:10], 10, 0)),
        "brighter": as_synthetic(x + 30),
        "masks": as_synthetic(x, np.roll(base.labels, 4, 2)),
    }


@pytest.mark.parametrize(
    "defect", ["unseen", "heldout", "blur", "noise", "collapse", "brighter", "masks"]
)
def test_what_is_no_copy_passes(real: dict[str, SliceSet], defect: str) -> None:
    family = judged(real, harmless(real)[defect])
    assert family.failed == []


def test_every_figure_says_what_it_is_and_stands_beside_a_real_one(real) -> None:
    family = judged(real, real["unseen"].some(60, 0), spaces={"mean": lambda x: _means(x)})
    names = [figure.name for figure in family.figures]
    assert len(set(names)) == len(names) == 2 + 3 * 6
    assert {name.split(".")[2] for name in names[2:]} == {"pixels", "cells", "mean"}
    for figure in family.figures:
        assert figure.family == family.name == "privacy"
        assert np.isfinite([figure.value, figure.low, figure.high]).all()
        assert figure.low <= figure.value <= figure.high
        assert figure.seed == 0
        if figure.name == "privacy.copies_found":
            assert figure.value >= 0.95
            continue
        assert figure.n == 60
        assert figure.real is not None
        assert np.isfinite(figure.real)
        assert figure.sentence.endswith((".", "pairs."))
    assert any("loss" in line for line in family.skipped)


def _means(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images.astype(np.float64).mean(2))


def test_copies_of_everything_are_seen_by_every_figure(real) -> None:
    train = real["train"]
    family = judged(real, as_synthetic(train.images.astype(float)))
    value = {figure.name: figure.value for figure in family.figures}
    assert value["privacy.copies"] == 1
    assert value["privacy.closer.pixels"] == 1
    assert value["privacy.authenticity.pixels"] == 0
    assert value["privacy.membership_auc.pixels"] == 1
    assert value["privacy.membership_tpr.pixels"] == 1
    assert value["privacy.nearest_train.cells"] < 0.8 * value["privacy.nearest_heldout.cells"]


def test_one_training_patient_has_no_real_value_and_says_so(real) -> None:
    train = real["train"]
    only = train.pick(np.array(train.cases) == train.cases[0])
    family = judged({**real, "train": only}, real["unseen"].some(40, 0))
    assert all(figure.real is None for figure in family.figures)
    assert any("two training patients" in line for line in family.skipped)
    assert family.failed == []


def test_bounds_may_be_named(real) -> None:
    few = real["unseen"].some(40, 0)
    strict = judged(real, few, bounds={"privacy.authenticity.pixels": Bound(least=1.1)})
    assert [figure.name for figure in strict.failed] == ["privacy.authenticity.pixels"]
    lax = judged(real, with_copies(real, "exact"), bounds={"privacy.copies": Bound(most=0.5)})
    assert lax.failed == []


def test_two_calls_agree(real) -> None:
    few = real["unseen"].some(40, 0)
    assert judged(real, few).figures == judged(real, few).figures


def test_slices_of_128_px_are_searched_as_well(real) -> None:
    large = {k: replace(v, images=v.images.repeat(2, 1).repeat(2, 2)) for k, v in real.items()}
    x = large["train"].some(10, 3).images
    search = Search([large["train"].images], large["train"].cases, WINDOW[0])
    moved = np.roll(x[:, :, ::-1], (4, -6), (1, 2))
    for image, match in zip(moved, search.match(moved), strict=True):
        again = aligned(large["train"].images[match.index], match, WINDOW[0])
        assert match.mirrored
        inside = np.s_[12:-12, 12:-12]
        assert np.abs(again[inside].astype(float) - image[inside]).mean() < 1


def test_a_slice_of_the_own_case_is_not_looked_at(real) -> None:
    train = real["train"]
    search = Search([train.images], train.cases, WINDOW[0])
    some = train.some(10, 0)
    assert all(m.score == pytest.approx(1, abs=1e-5) for m in search.match(some.images))
    apart = search.match(some.images, some.cases)
    assert all(m.score < 0.95 for m in apart)
    pairs = zip(apart, some.cases, strict=True)
    assert all(train.cases[m.index] != case for m, case in pairs)


def test_the_threshold_keeps_false_positives_below_one_in_a_hundred() -> None:
    rng = np.random.default_rng(0)
    few = rng.normal(size=200)
    assert highest(few) == few.max()
    many = rng.normal(size=5000)
    above = int((many > highest(many)).sum())
    assert binomtest(above, 5000).proportion_ci(0.9, "exact").high <= 0.01
    assert binomtest(above + 1, 5000).proportion_ci(0.9, "exact").high > 0.01
    rates = [(rng.normal(size=2000) > highest(rng.normal(size=1000))).mean() for _ in range(100)]
    assert np.mean(np.array(rates) <= 0.01) >= 0.9


def test_copies_begin_half_way_up_to_planted_ones() -> None:
    unseen, planted = np.full(50, np.tanh(0.5)), np.full(50, np.tanh(1.5))
    line = threshold(unseen, planted)
    assert line.value == pytest.approx(np.tanh(1.0), abs=1e-9)
    assert (line.unseen, line.planted, line.found) == (unseen[0], planted[0], 1)
    blunt = threshold(planted, unseen)
    assert (blunt.value, blunt.found) == (planted[0], 0)


def test_a_search_too_blunt_to_find_copies_does_not_pass(real) -> None:
    rng = np.random.default_rng(0)
    flat = {k: replace(v, images=np.full_like(v.images, -100)) for k, v in real.items()}
    flat["heldout"].images[:] += rng.integers(0, 2, flat["heldout"].images.shape, np.int16)
    family = judged(flat, flat["unseen"].some(40, 0))
    assert "privacy.copies_found" in [figure.name for figure in family.failed]


def test_an_exact_interval_is_scipys() -> None:
    for count, n in ((0, 20), (3, 20), (20, 20)):
        theirs = binomtest(count, n).proportion_ci(0.95, "exact")
        assert exact_interval(count, n) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def features(n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed)) + 100


def test_distances_are_scipys_whatever_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = features(40, 0), features(30, 1)
    cases = [f"c{i % 4}" for i in range(30)]
    theirs = cdist(a.double().numpy(), b.double().numpy()) / 6**0.5
    wanted = np.stack([theirs[:, k::4].min(1) for k in range(4)], 1)
    assert by_case(a, b, cases) == pytest.approx(wanted, abs=1e-6)
    monkeypatch.setattr(nearest, "BLOCK", 7)
    assert by_case(a, b, cases) == pytest.approx(wanted, abs=1e-6)
    own = by_case(a, b, cases, ["c2"] * 40)
    assert np.isinf(own[:, 2]).all()
    assert np.isfinite(own[:, [0, 1, 3]]).all()


def test_the_expected_nearest_is_the_mean_over_all_choices() -> None:
    from itertools import combinations

    minima = np.random.default_rng(0).random((5, 6))
    minima[0, 2] = np.inf
    for count in range(1, 6):
        for row, found in zip(minima, expected(minima, count), strict=True):
            there = row[np.isfinite(row)]
            choices = list(combinations(there, count))
            assert len(choices) == comb(len(there), count)
            assert found == pytest.approx(np.mean([min(c) for c in choices]), abs=1e-12)
    with pytest.raises(ValueError, match="6 of 5 cases"):
        expected(minima, 6)


def test_closer_is_a_share_at_equal_numbers_and_a_half_for_strangers_at_others() -> None:
    rng = np.random.default_rng(0)
    train, heldout = rng.random((1000, 5)), rng.random((1000, 5))
    share = (train.min(1) < heldout.min(1)).mean()
    assert closer(train, heldout) == pytest.approx(share, abs=1e-12)
    train, heldout = rng.random((20000, 12)), rng.random((20000, 3))
    assert (train.min(1) < heldout.min(1)).mean() > 0.7
    assert closer(train, heldout) == pytest.approx(0.5, abs=0.02)
    assert closer(train * 0, heldout) == 1


def test_authenticity_is_its_definition() -> None:
    train, synthetic = features(50, 0), features(60, 1)
    synthetic[:20] = train[:20] + 0.01
    cases = [f"c{i % 5}" for i in range(50)]
    between = cdist(synthetic.double(), train.double())
    within = cdist(train.double(), train.double())
    np.fill_diagonal(within, np.inf)
    near = between.argmin(1)
    wanted = between.min(1) > within.min(1)[near]
    assert (authentic(synthetic, train, cases, alone(train)) == wanted).all()
    assert not wanted[:20].any()
    assert authentic(train, train, cases, alone(train), cases).mean() > 0.1


def test_membership_figures_are_sklearns() -> None:
    rng = np.random.default_rng(0)
    members, others = rng.normal(0, 1, 700).round(2), rng.normal(0.7, 1, 450).round(2)
    truth = np.r_[np.ones(700), np.zeros(450)]
    scores = -np.r_[members, others]
    assert auc(members, others) == pytest.approx(roc_auc_score(truth, scores), abs=1e-9)
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    for rate in (0.0, 0.01, 0.1):
        best = true[false <= rate].max()
        assert tpr(members, others, rate) == pytest.approx(best, abs=1e-9)
    cases = [f"m{i % 9}" for i in range(700)], [f"o{i % 7}" for i in range(450)]
    low, high = interval(auc, members, others, cases, 0)
    assert low < auc(members, others) < high


def test_a_models_loss_tells_what_it_overfits(tiny_run: Path, phantom_cache: Path) -> None:
    cache = SliceCache.open(phantom_cache)
    train, heldout = (real_slices(cache, split, WINDOW) for split in ("train", "heldout"))
    trained = Generator.from_pretrained(tiny_run, "cpu")
    loss = loss_of(trained, heldout)
    assert loss.what == "reconstruction error"
    first = train.pick(np.arange(3))
    x = trained.codec.encode(torch.from_numpy(first.images), torch.from_numpy(first.labels))
    z = trained.model.encode(x, None)[0]
    wanted = (trained.model.decode(z, None) - x).square().mean((1, 2, 3))
    assert loss.of(first) == pytest.approx(wanted.numpy(), abs=1e-6)
    family = measure(Evidence(train, train, heldout, WINDOW), loss=loss)
    told = {figure.name: figure for figure in family.figures}
    assert told["privacy.membership_auc.loss"].real is None
    assert 0 <= told["privacy.membership_auc.loss"].value <= 1
    assert not any("own loss" in line for line in family.skipped)


def test_the_loss_of_a_vae_is_its_bound(phantom_cache: Path, tmp_path: Path) -> None:
    from medaug.core.config import resolve
    from medaug.training.loop import fit

    cache = SliceCache.open(phantom_cache)
    small = {"data": {"size": 32}, "train": {"images": 64, "batch": 8, "precision": "float32"}}
    for name, masks in (("vae", "joint"), ("vae", "layout"), ("wgan_gp", "joint")):
        model = {"name": name, "width": 8, **(VAE if name == "vae" else {})}
        config = resolve({**small, "model": model}, {"data": {"masks": masks}})
        fit(config, cache, tmp_path / f"{name}-{masks}", device="cpu")
    heldout = real_slices(cache, "heldout", WINDOW)
    for masks in ("joint", "layout"):
        trained = Generator.from_pretrained(tmp_path / f"vae-{masks}", "cpu")
        loss = loss_of(trained, heldout)
        assert loss.what == "bound on -log p(x)"
        some = loss.of(heldout)
        assert some == pytest.approx(loss.of(heldout), abs=0)
        spoiled = replace(heldout, images=heldout.images[:, ::-1].copy())
        assert loss.of(spoiled).mean() > some.mean()
    with pytest.raises(ConfigError, match="wgan_gp has no encoder"):
        loss_of(Generator.from_pretrained(tmp_path / "wgan_gp-joint", "cpu"), heldout)
