"""The transforms under torchio 2, where that is installed: its form, batches, history and replay.

torchio 1 and 2 do not live in one environment; these tests run where 2 is found.
"""

import copy
import importlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medaug.core.errors import ConfigError, DataError
from medaug.synthesis.synthesize import synthesize
from tests.support.toy import Toy

tio = pytest.importorskip("torchio", minversion="2.0.0a1")

SHAPE = (14, 12, 6)
AFFINE = np.diag([-1.5, -1.5, 2.0, 1.0])
MIXING = ["RandomCutMix", "RandomCarveMix", "RandomCopyPaste"]


def transforms() -> Any:
    return importlib.import_module("medaug.torchio")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "nifti"
    synthesize(Toy(), 20, folder, uncertainty=1)
    return folder


def subject(seed: int = 1, shape: tuple[int, ...] = SHAPE, **more: Any) -> Any:
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint8)
    x, y = rng.integers(2, 5, 2)
    label[x : x + 5, y : y + 5] = 1
    label[x + 1 : x + 3, y + 1 : y + 3] = 2
    hu = rng.normal(40 * seed, 20, shape).astype(np.float32)
    return tio.Subject(
        ct=tio.ScalarImage(torch.from_numpy(hu)[None], affine=AFFINE),
        organ=tio.LabelMap(torch.from_numpy(label)[None], affine=AFFINE),
        age=61,
        **more,
    )


def same(a: Any, b: Any) -> bool:
    return all(torch.equal(a.images[name].data, b.images[name].data) for name in ("ct", "organ"))


def replayed(transform: Any, case: Any, plain: Any) -> Any:
    """``plain`` changed by the parameters in the history of ``case``, through JSON."""
    params = json.loads(json.dumps(case.applied_transforms[-1].params))
    batch = tio.SubjectsBatch.from_subjects([copy.deepcopy(plain)])
    return transform.apply_transform(batch, params).unbatch()[0]


def test_only_the_random_names_exist() -> None:
    assert all(name.startswith("Random") for name in transforms().__all__)
    assert len(transforms().__all__) == 5


@pytest.mark.parametrize("kind", ["folder", "run"])
def test_a_pair_replaces_and_is_replayed(
    written: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    source = written if kind == "folder" else request.getfixturevalue("tiny_run")
    transform = transforms().RandomSynthesis(source, p=1, pool=4)
    plain = subject()
    before = copy.deepcopy(plain)
    case = transform(plain)
    assert same(plain, before)
    assert case.images["ct"].shape == case.images["organ"].shape
    assert case.images["ct"].shape[-1] == 1
    assert isinstance(case.images["organ"], tio.LabelMap)
    assert case.images["organ"].data.dtype == torch.uint8
    assert case.images["ct"].data.dtype == torch.float32
    assert case.age == 61
    assert same(replayed(transform, case, plain), case)
    record = case.applied_transforms[-1]
    assert record.name == "RandomSynthesis"
    assert record.params["fingerprint"]
    if kind == "folder":
        index = record.params["index"]
        sample = Toy().block(index // 16, uncertainty=1)[index % 16]
        assert np.array_equal(case.images["ct"].data[0, ..., 0].numpy(), sample.image.T)
        assert np.allclose(case.images["ct"].affine.data.numpy(), sample.affine)


@pytest.mark.parametrize("name", MIXING)
@pytest.mark.parametrize("kind", ["list", "folder"])
def test_rivals_mix_and_are_replayed(written: Path, name: str, kind: str) -> None:
    source, shape = ([subject(5), subject(6)], SHAPE) if kind == "list" else (written, (14, 12, 1))
    transform = getattr(transforms(), name)(source, p=1)
    plain = subject(1, shape)
    torch.manual_seed(0)
    cases = [transform(plain) for _ in range(5)]
    assert any(not same(case, plain) for case in cases)
    for case in cases:
        assert same(replayed(transform, case, plain), case)
        assert np.allclose(case.images["ct"].affine.data.numpy(), AFFINE)
        assert set(case.images["organ"].data.unique().tolist()) <= {0, 1, 2}
    torch.manual_seed(0)
    again = pickle.loads(pickle.dumps(transform))
    assert all(same(again(plain), case) for case in cases)


def test_an_anchor_is_applied_and_recorded() -> None:
    results = {}
    for anchor in ("middle", "label"):
        torch.manual_seed(0)
        case = transforms().RandomCopyPaste([subject(5)], p=1, anchor=anchor)(subject())
        assert case.applied_transforms[-1].params["anchor"] == anchor
        results[anchor] = case
    assert not same(results["middle"], results["label"])


def test_contrast_changes_the_image_alone() -> None:
    transform = transforms().RandomLabelContrast(p=1, clusters=2)
    plain = subject()
    case = transform(plain)
    assert not torch.equal(case.images["ct"].data, plain.images["ct"].data)
    assert torch.equal(case.images["organ"].data, plain.images["organ"].data)
    assert same(replayed(transform, case, plain), case)


def test_every_element_of_a_batch_has_its_own_draw(written: Path) -> None:
    subjects = [subject(n) for n in range(1, 5)]
    batch = tio.SubjectsBatch.from_subjects(subjects)
    for transform in (
        transforms().RandomSynthesis(written, p=1),
        transforms().RandomCutMix([subject(8)], p=1),
        transforms().RandomLabelContrast(p=1),
    ):
        cases = transform(batch).unbatch()
        draws = [case.applied_transforms[-1].params for case in cases]
        assert len({json.dumps(one) for one in draws}) > 1
        for case, plain in zip(cases, subjects, strict=True):
            assert same(replayed(transform, case, plain), case)


def test_probability_include_and_exclude_are_kept(written: Path) -> None:
    pet = tio.ScalarImage(torch.full((1, *SHAPE), 7.0), affine=AFFINE)
    plain = subject(pet=pet)
    never = transforms().RandomSynthesis(written, p=0)
    assert same(never(plain), plain)
    case = transforms().RandomLabelContrast(p=1, exclude=["pet"])(plain)
    assert torch.equal(case.images["pet"].data, pet.data)
    assert not torch.equal(case.images["ct"].data, plain.images["ct"].data)
    with pytest.raises(ConfigError, match=r"several scalar images \(ct, pet\)"):
        transforms().RandomSynthesis(written, p=1)(plain)
    assert same(plain, subject(pet=pet))


@pytest.mark.parametrize("workers", [0, 2])
def test_it_works_in_compose_and_loader(written: Path, workers: int) -> None:
    steps = [
        transforms().RandomSynthesis(written, p=1),
        tio.CropOrPad((10, 10, 1)),
        tio.Noise(std=1),
    ]
    transform = tio.Compose(steps)
    items = [transform(subject(n)) for n in range(2)]
    loader = tio.SubjectsLoader(_Items(transform), batch_size=2, num_workers=workers)
    (batch,) = loader
    assert batch.images["ct"].data.shape == (2, 1, 10, 10, 1)
    assert items[0].images["organ"].shape == (1, 10, 10, 1)


class _Items(torch.utils.data.Dataset[Any]):
    def __init__(self, transform: Any) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        return self.transform(subject(index))


def test_mistakes_are_named(written: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        transforms().RandomSynthesis(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="pool must be at least 1, got 0"):
        transforms().RandomCutMix([subject()], pool=0)
    with pytest.raises(ConfigError, match="not a written folder"):
        transforms().RandomSynthesis(written, mode="vary")
    with pytest.raises(ConfigError, match="one slice thick"):
        transforms().RandomCutMix(written, p=1)(subject())
