"""Anatomy and looks see the defects that are theirs on phantoms, and no others."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from scipy.stats import wasserstein_distance

from medaug.data import open_source
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
from medaug.data.sources.phantom import source
from medaug.evaluation.families import anatomy, appearance
from medaug.evaluation.families.anatomy import altered, pairs, stride, witness
from medaug.evaluation.figures import Bound, Family, Figure
from medaug.evaluation.metrics.intervals import bootstrap, weights
from medaug.evaluation.metrics.mask_shapes import elongation, shapes
from medaug.evaluation.slices.evidence import Evidence, SliceSet, real_slices
from medaug.training.segmenter import Segmenter

WINDOW = (-160.0, 240.0)
People = tuple[SliceSet, SliceSet, SliceSet]


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    """Slices of 18 phantoms: 6 in training, 6 to be taken for synthetic, 6 held out."""
    root = tmp_path_factory.mktemp("people")
    source.write(root / "scans", 18, 3, (64, 64, 32), (5.9, 5.9, 6.0))
    settings = CacheSettings(size=64, fov_mm=360, holdout=2 / 3)
    prepare(open_source(str(root / "scans")), root / "cache", settings, 0)
    cache = SliceCache.open(root / "cache")
    train, others = (real_slices(cache, s, WINDOW, least=10) for s in ("train", "heldout"))
    first = np.isin(others.cases, sorted(set(others.cases))[::2])
    return train, others.pick(first), others.pick(~first)


@pytest.fixture(scope="module")
def network(people: People) -> Segmenter:
    return witness(people[0], WINDOW, count=1600)


def clipped(images: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(images), *WINDOW).astype(np.int16)


def collapsed(slices: SliceSet) -> SliceSet:
    """Ten slices time and again."""
    chosen = np.random.default_rng(1).permutation(len(slices))[:10]
    return slices.pick(np.resize(chosen, len(slices)))


def copied(slices: SliceSet, train: SliceSet) -> SliceSet:
    """A tenth of the slices replaced by training slices."""
    n = len(slices) // 10
    images, labels = slices.images.copy(), slices.labels.copy()
    images[:n], labels[:n] = train.images[:n], train.labels[:n]
    return replace(slices, images=images, labels=labels)


def changed(slices: SliceSet, how: Callable[[np.ndarray], np.ndarray]) -> SliceSet:
    return replace(slices, images=clipped(how(slices.images.astype(float))))


def under_mask(slices: SliceSet, hu: float) -> SliceSet:
    return changed(slices, lambda images: images + hu * (slices.labels > 0))


def rolled(slices: SliceSet, axis: int, by: int) -> SliceSet:
    return replace(slices, labels=np.roll(slices.labels, by, axis))


def noised(images: np.ndarray) -> np.ndarray:
    return images + np.random.default_rng(2).normal(0, 25, images.shape)


def blurred(images: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(images, (0, 1, 1))


def judged(people: People, made: SliceSet, network: Segmenter) -> tuple[Family, list[Figure]]:
    evidence = Evidence(made, people[0], people[2], WINDOW)
    looks, _, skipped = appearance.figures(evidence)
    assert not skipped
    return anatomy.measure(evidence, network), looks


def failed(figures: list[Figure]) -> set[str]:
    return {figure.name for figure in figures if figure.passed is False}


@pytest.mark.long
def test_real_patients_in_the_place_of_synthetic_ones_pass(
    people: People, network: Segmenter
) -> None:
    for made in people[:2]:
        family, looks = judged(people, made, network)
        assert not failed([*family.figures, *looks])
        assert not family.skipped
    for figure in [*family.figures, *looks]:
        assert figure.low is not None
        assert figure.low <= figure.value <= figure.high
        assert figure.real is not None
        assert figure.sentence
    assert {figure.family for figure in looks} == {"fidelity"}
    assert {figure.family for figure in family.figures} == {"anatomy"}
    (picture,) = family.pictures
    assert {cell.shape for row in picture.rows for cell in row} == {(64, 64, 3)}


@pytest.mark.parametrize(
    ("axis", "by"), [(1, 4), (1, -4), (2, 4), (2, -4)], ids=["up", "down", "right", "left"]
)
def test_masks_moved_by_four_pixels_fail(
    people: People, network: Segmenter, axis: int, by: int
) -> None:
    family, looks = judged(people, rolled(people[1], axis, by), network)
    assert "anatomy.agreement.pancreas" in failed(family.figures)
    assert not failed(looks)


@pytest.mark.parametrize("hu", [-60.0, 60.0])
def test_wrong_hu_under_the_masks_fail(people: People, network: Segmenter, hu: float) -> None:
    family, looks = judged(people, under_mask(people[1], hu), network)
    assert "anatomy.level.pancreas" in failed(family.figures)
    assert not failed(looks)


def test_masks_of_other_slices_and_of_another_size_fail(people: People, network: Segmenter) -> None:
    made = people[1]
    order = np.random.default_rng(0).permutation(len(made))
    family, _ = judged(people, replace(made, labels=made.labels[order]), network)
    assert {"anatomy.agreement.pancreas", "anatomy.continuity.dice"} <= failed(family.figures)
    large = ndimage.binary_dilation(made.labels > 0, np.ones((1, 3, 3)), 2).astype(np.uint8)
    family, _ = judged(people, replace(made, labels=large), network)
    assert "anatomy.area.pancreas" in failed(family.figures)


@pytest.mark.parametrize(
    ("how", "seen"),
    [
        (blurred, {"fidelity.noise", "fidelity.sharpness"}),
        (noised, {"fidelity.noise"}),
        (lambda images: images + 30, {"fidelity.level.fat"}),
        (lambda images: images - 30, {"fidelity.level.fat"}),
    ],
    ids=["blur", "noise", "shift", "shift down"],
)
def test_wrong_looks_are_for_fidelity_to_see(
    people: People, network: Segmenter, how: Callable[[np.ndarray], np.ndarray], seen: set[str]
) -> None:
    family, looks = judged(people, changed(people[1], how), network)
    assert seen <= failed(looks)
    assert not failed(list(family.figures))


def test_collapse_and_copies_are_for_others_to_see(people: People, network: Segmenter) -> None:
    for made in (collapsed(people[1]), copied(people[1], people[0])):
        family, looks = judged(people, made, network)
        assert not failed([*family.figures, *looks])


def test_bounds_can_be_set_for_all_labels_or_for_one(people: People, network: Segmenter) -> None:
    evidence = Evidence(people[1], people[0], people[2], WINDOW)
    for name in ("anatomy.area", "anatomy.area.pancreas"):
        family = anatomy.measure(evidence, network, {name: Bound(most=0.0)})
        assert failed(list(family.figures)) == {"anatomy.area.pancreas"}
    loose = {"anatomy.area": Bound(most=9.0), "anatomy.area.pancreas": Bound(most=0.0)}
    assert anatomy.measure(evidence, network, loose).failed


def test_what_cannot_be_measured_is_said(people: People) -> None:
    train, made, heldout = people
    bare = Evidence(replace(made, labels=None), train, heldout, WINDOW)
    family = anatomy.measure(bare)
    assert any("the synthetic slices have none" in reason for reason in family.skipped)
    assert all(figure.name == "anatomy.continuity.hu" for figure in family.figures)
    alone = replace(made, cases=[f"s{i}" for i in range(len(made))], labels=None)
    family = anatomy.measure(Evidence(alone, train, heldout, WINDOW))
    assert not family.figures
    assert any("lie on each other" in reason for reason in family.skipped)


def test_the_real_value_is_that_of_as_many_training_slices(
    people: People, network: Segmenter
) -> None:
    train, made, heldout = people
    few = made.pick(np.arange(20))
    family = anatomy.measure(Evidence(few, train, heldout, WINDOW, seed=5), network)
    area = next(figure for figure in family.figures if figure.name == "anatomy.area.pancreas")
    real, there = (
        (part.labels > 0).sum((1, 2)) * part.pixel_mm**2 for part in (train.some(20, 5), heldout)
    )
    assert area.real == pytest.approx(wasserstein_distance(real, there) / there.std(), rel=1e-9)
    mine = (few.labels > 0).sum((1, 2)) * few.pixel_mm**2
    assert area.value == pytest.approx(wasserstein_distance(mine, there) / there.std(), rel=1e-9)
    assert (area.n, area.n_real, area.seed) == (20, len(heldout), 5)


def flat(images: np.ndarray, labels: np.ndarray) -> SliceSet:
    """A set with a case for each slice."""
    n = len(images)
    cases, heights = [f"c{i}" for i in range(n)], np.zeros(n, np.int64)
    return SliceSet(images, labels, cases, heights, 2.0, 3.0, {"organ": 1})


def test_a_rectangle_measures_what_it_is() -> None:
    image = np.full((40, 60), -160, np.int16)
    image[5:35, 10:50] = 40  # body: middle (19.5, 29.5), half-sides 15 and 20
    label = np.zeros((40, 60), np.uint8)
    label[10:13, 30:42] = 1
    image[10:13, 30:42] = 100
    label[20, 20] = 1
    slices = flat(image[None], label[None])
    found = shapes(slices, slices.bodies, 1)
    assert found.area[0] == 37 * 4
    assert found.components[0] == 2
    assert found.level[0] == 100
    assert found.inside[0] == 1
    alone = replace(slices, labels=np.where(label == 1, 1, 0)[None].astype(np.uint8))
    alone.labels[0, 20, 20] = 0
    found = shapes(alone, alone.bodies, 1)
    assert found.elongation[0] == pytest.approx(4, rel=1e-9)
    assert found.across[0] == pytest.approx((35.5 - 29.5) / 20)
    assert found.down[0] == pytest.approx((11 - 19.5) / 15)


def test_elongation_does_not_depend_on_direction_and_a_pixel_is_round() -> None:
    rng = np.random.default_rng(0)
    y, x = np.nonzero(rng.random((20, 20)) > 0.7)
    assert elongation(y, 3 * x) == pytest.approx(elongation(3 * x, y))
    assert elongation(np.array([4]), np.array([7])) == pytest.approx(1)


def test_a_slice_without_the_label_has_no_form() -> None:
    image = np.full((2, 32, 32), 40, np.int16)
    image[:, :4] = -160
    label = np.zeros((2, 32, 32), np.uint8)
    label[1, 10:14, 10:14] = 1
    found = shapes(flat(image, label), np.ones(image.shape, bool), 1)
    assert found.shown.tolist() == [False, True]
    assert np.isnan(found.area[0])


def test_the_body_is_found_where_air_is_not_at_its_usual_hu(people: People) -> None:
    plain, moved = people[1], changed(people[1], lambda images: images + 30)
    assert (plain.bodies != moved.bodies).mean() < 0.005


def test_neighbours_are_paired_by_case_and_height(people: People) -> None:
    made = people[1].pick(np.arange(12))
    near, far = pairs(made), pairs(made, 2)
    assert len(near.hu) > len(far.hu) > 0
    assert near.hu.mean() < far.hu.mean()
    mixed = pairs(made.pick(np.random.default_rng(0).permutation(12)))
    assert np.sort(mixed.hu) == pytest.approx(np.sort(near.hu))
    assert stride(made, 2 * made.step_mm) == 2
    assert stride(made, 0.5 * made.step_mm) is None


def test_the_witness_sees_altered_slices_within_the_window(people: People) -> None:
    images = people[0].images[:5]
    once, again = altered(images, WINDOW, 3), altered(images, WINDOW, 3)
    assert np.array_equal(once, again)
    assert not np.array_equal(once, altered(images, WINDOW, 4))
    assert (once.min(), once.max()) >= (-160, 0)
    assert once.max() <= 240


def test_an_interval_of_a_mean_is_that_of_theory() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400)
    cases = [str(i) for i in range(400)]

    def mean(weight: np.ndarray) -> float:
        return float(weight @ values / weight.sum())

    found = bootstrap(mean, (cases,), 0, "x")
    assert found.value == pytest.approx(values.mean())
    assert found.low is not None
    assert found.high is not None
    assert found.high - found.low == pytest.approx(2 * 1.96 * 2 / 20, rel=0.15)
    assert (found.low + found.high) / 2 == pytest.approx(values.mean())


def test_slices_of_a_case_are_resampled_together() -> None:
    weight = weights(["a", "b", "a", "c"], 0, "x")
    assert weight[0] == weight[2]
    assert weight[[0, 1, 3]].sum() == 3
    found = bootstrap(lambda w: 1.0, (["a", "a"],), 0, "x")
    assert (found.value, found.low, found.high) == (1.0, None, None)


def test_masks_that_are_all_empty_fail(people: People, network: Segmenter) -> None:
    train, real, heldout = people
    assert real.labels is not None
    empty = replace(real, labels=np.zeros_like(real.labels))
    found = anatomy.measure(Evidence(empty, train, heldout, WINDOW), network)
    shown = [figure for figure in found.figures if "continuity" not in figure.name]
    assert [figure.name for figure in shown] == [f"anatomy.shown.{n}" for n in heldout.names]
    assert [figure.value for figure in shown] == [0.0] * len(shown)
    assert all(figure.passed is False for figure in shown)


def test_repeated_slices_count_once_and_few_are_not_judged(
    people: People, network: Segmenter
) -> None:
    train, real, heldout = people
    few = anatomy.measure(Evidence(collapsed(real), train, heldout, WINDOW), network)
    assert all("continuity" in figure.name for figure in few.figures)
    assert few.skipped[-1].endswith("different synthetic slices show it, and 20 are needed.")
    once, twice = (
        {
            f.name: f.value
            for f in anatomy.measure(Evidence(part, train, heldout, WINDOW), network).figures
        }
        for part in (real, real.pick(np.repeat(np.arange(len(real)), 2)))
    )
    assert once == twice
