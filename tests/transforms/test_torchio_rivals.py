"""The rivals as torchio transforms: sources, history, replay, workers and errors."""

import copy
import pickle
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
import torchio as tio

from medaug.core.errors import ConfigError, DataError
from medaug.synthesis.synthesize import synthesize
from medaug.torchio import (
    CarveMix,
    CopyPaste,
    CutMix,
    LabelContrast,
    RandomCarveMix,
    RandomCopyPaste,
    RandomCutMix,
    RandomLabelContrast,
)
from tests.support.toy import Toy

SHAPE = (14, 12, 6)
AFFINE = np.diag([-1.5, -1.5, 2.0, 1.0])
MIXING = [RandomCutMix, RandomCarveMix, RandomCopyPaste]
RIVALS = [*MIXING, RandomLabelContrast]


def arrays(seed: int, shape: tuple[int, ...] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    hu = rng.normal(40 * seed, 20, shape).astype(np.int16)
    label = np.zeros(shape, np.uint8)
    x, y = rng.integers(2, 5, 2)
    label[x : x + 5, y : y + 5] = 1
    label[x + 1 : x + 3, y + 1 : y + 3] = 2
    return hu, label


def subject(seed: int = 1, shape: tuple[int, ...] = SHAPE, **more: Any) -> tio.Subject:
    hu, label = arrays(seed, shape)
    return tio.Subject(
        ct=tio.ScalarImage(tensor=torch.from_numpy(hu)[None].float(), affine=AFFINE, scanner="A"),
        organ=tio.LabelMap(tensor=torch.from_numpy(label)[None], affine=AFFINE),
        age=61,
        **more,
    )


def same(a: tio.Subject, b: tio.Subject) -> bool:
    return all(torch.equal(a[name].data, b[name].data) for name in ("ct", "organ"))


@pytest.fixture(scope="module")
def nnunet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three cases in the layout of nnU-Net, the second in another orientation and spacing."""
    root = tmp_path_factory.mktemp("nnunet")
    for number in range(3):
        hu, label = arrays(number + 5)
        affine = AFFINE
        if number == 1:
            hu, label = (np.ascontiguousarray(a.transpose(2, 0, 1)[:, ::-1]) for a in (hu, label))
            affine = np.array([[0, 1.5, 0, 4], [0, 0, -1.5, 2], [2.0, 0, 0, 0], [0, 0, 0, 1]])
        for folder, name, array in (
            ("imagesTr", f"case_{number}_0000.nii.gz", hu),
            ("labelsTr", f"case_{number}.nii.gz", label),
        ):
            (root / folder).mkdir(exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array, affine), root / folder / name)
    (root / "dataset.json").write_text('{"labels": {"background": 0, "organ": 1, "tumour": 2}}')
    return root


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "nifti"
    synthesize(Toy(), 20, folder, uncertainty=1)
    return folder


@pytest.fixture(params=["list", "folder", "nnunet", "run"])
def source(request: pytest.FixtureRequest) -> tuple[Any, tuple[int, ...]]:
    """Every kind of source, and the shape of the subjects that it fits."""
    if request.param == "list":
        return [subject(n) for n in (5, 6, 7)], SHAPE
    if request.param == "folder":
        return request.getfixturevalue("written"), (14, 12, 1)
    if request.param == "nnunet":
        return request.getfixturevalue("nnunet"), SHAPE
    return request.getfixturevalue("tiny_run"), (32, 32, 1)


@pytest.mark.parametrize("kind", MIXING)
def test_every_source_mixes_in_and_is_replayed(kind: Any, source: tuple[Any, Any]) -> None:
    where, shape = source
    transform = kind(where, p=1, pool=4)
    plain = subject(1, shape)
    before = copy.deepcopy(plain)
    torch.manual_seed(0)
    cases = [transform(plain) for _ in range(6)]
    assert same(plain, before)
    assert any(not same(case, plain) for case in cases)
    for case in cases:
        (step,) = case.get_applied_transforms()
        assert type(step).__name__ == kind.__name__.removeprefix("Random")
        assert step.fingerprint
        assert same(step(plain), case)
        assert same(case.get_composed_history()(plain), case)
        assert (case["age"], case["ct"]["scanner"]) == (61, "A")
        assert case["ct"].shape == plain["ct"].shape
        assert np.array_equal(case["ct"].affine, AFFINE)
        assert case["ct"].data.dtype == torch.float32
        assert case["organ"].data.dtype == torch.uint8
        assert set(case["organ"].data.unique().tolist()) <= {0, 1, 2}
    torch.manual_seed(0)
    again = pickle.loads(pickle.dumps(transform))
    assert all(same(again(plain), case) for case in cases)


def test_image_and_label_come_from_the_same_voxels() -> None:
    mine, other = subject(1), subject(5)
    case = CutMix([other], 0, draw=3)(mine)
    taken = case["ct"].data == other["ct"].data
    assert 0 < taken.float().mean() < 1
    assert torch.equal(case["ct"].data, torch.where(taken, other["ct"].data, mine["ct"].data))
    at = torch.where(taken, other["organ"].data, mine["organ"].data)
    assert torch.equal(case["organ"].data, at)


def test_a_case_in_another_orientation_is_the_same_case(nnunet: Path) -> None:
    hu, label = arrays(6)
    same_case = tio.Subject(
        ct=tio.ScalarImage(tensor=torch.from_numpy(hu)[None], affine=AFFINE),
        organ=tio.LabelMap(tensor=torch.from_numpy(label)[None], affine=AFFINE),
    )
    for kind in (CutMix, CarveMix, CopyPaste):
        for draw in range(4):
            assert same(kind(nnunet, 1, draw)(subject()), kind([same_case], 0, draw)(subject()))


def test_own_arguments_reach_the_rival_and_its_history() -> None:
    others = [subject(5)]
    case = RandomCopyPaste(others, p=1, labels=[2], shift_mm=4.0)(subject())
    name, arguments = case.applied_transforms[-1]
    assert (name, arguments["labels"], arguments["shift_mm"]) == ("CopyPaste", [2], 4.0)
    only = CopyPaste(others, 0, 1, labels=[2])(subject())
    changed = only["ct"].data != subject()["ct"].data
    assert torch.equal(changed, (others[0]["organ"].data == 2) & changed)
    assert not same(
        CarveMix(others, 0, 1, labels=[2])(subject()), CarveMix(others, 0, 1)(subject())
    )
    assert not same(CutMix(others, 0, 1, alpha=9)(subject()), CutMix(others, 0, 1)(subject()))


@pytest.mark.parametrize("kind", [CarveMix, CopyPaste])
def test_an_anchor_lays_labels_on_labels(kind: Any) -> None:
    mine, other = subject(1), subject(5)
    middles = {}
    for anchor in ("middle", "label"):
        case = kind([other], 0, 3, anchor=anchor)(mine)
        assert case.applied_transforms[-1][1]["anchor"] == anchor
        changed = np.nonzero((case["ct"].data != mine["ct"].data)[0].numpy())
        middles[anchor] = np.array([(i.min() + i.max()) / 2 for i in changed[:2]])
    own, theirs = (
        np.array([(i.min() + i.max()) / 2 for i in np.nonzero(s["organ"].data[0].numpy())[:2]])
        for s in (mine, other)
    )
    assert np.abs(own - theirs).max() >= 1
    assert np.abs(middles["label"] - own).max() <= 1
    assert np.abs(middles["middle"] - theirs).max() <= 1
    with pytest.raises(ConfigError, match="anchor must be middle or label, got 'edge'"):
        kind([other], 0, 3, anchor="edge")


def test_contrast_changes_the_image_alone_and_is_replayed() -> None:
    transform = RandomLabelContrast(p=1, clusters=2, means=(-100, 200))
    case = transform(subject())
    assert not torch.equal(case["ct"].data, subject()["ct"].data)
    assert torch.equal(case["organ"].data, subject()["organ"].data)
    (step,) = case.get_applied_transforms()
    assert isinstance(step, LabelContrast)
    assert same(step(subject()), case)
    assert -1024 <= case["ct"].data.min() <= case["ct"].data.max() <= 3071
    assert not same(transform(subject()), case)
    with pytest.raises(ConfigError, match="clusters must be at least 1"):
        RandomLabelContrast(clusters=0)


@pytest.mark.parametrize("kind", RIVALS)
def test_probability_include_and_exclude_are_kept(kind: Any) -> None:
    first = () if kind is RandomLabelContrast else ([subject(5)],)
    pet = tio.ScalarImage(tensor=torch.full((1, *SHAPE), 7.0), affine=AFFINE)
    plain = subject(pet=pet)
    assert same(kind(*first, p=0)(plain), plain)
    chosen = kind(*first, p=1, image="ct")(plain) if not first else None
    torch.manual_seed(1)
    excluded = kind(*first, p=1, exclude=["pet"])(plain)
    for case in [case for case in (chosen, excluded) if case is not None]:
        assert torch.equal(case["pet"].data, pet.data)
        assert not torch.equal(case["ct"].data, plain["ct"].data)
    with pytest.raises(ConfigError, match=r"several scalar images \(ct, pet\)"):
        kind(*first, p=1)(plain)


def test_a_list_is_named_by_its_content_and_must_be_there() -> None:
    transform = RandomCutMix([subject(5), subject(6)], p=1)
    case = transform(subject())
    arguments = case.applied_transforms[-1][1]
    assert arguments["source"].startswith("cases:2-")
    assert len(pickle.dumps(case.applied_transforms)) < 1000
    assert copy.deepcopy(transform).cases is transform.cases
    del transform
    with pytest.raises(DataError, match=r"cases:2-\w+-\w+: that list of cases is not in this"):
        case.get_applied_transforms()
    keep = RandomCutMix([subject(5), subject(6)])
    assert same(case.get_applied_transforms()[0](subject()), case)
    del keep


def test_a_changed_case_is_not_replayed() -> None:
    others = [subject(5), subject(6), subject(7)]
    transform = RandomCutMix(others, p=1)
    others[1]["ct"].data.add_(1)
    step = CutMix(transform.source, 1, 0, fingerprint="0123456789ab")
    with pytest.raises(DataError, match=r"case 1 is .* now, and 0123456789ab was mixed in"):
        step(subject())


def loader(transform: Any, workers: int, method: str | None) -> list[torch.Tensor]:
    dataset = tio.SubjectsDataset([subject(n) for n in range(4)], transform=transform)
    torch.manual_seed(2)
    made = tio.SubjectsLoader(
        dataset, batch_size=2, num_workers=workers, multiprocessing_context=method
    )
    return [torch.cat([b["ct"]["data"], b["organ"]["data"].float()], 1) for b in made]


@pytest.mark.long
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_find_the_list(method: str) -> None:
    transform = tio.Compose(
        [RandomCutMix([subject(8)], p=1), RandomCopyPaste([subject(9)], p=1, shift_mm=3)]
    )
    first, second = loader(transform, 2, method), loader(transform, 2, method)
    assert [batch.shape for batch in first] == [(2, 2, *SHAPE)] * 2
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    plain = torch.stack([subject(n)["ct"].data for n in range(4)])
    assert not torch.equal(torch.cat(first)[:, :1], plain)


def unlabelled() -> tio.Subject:
    return tio.Subject(ct=tio.ScalarImage(tensor=torch.zeros(1, *SHAPE)))


@pytest.mark.parametrize(
    ("others", "mine", "error", "message"),
    [
        ([unlabelled()], subject(), ConfigError, "needs a label map, and the case has none"),
        ([subject(5, (14, 12, 1))], subject(), ConfigError, "one slice thick, and the subject"),
        (
            [tio.Subject(ct=tio.ScalarImage(tensor=torch.zeros(2, *SHAPE)))],
            unlabelled(),
            ConfigError,
            r"the other case has the shape \(2, 14, 12, 6\)",
        ),
        (
            [subject(5)],
            tio.Subject(
                ct=tio.ScalarImage(tensor=torch.zeros(1, *SHAPE)),
                organ=tio.LabelMap(tensor=torch.zeros(1, 3, 3, 3)),
            ),
            ConfigError,
            r"label map 'organ': the image needs the shape \(1, 14, 12, 6\), got \(1, 3, 3, 3\)",
        ),
    ],
    ids=["no label", "slice", "channels", "label shape"],
)
def test_what_does_not_fit_leaves_the_subject_as_it_is(
    others: list[tio.Subject], mine: tio.Subject, error: type[Exception], message: str
) -> None:
    before = copy.deepcopy(mine)
    with pytest.raises(error, match=message):
        CutMix(others, 0, 0, copy=False)(mine)
    assert torch.equal(mine["ct"].data, before["ct"].data)
    assert set(mine) == set(before)


def test_what_is_no_source_is_refused_at_once(tmp_path: Path, nnunet: Path) -> None:
    with pytest.raises(
        DataError, match=r"no such file or folder; give a run folder.* as nnU-Net's"
    ):
        RandomCutMix(tmp_path / "nothing")
    with pytest.raises(DataError, match="the list of cases to mix with is empty"):
        RandomCutMix([])
    with pytest.raises(ConfigError, match="pool must be at least 1, got 0"):
        RandomCutMix([subject()], pool=0)
    with pytest.raises(TypeError, match="alphabet"):
        RandomCutMix([subject()], alphabet=1)
    with pytest.raises(DataError, match="has 3 cases, and not number 9"):
        CutMix(nnunet, 9, 0)(subject())
    with pytest.raises(DataError, match="has 1 cases, and not number 2"):
        CutMix([subject()], 2, 0)(subject())


def test_a_case_that_vanished_is_named(nnunet: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(nnunet, folder)
    transform = CutMix(folder, 2, 0)
    CutMix(folder, 0, 0)(subject())
    (folder / "imagesTr" / "case_2_0000.nii.gz").unlink()
    mine = subject()
    with pytest.raises(DataError, match=r"case case_2: case_2_0000.nii.gz is not there"):
        transform(mine)
    assert same(mine, subject())
