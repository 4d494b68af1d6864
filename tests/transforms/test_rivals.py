"""CutMix, CarveMix, copy-paste and contrast randomisation on arrays, and between grids."""

from itertools import product
from typing import Any

import numpy as np
import pytest

from medaug.core.errors import ConfigError
from medaug.transforms.carvemix import carve, carvemix
from medaug.transforms.contrast import randomise_contrast
from medaug.transforms.copypaste import copypaste
from medaug.transforms.cutmix import box, cutmix
from medaug.transforms.grids import label_middle, onto, turn, turned, turned_affine
from medaug.transforms.scan import Scan, put

SPACES = [(24, 20), (16, 14, 10)]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def scan(space: tuple[int, ...], seed: int, ids: tuple[int, ...] = (1, 2)) -> Scan:
    """Noise about 100 * seed with a block for every id, the first the larger."""
    noise = rng(seed).normal(100 * seed, 5, (1, *space)).astype(np.int16)
    label = np.zeros(space, np.uint8)
    for number, at in zip(ids, (3, 9), strict=False):
        label[tuple(slice(at, at + 7 - number) for _ in space)] = number
    return Scan(noise, label, (1.5, 2.0, 3.0)[: len(space)])


def from_other(result: Scan, mine: Scan, other: Scan) -> np.ndarray:
    """The voxels taken from ``other``, checked to be exactly its image there, mine elsewhere."""
    taken = result.image[0] != mine.image[0]
    assert np.array_equal(result.image[0], np.where(taken, other.image[0], mine.image[0]))
    return taken


@pytest.mark.parametrize("space", SPACES)
def test_cutmix_takes_a_box_of_image_and_label(space: tuple[int, ...]) -> None:
    mine, other = scan(space, 1), scan(space, 7, (3, 4))
    region = box(space, rng(3))
    result = cutmix(mine, other, rng(3))
    assert 0 < region.sum() < region.size
    assert np.array_equal(from_other(result, mine, other), region)
    assert np.array_equal(result.label, np.where(region, other.label, mine.label))
    filled = [slice(i.min(), i.max() + 1) for i in np.nonzero(region)]
    assert region[tuple(filled)].all()
    assert mine.image.dtype == result.image.dtype


def test_a_box_has_the_share_that_was_drawn() -> None:
    for space in [(400, 300), (80, 60, 70), (400, 1, 300)]:
        for seed in range(40):
            share = 1 - rng(seed).beta(0.7, 0.7)
            region = box(space, rng(seed), 0.7)
            assert region.mean() <= share + 0.02
    inside = [box((400, 300), rng(s), 1.0).mean() - (1 - rng(s).beta(1, 1)) for s in range(60)]
    assert np.median(np.abs(inside)) < 0.35
    assert min(np.abs(inside)) < 0.005
    flat = [box((30, 1, 20), rng(s)).any(axis=(0, 2)) for s in range(20)]
    assert np.mean(flat) > 0.8


def test_alpha_changes_the_boxes() -> None:
    sharp = [box((50, 50), rng(s), 0.1).mean() for s in range(200)]
    even = [box((50, 50), rng(s), 50.0).mean() for s in range(200)]
    assert np.std(sharp) > 2 * np.std(even)
    with pytest.raises(ConfigError, match="alpha must be above 0, got 0"):
        box((5, 5), rng(), 0)


@pytest.mark.parametrize("space", SPACES)
def test_a_carved_region_is_a_level_set_of_the_distance(space: tuple[int, ...]) -> None:
    other = scan(space, 1, (1,))
    lesion = other.label == 1
    points = np.stack(np.meshgrid(*map(np.arange, space), indexing="ij"), -1) * other.spacing
    ins, outs = points[lesion], points[~lesion]
    depth = max(np.linalg.norm(outs - p, axis=1).min() for p in ins)
    seen = []
    for seed in range(30):
        region, threshold = carve(lesion, other.spacing, rng(seed))
        seen.append(threshold / depth)
        for where in rng(seed).integers(0, space, (40, len(space))):
            here = where * other.spacing
            inside = lesion[tuple(where)]
            gap = np.linalg.norm((outs if inside else ins) - here, axis=1).min()
            assert region[tuple(where)] == ((-gap if inside else gap) <= threshold)
    assert -0.5 <= min(seen) < 0 < max(seen) <= 1


def test_the_threshold_is_drawn_as_in_the_paper() -> None:
    lesion = np.zeros((30, 30), bool)
    lesion[8:21, 8:21] = True
    drawn = np.array([carve(lesion, (1.0, 1.0), rng(s))[1] for s in range(600)]) / 7
    assert 0.44 < (drawn > 0).mean() < 0.56
    assert drawn[drawn > 0].mean() == pytest.approx(0.5, abs=0.06)
    assert drawn[drawn < 0].mean() == pytest.approx(-0.25, abs=0.03)


@pytest.mark.parametrize("space", SPACES)
def test_carvemix_moves_image_and_labels_of_the_region(space: tuple[int, ...]) -> None:
    mine, other = scan(space, 1), scan(space, 7, (3, 4))
    region, _ = carve(other.label == 4, other.spacing, rng(5))
    result = carvemix(mine, other, rng(5), labels=[4])
    assert np.array_equal(from_other(result, mine, other), region)
    assert np.array_equal(result.label, np.where(region, other.label, mine.label))
    assert (result.label == 4).any()
    everything, _ = carve(other.label > 0, other.spacing, rng(5))
    assert np.array_equal(from_other(carvemix(mine, other, rng(5)), mine, other), everything)


def test_a_lesion_that_fills_the_slice_still_has_a_border() -> None:
    region, threshold = carve(np.ones((8, 8), bool), (1.0, 1.0), rng(1))
    assert abs(threshold) <= 4
    assert region.any()


def test_without_a_lesion_nothing_changes() -> None:
    mine, other = scan((20, 20), 1), scan((20, 20), 7)
    for rival in (carvemix, copypaste):
        result = rival(mine, other, rng(), labels=[9])
        assert np.array_equal(result.image, mine.image)
        assert np.array_equal(result.label, mine.label)


@pytest.mark.parametrize("space", SPACES)
def test_copypaste_lays_the_chosen_ids_over(space: tuple[int, ...]) -> None:
    mine, other = scan(space, 1), scan(space, 7, (3, 4))
    result = copypaste(mine, other, rng(), labels=[3])
    region = other.label == 3
    assert np.array_equal(from_other(result, mine, other), region)
    assert np.array_equal(result.label, np.where(region, 3, mine.label))
    both = copypaste(mine, other, rng())
    assert set(np.unique(both.label)) >= {3, 4}


@pytest.mark.parametrize("space", SPACES)
def test_copypaste_shifts_image_and_ids_together(space: tuple[int, ...]) -> None:
    mine, other = scan(space, 1), scan(space, 7, (3,))
    home = np.array([i.min() for i in np.nonzero(other.label)])
    moves = set()
    for seed in range(40):
        result = copypaste(mine, other, rng(seed), shift_mm=3)
        laid = result.label == 3
        by = np.array([i.min() for i in np.nonzero(laid)]) - home
        assert (np.abs(by * other.spacing) <= 3 + np.array(other.spacing) / 2).all()
        assert np.array_equal(
            result.image[0][laid], np.roll(other.image[0], by, range(len(space)))[laid]
        )
        moves.add(tuple(by))
    assert len(moves) > 8
    with pytest.raises(ConfigError, match="shift_mm must not be negative, got -1"):
        copypaste(mine, other, rng(), shift_mm=-1)


@pytest.mark.parametrize("space", SPACES)
def test_contrast_gives_every_tissue_a_mean_of_its_own(space: tuple[int, ...]) -> None:
    mine = scan(space, 1)
    result = randomise_contrast(mine, rng(2), clusters=1, means=(-200, 200))
    assert result.image.dtype == np.int16
    assert np.array_equal(result.label, mine.label)
    means = [result.image[0][mine.label == k].mean() for k in range(3)]
    drawn = rng(2).uniform(-200, 200, 3)
    assert means == pytest.approx(drawn, abs=1)
    for k in range(3):
        old = mine.image[0][mine.label == k].astype(float)
        new = result.image[0][mine.label == k].astype(float)
        assert np.corrcoef(old, new)[0, 1] > 0.95
        assert 0.45 < new.std() / old.std() < 1.55


def test_contrast_divides_the_background_by_intensity() -> None:
    image = np.repeat(np.array([-1000.0, -100.0, 50.0, 700.0]), 100).reshape(1, 20, 20)
    mine = Scan(image, None, (1.0, 1.0))
    result = randomise_contrast(mine, rng(1), clusters=4)
    groups = [np.unique(result.image[image == value]) for value in np.unique(image)]
    assert [len(group) for group in groups] == [1] * 4
    assert len(np.unique(result.image)) == 4
    one = randomise_contrast(mine, rng(1), clusters=1, strength=0.5)
    assert len(np.unique(np.round(np.diff(np.unique(one.image)), 6))) > 1
    flat = Scan(np.full((1, 6, 6), 7.0), None, (1.0, 1.0))
    assert len(np.unique(randomise_contrast(flat, rng()).image)) == 1


def test_contrast_arguments_change_what_they_promise() -> None:
    mine = scan((40, 40), 1)
    same = randomise_contrast(mine, rng(), strength=0)
    assert np.abs(same.image.astype(int) - mine.image).max() <= 1
    noise = randomise_contrast(mine, rng(), texture="gaussian", deviations=(9, 9), clusters=1)
    rest = mine.label == 0
    assert noise.image[0][rest].std() == pytest.approx(9, rel=0.1)
    assert abs(np.corrcoef(noise.image[0][rest], mine.image[0][rest])[0, 1]) < 0.1
    still = randomise_contrast(mine, rng(), gains=(0, 0), clusters=1)
    assert still.image[0][rest].std() == 0
    bright = randomise_contrast(mine, rng(), means=(3000, 3500))
    assert bright.image.max() == 3071
    dark = randomise_contrast(mine, rng(), means=(3000, 3500), limits=(-10, 90))
    assert dark.image.max() == 90
    within = randomise_contrast(mine, rng(), gains=(0, 0))
    low, high = np.percentile(mine.image, (1, 99))
    assert low - 1 <= within.image.min() < within.image.max() <= high + 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"clusters": 0}, "clusters must be at least 1, got 0"),
        ({"texture": "wood"}, "texture must be kept or gaussian, got 'wood'"),
        ({"strength": 1.5}, "strength must be from 0 to 1, got 1.5"),
        ({"means": (2, 1)}, "means must be (low, high), got (2, 1)"),
        ({"gains": (-1, 1)}, "gains must not be negative, got (-1, 1)"),
    ],
)
def test_contrast_refuses_what_is_out_of_range(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        randomise_contrast(scan((20, 20), 1), rng(), **wrong)
    assert str(error.value) == message


def test_types_hold_what_is_put_in() -> None:
    space = (6, 6)
    everywhere = np.ones(space, bool)
    small = Scan(np.zeros((1, *space), np.uint8), np.zeros(space, np.uint8), (1.0, 1.0))
    hu = Scan(np.full((1, *space), -900.0), np.full(space, 300, np.int32), (1.0, 1.0))
    result = put(small, hu, everywhere)
    assert result.image.min() == result.image.max() == -900
    assert result.label.min() == 300
    half = Scan(np.full((1, *space), 3.6), np.ones(space, np.uint8), (1.0, 1.0))
    assert put(small, half, everywhere).image.dtype == np.uint8
    assert put(small, half, everywhere).image.max() == 4
    known = everywhere.copy()
    known[0] = False
    partly = Scan(half.image, half.label, (1.0, 1.0), known)
    assert np.array_equal(put(small, partly, everywhere).image[0] > 0, known)


def test_what_does_not_fit_is_refused() -> None:
    mine = scan((20, 20), 1)
    with pytest.raises(ConfigError, match=r"the other case has the shape \(1, 16, 14, 10\)"):
        put(mine, scan((16, 14, 10), 1), np.ones((20, 20), bool))
    bare = Scan(mine.image, None, mine.spacing)
    for rival, name in ((carvemix, "CarveMix"), (copypaste, "copy-paste"), (cutmix, "the mixture")):
        with pytest.raises(ConfigError) as error:
            rival(mine, bare, rng())
        assert str(error.value) == f"{name} needs a label map, and the case has none"
    assert cutmix(bare, mine, rng()).label is None
    with pytest.raises(ConfigError, match=r"label: the image needs the shape \(20, 20\)"):
        Scan(mine.image, np.zeros((3, 3)), mine.spacing)
    with pytest.raises(ConfigError, match="two or three axes"):
        Scan(np.zeros((4, 4)), None, (1.0,))


TURNS = [
    np.array([[axis, flip] for axis, flip in zip(order, flips, strict=True)], float)
    for order in [(0, 1, 2), (2, 0, 1), (1, 0, 2)]
    for flips in product((1, -1), repeat=3)
]


@pytest.mark.parametrize("how", TURNS, ids=str)
def test_a_case_arrives_the_same_from_every_orientation(how: np.ndarray) -> None:
    affine = np.diag([1.5, 2.0, 3.0, 1.0])
    case = scan((16, 14, 10), 1)
    image, label = turned(case.image, how), turned(case.label, how)
    away = turned_affine(affine, case.space, how)
    assert np.array_equal(turned(image, turn(away, affine)), case.image)
    theirs = onto(image, label, away, (16, 14, 10), affine, rng())
    assert np.array_equal(theirs.image, case.image)
    assert np.array_equal(theirs.label, case.label)
    assert theirs.spacing == (1.5, 2.0, 3.0)
    assert theirs.known is None


def test_voxel_sizes_are_kept_and_the_middle_stays() -> None:
    x = np.linspace(-30, 30, 61)
    image = np.broadcast_to(x[:, None, None], (61, 61, 5))[None]
    label = (np.abs(image[0]) < 9).astype(np.uint8)
    theirs = onto(image, label, np.eye(4), (30, 61, 5), np.diag([3.0, 1, 1, 1]), rng())
    here = 3.0 * (np.arange(30) - 14.5)
    inside = np.abs(here) <= 30.5
    assert theirs.known is not None
    assert np.array_equal(theirs.known[:, 0, 0], inside)
    assert np.allclose(theirs.image[0, inside, 30, 2], here[inside], atol=0.6)
    assert np.array_equal(theirs.label[:, 30, 2] == 1, np.abs(here) < 9)
    assert set(np.unique(theirs.label)) == {0, 1}


def test_labels_can_be_laid_on_labels() -> None:
    case = scan((16, 14, 10), 1, (1,))
    label = np.roll(case.label, (4, 3, 1), (0, 1, 2))
    assert label_middle(case.label) == (5.5, 5.5, 5.5)
    theirs = onto(
        case.image, case.label, np.eye(4), (16, 14, 10), np.eye(4), rng(), label_middle(label)
    )
    assert np.array_equal(theirs.label[theirs.known], label[theirs.known])
    assert np.array_equal(theirs.image[0][label == 1], case.image[0][case.label == 1])
    assert theirs.known[4:, 3:, 1:].all()
    assert theirs.known.sum() == 12 * 11 * 9
    half = onto(
        case.image, case.label, np.eye(4), (16, 14, 10), np.diag([2.0, 1, 1, 1]), rng(), (3, 9, 7)
    )
    assert label_middle(half.label) == pytest.approx((3, 9, 7), abs=0.5)
    bare = onto(case.image, None, np.eye(4), (16, 14, 10), np.eye(4), rng(), (1, 1, 1))
    assert np.array_equal(bare.image, case.image)
    assert label_middle(np.zeros((3, 3, 3))) is None


def test_a_volume_gives_a_slice_that_shows_the_label() -> None:
    case = scan((16, 14, 10), 1)
    seen = set()
    for seed in range(40):
        one = onto(case.image, case.label, np.eye(4), (16, 14, 1), np.eye(4), rng(seed))
        match = [k for k in range(10) if np.array_equal(one.image[..., 0], case.image[..., k])]
        seen.update(match)
        assert np.array_equal(one.label[..., 0], case.label[..., match[0]])
    assert seen == set(np.flatnonzero(case.label.any(axis=(0, 1))))
    with pytest.raises(ConfigError, match="one slice thick, and the subject has the shape"):
        onto(case.image[..., :1], None, np.eye(4), (16, 14, 10), np.eye(4), rng())
