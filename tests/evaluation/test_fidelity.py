"""Fidelity and diversity see what they should, each alone, and pass real patients."""

import math
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from sklearn.decomposition import PCA

from medaug.core.config import parse_set
from medaug.data import open_source
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
from medaug.data.sources.phantom import source as phantom
from medaug.evaluation.families import diversity, fidelity
from medaug.evaluation.families.fidelity import DOTS, MAP_NAMES, components
from medaug.evaluation.features.spaces import Spaces, spaces_of
from medaug.evaluation.figures import Bound, Family
from medaug.evaluation.settings import resolve_evaluate
from medaug.evaluation.slices.evidence import Evidence, SliceSet, real_slices

WINDOW = (-160.0, 240.0)


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """Eight training, six held-out patients, and six more in the place of the synthetic."""
    root = tmp_path_factory.mktemp("patients")
    phantom.write(root / "people", 20, 5, (64, 64, 32), (6.0, 6.0, 6.0))
    source = open_source(str(root / "people"))
    prepare(source, root / "cache", CacheSettings(size=64, holdout=0.6), 0)
    cache = SliceCache.open(root / "cache")
    train, heldout = (real_slices(cache, split, WINDOW) for split in ("train", "heldout"))
    names = sorted(set(heldout.cases))
    other = np.isin(heldout.cases, names[: len(names) // 2])
    return Evidence(heldout.pick(other), train, heldout.pick(~other), WINDOW)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


def drawn(part: SliceSet, change: Callable[[np.ndarray], np.ndarray]) -> SliceSet:
    """The slices with their HU changed."""
    changed = np.clip(change(part.images.astype(float)), *WINDOW).round()
    return replace(part, images=changed.astype(np.int16))


def blurred(evidence: Evidence) -> SliceSet:
    return drawn(evidence.synthetic, lambda x: gaussian_filter(x, (0, 0.8, 0.8)))


def noisy(evidence: Evidence) -> SliceSet:
    rng = np.random.default_rng(0)
    return drawn(evidence.synthetic, lambda x: x + rng.normal(0, 25, x.shape))


def brighter(evidence: Evidence) -> SliceSet:
    return drawn(evidence.synthetic, lambda x: x + 30)


def darker(evidence: Evidence) -> SliceSet:
    return drawn(evidence.synthetic, lambda x: x - 30)


def collapsed(evidence: Evidence) -> SliceSet:
    n = len(evidence.synthetic)
    ten = np.random.default_rng(1).permutation(n)[:10]
    return replace(
        evidence.synthetic.pick(ten[np.arange(n) % 10]), cases=[f"syn_{i:06d}" for i in range(n)]
    )


def copied(evidence: Evidence) -> SliceSet:
    n, rng = len(evidence.synthetic), np.random.default_rng(2)
    images = evidence.synthetic.images.copy()
    taken = rng.permutation(len(evidence.train))[: n // 10]
    images[rng.permutation(n)[: n // 10]] = evidence.train.images[taken]
    return replace(evidence.synthetic, images=images)


def disguised(evidence: Evidence) -> SliceSet:
    n, rng = len(evidence.synthetic), np.random.default_rng(3)
    images = evidence.synthetic.images.copy()
    for k, i in enumerate(rng.permutation(n)[: n // 10]):
        image = evidence.train.images[rng.integers(len(evidence.train))]
        other = (np.roll(image, 2, 1), image[:, ::-1], image + rng.normal(0, 10, image.shape))
        images[i] = np.clip(other[k % 3], *WINDOW).round()
    return replace(evidence.synthetic, images=images)


def masks_moved(evidence: Evidence) -> SliceSet:
    labels = evidence.synthetic.labels
    assert labels is not None
    return replace(evidence.synthetic, labels=np.roll(labels, 4, 2))


def judged(evidence: Evidence, folder: Path) -> tuple[Family, Family, Spaces]:
    spaces = spaces_of(evidence, folder, encoder_images=1000)
    return fidelity.measure(evidence, spaces), diversity.measure(evidence, spaces), spaces


@pytest.mark.long
@pytest.mark.parametrize(
    ("defect", "unfaithful", "monotonous"),
    [
        (blurred, True, False),
        (noisy, True, False),
        (brighter, True, False),
        (darker, True, False),
        (collapsed, False, True),
        (copied, False, False),
        (disguised, False, False),
        (masks_moved, False, False),
        (lambda evidence: evidence.synthetic, False, False),
    ],
)
def test_a_planted_defect_fails_the_part_that_it_is_of_and_no_other(
    defect: Callable[[Evidence], SliceSet],
    unfaithful: bool,
    monotonous: bool,
    patients: Evidence,
    folder: Path,
) -> None:
    faith, variety, _ = judged(replace(patients, synthetic=defect(patients)), folder)
    assert bool(faith.failed) == unfaithful, [f.name for f in faith.failed]
    assert bool(variety.failed) == monotonous, [f.name for f in variety.failed]


def test_every_figure_is_complete_and_inside_its_interval(patients: Evidence, folder: Path) -> None:
    faith, variety, spaces = judged(patients, folder)
    assert (faith.skipped, variety.skipped) == ([], [])
    names = [f.name for f in (*faith.figures, *variety.figures)]
    assert len(names) == len(set(names))
    for figure in (*faith.figures, *variety.figures):
        assert figure.family == (faith if figure in faith.figures else variety).name
        assert (figure.n, figure.n_real, figure.seed) == (spaces.n, spaces.n_real, 0)
        assert math.isfinite(figure.value)
        assert type(figure.value) is float
        assert figure.extractor
        assert figure.sentence.endswith(".")
        assert figure.name.endswith("floor.pixels") or math.isfinite(figure.real)
        if figure.low is not None:
            assert figure.low <= figure.high
    bounded = {f.name for f in (*faith.figures, *variety.figures) if f.bound}
    assert bounded == {*fidelity.BOUNDS, *diversity.BOUNDS}
    assert len(faith.details["mmd_widths"]["pixels"]) == 5


def test_training_slices_in_the_place_of_the_synthetic_score_as_their_yardstick(
    patients: Evidence, folder: Path
) -> None:
    same = replace(patients, synthetic=patients.train)
    faith, variety, _ = judged(same, folder)
    seeded = ("fidelity.mmd_linear.pixels", "diversity.ms_ssim.pixels")
    for figure in (*faith.figures, *variety.figures):
        if figure.real is not None and figure.name not in seeded:
            assert figure.value == pytest.approx(figure.real, rel=1e-6, abs=1e-9), figure.name


def test_bounds_are_the_callers(patients: Evidence, folder: Path) -> None:
    _, _, spaces = judged(patients, folder)
    hard = {"fidelity.frechet.texture": Bound(most=0.0), "diversity.recall.random": Bound(least=2)}
    found = fidelity.measure(patients, spaces, bounds=hard)
    assert [f.name for f in found.failed] == ["fidelity.frechet.texture"]
    found = diversity.measure(patients, spaces, bounds=hard)
    assert [f.name for f in found.failed] == ["diversity.recall.random"]


def test_the_bound_that_the_docs_set_is_on_a_figure_that_is_measured(
    patients: Evidence, folder: Path
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    (command,) = re.findall(r"^ {4}(medaug evaluate .*--set .*)$", page, re.MULTILINE)
    words = shlex.split(command)
    asked = parse_set([words[i + 1] for i, word in enumerate(words) if word == "--set"])
    bounds = resolve_evaluate(asked["evaluate"]).bounds
    faith, _, _ = judged(patients, folder)
    assert bounds.keys() <= {figure.name for figure in faith.figures}
    assert [bound.of for bound in bounds.values() if bound] == ["ratio"]


def test_too_few_slices_are_said_and_not_measured(patients: Evidence) -> None:
    few = replace(patients, synthetic=patients.synthetic.pick(np.arange(7)))
    for measure in (fidelity.measure, diversity.measure):
        found = measure(few)
        assert found.figures == []
        assert found.skipped == ["7 synthetic slices are too few; 20 of each are needed"]


def test_one_case_has_no_interval_and_one_patient_a_yardstick_still(patients: Evidence) -> None:
    one = patients.heldout.cases[0]
    alone = patients.heldout.pick(np.isin(patients.heldout.cases, [one]))
    times = np.tile(np.arange(len(alone)), 2)
    few = replace(patients, heldout=replace(alone.pick(times), heights=np.arange(len(times))))
    spaces = spaces_of(few, encoder_images=64)
    for family in (fidelity.measure(few, spaces), diversity.measure(few, spaces)):
        assert all(math.isfinite(f.value) for f in family.figures)
    reach = [f for f in diversity.measure(few, spaces).figures if "recall" in f.name]
    assert reach
    assert all(f.low is None for f in reach)


def test_each_feature_space_has_its_map(patients: Evidence, folder: Path) -> None:
    spaces = spaces_of(replace(patients, synthetic=brighter(patients)), folder, encoder_images=1000)
    found = fidelity.measure(patients, spaces).curves
    assert [curve.title for curve in found] == [
        f"Feature map, {space.name}" for space in spaces.learned
    ]
    texture = found[[space.name for space in spaces.learned].index("texture")]
    assert tuple(texture.lines) == MAP_NAMES
    sizes = [len(x) for x, _ in texture.lines.values()]
    assert sizes == [min(DOTS, n) for n in (spaces.n, spaces.n, spaces.n_real)]
    made, _, unseen = (np.array(line) for line in texture.lines.values())
    apart = np.abs(np.median(made, 1) - np.median(unseen, 1)) / unseen.std(1)
    assert apart.max() > 1


def test_the_axes_of_a_map_are_principal_components_of_the_real() -> None:
    features = torch.randn(200, 5, generator=torch.Generator().manual_seed(0)).double()
    features = features * torch.tensor([5.0, 1.0, 1.0, 1.0, 0.0]) + features[:, [0]]
    axes, middle, spread = components(features)
    scaled = (features - middle) / spread
    theirs = PCA(2).fit(scaled.numpy()).components_.T
    assert np.abs(np.abs(axes.numpy()) - np.abs(theirs)).max() < 1e-9
    for axis in axes.T:
        assert axis[axis.abs().argmax()] > 0
