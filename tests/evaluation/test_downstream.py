"""A study's scores, slices and arms are what they say, and it sees only whom it may."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.losses import DiceCELoss
from scipy import ndimage

from medaug.core.codec import CTCodec
from medaug.core.errors import CacheError, ConfigError, DataError
from medaug.data.cache.prepare import SliceCache
from medaug.data.cache.subset import part
from medaug.evaluation.downstream.arms import ARMS, chosen
from medaug.evaluation.downstream.lesson import largest_parts
from medaug.evaluation.downstream.material import choose, labelled, pools, unseen
from medaug.evaluation.downstream.scores import case_scores
from medaug.evaluation.downstream.settings import resolve_study
from medaug.evaluation.downstream.streams import IGNORED, Pool, changed, item, mixed, plain
from medaug.evaluation.downstream.student import loss_of, planes, train_segmenter, warped
from medaug.training.checkpoint import read_tensors
from medaug.training.run import trained_on
from medaug.transforms.carvemix import carvemix
from medaug.transforms.cutmix import cutmix
from tests.support.lessons import lesson

CODEC = CTCodec((-160.0, 240.0), {"organ": 3, "tumour": 7})


def pool(n: int, owner: str, level: int, side: int = 32) -> Pool:
    rng = np.random.default_rng(level)
    images = rng.normal(level, 5, (n, side, side)).round().astype(np.int16)
    labels = np.zeros(images.shape, np.uint8)
    labels[:, 8:20, 8:20] = 3
    return Pool(images, labels, [owner] * n)


def surfaces(mask: np.ndarray) -> np.ndarray:
    return mask & ~ndimage.binary_erosion(mask, ndimage.generate_binary_structure(mask.ndim, 1))


def test_scores_equal_distances_taken_by_scipy() -> None:
    rng = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(rng.normal(size=(2, 12, 24, 24)), (0, 2, 3, 3))
    a, b = (noise > 0.02).astype(np.uint8) * 3
    spacing, tolerance = (2.5, 1.5, 1.5), 2.0
    found = case_scores(a, b, CODEC.labels, spacing, tolerance)
    assert set(found["dice"]) == {"organ"}
    assert found["dice"]["organ"] == pytest.approx(
        2 * ((a > 0) & (b > 0)).sum() / ((a > 0).sum() + (b > 0).sum()), abs=1e-12
    )
    one, two = surfaces(a > 0), surfaces(b > 0)
    to_two, to_one = (ndimage.distance_transform_edt(~s, sampling=spacing) for s in (two, one))
    there, back = to_two[one], to_one[two]
    far = max(np.percentile(there, 95), np.percentile(back, 95))
    near = ((there <= tolerance).sum() + (back <= tolerance).sum()) / (len(there) + len(back))
    assert found["hd95"]["organ"] == pytest.approx(far, abs=1e-6)
    assert found["surface_dice"]["organ"] == pytest.approx(near, abs=1e-6)


def test_a_missed_label_costs_the_diagonal_and_an_absent_one_nothing() -> None:
    truth = np.zeros((1, 30, 40), np.uint8)
    truth[:, 10:20, 10:20] = 3
    missed = case_scores(np.zeros_like(truth), truth, CODEC.labels, (5.0, 1.0, 1.0), 1.0)
    assert missed["dice"] == missed["surface_dice"] == {"organ": 0.0}
    assert missed["hd95"]["organ"] == pytest.approx(np.hypot(50, 5))
    moved = np.roll(truth, 3, 2)
    flat = case_scores(moved, truth, CODEC.labels, (5.0, 1.0, 1.0), 1.0)
    assert flat["hd95"]["organ"] == pytest.approx(3)


def test_the_ratio_is_a_probability_and_items_are_addressed() -> None:
    stream = mixed(plain(pool(5, "a", 0)), plain(pool(5, "b", 200)), 0.3)
    share = np.mean([item(stream, 0, k)[0].mean() > 100 for k in range(2000)])
    assert share == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / 2000))
    late = item(stream, 0, 77)[0]
    assert np.array_equal(late, item(stream, 0, 77)[0])
    assert not np.array_equal(late, item(stream, 1, 77)[0])


@pytest.mark.parametrize("mix", [cutmix, carvemix])
def test_rivals_mix_in_another_patient_as_often_as_asked(mix: Any) -> None:
    two = (pool(4, "a", 0), pool(4, "b", 200))
    both = Pool(*(np.concatenate([getattr(p, w) for p in two]) for w in ("images", "labels")),
                [name for p in two for name in p.owners])  # fmt: skip
    stream = changed(both, mix, 0.5, 2.0)
    spans = [np.ptp(item(stream, 0, k)[0].astype(int)) for k in range(400)]
    share = np.mean(np.array(spans) > 100)
    assert 0.3 < share <= 0.56
    alone = changed(both, mix, 0.0, 2.0)
    assert max(np.ptp(item(alone, 0, k)[0].astype(int)) for k in range(50)) < 100


def test_the_loss_is_dice_and_cross_entropy_where_pixels_are_known() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 3, 8, 8, requires_grad=True)
    target = torch.randint(0, 3, (3, 8, 8))
    known = torch.ones(3, 8, 8, dtype=torch.bool)
    whole = DiceCELoss(softmax=True, to_onehot_y=True, batch=True, include_background=False)
    assert loss_of(logits, target, known).item() == pytest.approx(
        whole(logits, target[:, None]).item(), abs=1e-6
    )
    known[:, :4] = False
    loss_of(logits, target, known).backward()
    assert logits.grad is not None
    assert logits.grad[:, :, :4].abs().max() == 0
    assert logits.grad[:, :, 4:].abs().min() > 0


def test_ignored_pixels_stay_ignored_through_a_warp() -> None:
    image = np.zeros((16, 16), np.int16)
    label = np.full((16, 16), 7, np.uint8)
    label[:, :8] = IGNORED
    x, target, known = planes(CODEC, [(image, label)], "cpu")
    still = torch.nn.functional.affine_grid(torch.eye(2, 3)[None], [1, 1, 16, 16], False)
    _, again, same = warped(x, target, known, still)
    assert not known[..., :8].any()
    assert known[..., 8:].all()
    assert torch.equal(same, known)
    assert torch.equal(again, target)
    assert set(again[known].tolist()) == {2}


def test_students_of_a_seed_are_alike_and_standard_augmentation_changes_them() -> None:
    stream = plain(pool(6, "a", 50))
    how: dict[str, Any] = {"steps": 2, "batch": 2, "seed": 4}
    one, same, bare = (
        train_segmenter(stream, CODEC, standard=standard, **how).state_dict()
        for standard in (True, True, False)
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], bare[name]) for name in one)


def test_patients_are_chosen_by_seed_and_number_in_any_order() -> None:
    ids = [f"p{k}" for k in range(12)]
    first = choose(ids, 4, 0, 0)
    assert first == choose(ids[::-1], 4, 0, 0)
    assert len({tuple(choose(ids, 4, 0, subset)) for subset in range(6)}) > 1
    with pytest.raises(ConfigError, match="13 patients asked for, 12 can be learned from"):
        choose(ids, 13, 0, 0)


def test_arms_are_known_by_name() -> None:
    assert [arm.name for arm in chosen(["cutmix", "standard"])] == ["standard", "cutmix"]
    assert len(chosen([])) == len(ARMS) == 14
    with pytest.raises(ConfigError, match="did you mean 'cutmix'"):
        chosen(["cutmx"])


def test_a_part_of_a_cache_holds_its_patients_and_no_other(
    phantom_cache: Path, tmp_path: Path
) -> None:
    whole = SliceCache.open(phantom_cache)
    first, second, third = whole.split["train"]
    some = part(whole, tmp_path / "part", [first], [second])
    assert sorted(some.cases) == sorted([first, second])
    assert some.split == {"train": sorted([first, second]), "heldout": []}
    assert some.cases[first].label is not None
    assert some.cases[second].label is None
    assert not (tmp_path / "part" / "cases" / second / "label.npy").exists()
    assert np.array_equal(some.cases[second].image, whole.cases[second].image)
    assert part(whole, tmp_path / "part", [first], [second]).fingerprint == some.fingerprint
    with pytest.raises(CacheError, match="holds other patients"):
        part(whole, tmp_path / "part", [first, third])
    with pytest.raises(CacheError, match="holds no case nobody"):
        part(whole, tmp_path / "other", ["nobody"])


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*no longer be supported")
def test_a_generator_never_sees_other_patients(
    two_caches: list[SliceCache], tmp_path: Path
) -> None:
    """Whatever the other patients look like, samples and filter of these are the same bits."""
    lessons = [lesson(cache, tmp_path / str(k)) for k, cache in enumerate(two_caches)]
    for masks in ("joint", "layout"):
        a, b = (one.synthetic(masks) for one in lessons)
        assert np.array_equal(a.images, b.images)
        assert np.array_equal(a.labels, b.labels)
    files = [tmp_path / name / "filters" / "n2-s0.safetensors" for name in "01"]
    assert len({read_tensors(file)[2] for file in files}) == 1
    seen = trained_on(tmp_path / "0" / "generators" / "n2-s0-layout")
    assert seen is not None
    assert sorted(seen.cases) == lessons[0].patients
    a, b = (one.synthetic("joint", others="unlabeled") for one in lessons)
    assert not np.array_equal(a.images, b.images)
    seen = trained_on(tmp_path / "0" / "generators" / "n2-s0-joint-unlabeled")
    assert seen is not None
    bare = [name for name, case in seen.cases.items() if not case.labeled]
    assert bare == lessons[0].others


def test_a_generator_sees_other_patients_as_the_segmenter_labels_them(
    two_caches: list[SliceCache], tmp_path: Path
) -> None:
    one = lesson(two_caches[0], tmp_path)
    cache = one.with_guesses
    teacher = one.teacher()
    for name in one.others:
        true, guessed = one.cache.cases[name], cache.cases[name]
        assert guessed.label is not None
        assert np.array_equal(true.image, guessed.image)
        found = teacher.predict(np.array(true.image), batch=16)
        assert np.array_equal(guessed.label, largest_parts(found, [1]))
        assert not np.array_equal(guessed.label, true.label)
        pixels = guessed.label_pixels["pancreas"]
        assert np.array_equal(pixels, (np.array(guessed.label) == 1).sum((1, 2)))
    for name in one.patients:
        assert cache.cases[name].digest == one.known.cases[name].digest
    again = lesson(two_caches[0], tmp_path).with_guesses
    assert again.fingerprint == cache.fingerprint
    assert len(one.synthetic("layout", others="guessed", filtered=False)) == 32
    seen = trained_on(tmp_path / "generators" / "n2-s0-layout-guessed")
    assert seen is not None
    assert seen.fingerprint == cache.fingerprint


def test_the_largest_part_of_each_label_is_kept() -> None:
    labels = np.zeros((3, 8, 8), np.uint8)
    labels[:2, :3, :3] = 1
    labels[0, 6:, 6:] = 1
    labels[2, 5, 5] = 2
    kept = largest_parts(labels, [1, 2])
    assert (kept[:2, :3, :3] == 1).all()
    assert (kept == 1).sum() == 18
    assert np.argwhere(kept == 2).tolist() == [[2, 5, 5]]


def test_what_an_arm_asks_for_changes_its_slices(
    two_caches: list[SliceCache], tmp_path: Path
) -> None:
    one = lesson(two_caches[0], tmp_path)
    plain_ones = one.synthetic("layout")
    voted = one.synthetic("layout", ignoring=True)
    assert np.array_equal(plain_ones.images, voted.images)
    assert (voted.labels == IGNORED).any()
    untouched = voted.labels != IGNORED
    assert np.array_equal(voted.labels[untouched], plain_ones.labels[untouched])
    assert one.images["alternatives"] == 4 * len(voted)
    again = lesson(two_caches[0], tmp_path).synthetic("layout", ignoring=True)
    assert np.array_equal(again.labels, voted.labels)
    strict = lesson(two_caches[0], tmp_path / "strict")
    strict.config.filter.copy_share = 0.5
    strict.config.filter.hu_margin = 0.0
    with pytest.raises(DataError, match=r"the filter kept \d+ of 32 samples"):
        strict.synthetic("layout")
    assert len(strict.synthetic("layout", filtered=False)) == 32


def test_test_patients_are_the_held_out_ones_between_their_labels(phantom_cache: Path) -> None:
    cache = SliceCache.open(phantom_cache)
    data = resolve_study(cache).generator.data
    (case,) = unseen(cache, data, cache.labels, "labelled")
    (whole,) = unseen(cache, data, cache.labels, "all")
    assert [case.name] == cache.split["heldout"]
    assert case.name not in labelled(cache, data, cache.labels)
    assert len(case.images) < len(whole.images) == len(cache.cases[case.name].image)
    assert (case.labels[[0, -1]] > 0).any((1, 2)).all()
    assert case.spacing_mm == cache.cases[case.name].spacing_mm[::-1]


def test_the_slices_of_others_come_without_a_label(phantom_cache: Path, tmp_path: Path) -> None:
    cache = SliceCache.open(phantom_cache)
    config = resolve_study(cache)
    first, second, _ = cache.split["train"]
    some = part(cache, tmp_path / "part", [first], [second])
    known, images, owners = pools(some, config.generator.data, cache.labels)
    assert set(known.owners) == {first}
    assert (known.labels > 0).any((1, 2)).all()
    assert set(owners) <= {second}
    assert len(images) == len(owners)
