"""The MONAI dictionary transforms inside MONAI's own machinery."""

import copy
import pickle
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, Dataset, MetaTensor
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    Orientationd,
    RandAffined,
    RandFlipd,
    Randomizable,
    ResizeWithPadOrCropd,
    SaveImage,
    Spacingd,
)

from medaug.core.errors import ConfigError, DataError
from medaug.monai import (
    RandCarveMixd,
    RandCopyPasted,
    RandCutMixd,
    RandLabelContrastd,
    RandSynthesisd,
)
from medaug.synthesis.synthesize import synthesize
from tests.support.toy import Toy
from tests.transforms.test_torchio_rivals import AFFINE, SHAPE, arrays

pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader")

KEYS = ["image", "label"]
MIXING = [RandCutMixd, RandCarveMixd, RandCopyPasted]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "nifti"
    synthesize(Toy(), 20, folder, uncertainty=1)
    return folder


def item(seed: int = 1, shape: tuple[int, ...] = SHAPE) -> dict[str, Any]:
    hu, label = arrays(seed, shape)
    meta = {"filename_or_obj": f"case_{seed}.nii.gz", "pixdim": 1.5}
    affine = torch.from_numpy(AFFINE)
    trace = [{"class": "Earlier"}]
    return {
        "image": MetaTensor(
            torch.from_numpy(hu)[None].float(), affine, dict(meta), copy.deepcopy(trace)
        ),
        "label": MetaTensor(
            torch.from_numpy(label)[None], affine, dict(meta), copy.deepcopy(trace)
        ),
        "age": 61,
    }


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(np.array_equal(np.asarray(a[key]), np.asarray(b[key])) for key in KEYS)


def rivals(prob: float = 1.0) -> list[Any]:
    others = [item(5), item(6)]
    mixing = [kind(KEYS, others, prob) for kind in MIXING]
    return [*mixing, RandLabelContrastd(KEYS, prob)]


def test_a_pair_replaces_image_and_label(written: Path) -> None:
    plain = item()
    before = copy.deepcopy(plain)
    transform = RandSynthesisd(KEYS, written, 1.0).set_random_state(3)
    case = transform(plain)
    sample = Toy().block(transform.index // 16, uncertainty=1)[transform.index % 16]
    assert np.array_equal(case["image"][0, ..., 0], sample.image.T)
    assert np.array_equal(case["label"][0, ..., 0], sample.label.T)
    for key in KEYS:
        entry = case[key]
        assert isinstance(entry, MetaTensor)
        assert entry.dtype == plain[key].dtype
        assert np.allclose(entry.affine, sample.affine)
        assert np.allclose(entry.meta["original_affine"], sample.affine)
        assert tuple(entry.meta["spatial_shape"]) == entry.shape[1:] == (14, 12, 1)
        assert entry.meta["filename_or_obj"] == f"syn_{transform.index:06d}"
        assert "pixdim" not in entry.meta
        assert entry.applied_operations == []
        assert plain[key].applied_operations == before[key].applied_operations
    assert case["age"] == 61
    assert same(plain, before)
    assert not same(case, plain)


def test_a_run_draws_too(tiny_run: Path) -> None:
    case = RandSynthesisd(KEYS, tiny_run, 1.0, pool=4)(item())
    assert case["image"].shape == case["label"].shape == (1, 32, 32, 1)
    with pytest.raises(ConfigError, match="pool must be at least 1, got 0"):
        RandSynthesisd(KEYS, tiny_run, pool=0)


@pytest.mark.parametrize("kind", ["meta", "tensor", "array", "int16", "bfloat16", "flat", "uint8"])
def test_class_type_and_axes_stay(written: Path, kind: str) -> None:
    case = item(1, (14, 12, 1))
    change = {
        "meta": lambda x: x,
        "tensor": lambda x: x.as_tensor(),
        "array": lambda x: x.numpy(),
        "int16": lambda x: x.short(),
        "bfloat16": lambda x: x.bfloat16(),
        "flat": lambda x: x[..., 0],
        "uint8": lambda x: x.byte(),
    }[kind]
    case["image"], case["label"] = change(case["image"]), change(case["label"])
    for transform in (RandSynthesisd(KEYS, written, 1.0), RandCutMixd(KEYS, written, 1.0)):
        result = transform.set_random_state(1)(case)
        for key in KEYS:
            assert type(result[key]) is type(case[key])
            assert result[key].shape == case[key].shape
            if kind == "uint8" and key == "image":
                assert result[key].dtype == torch.int16
            else:
                assert result[key].dtype == case[key].dtype


@pytest.mark.parametrize("number", range(4))
def test_a_rival_keeps_metadata_and_trace(number: int) -> None:
    transform = rivals()[number]
    plain = item()
    before = copy.deepcopy(plain)
    torch.manual_seed(0)
    cases = [transform.set_random_state(seed)(plain) for seed in range(4)]
    assert any(not same(case, plain) for case in cases)
    assert same(plain, before)
    for case in cases:
        for key in KEYS:
            assert case[key].meta["pixdim"] == 1.5
            assert np.allclose(case[key].affine, AFFINE)
            assert case[key].applied_operations == [{"class": "Earlier"}]
            assert case[key].dtype == plain[key].dtype
    assert not any(same(rival(plain), case) for rival in rivals(0.0) for case in cases[:1])
    assert all(same(rival(plain), plain) for rival in rivals(0.0))


def test_rivals_agree_with_torchio(written: Path) -> None:
    import torchio as tio

    from medaug.torchio import CutMix

    transform = RandCutMixd(KEYS, [item(5)], 1.0, alpha=2.0).set_random_state(1)
    case = transform(item())
    as_subject = [
        tio.Subject(
            image=tio.ScalarImage(tensor=one["image"].as_tensor(), affine=AFFINE),
            label=tio.LabelMap(tensor=one["label"].as_tensor(), affine=AFFINE),
        )
        for one in (item(), item(5))
    ]
    other = CutMix(as_subject[1:], 0, transform.draw, alpha=2.0)(as_subject[0])
    for key in KEYS:
        assert np.array_equal(case[key].numpy(), other[key].data.numpy())


def test_labels_are_never_interpolated_and_own_arguments_count() -> None:
    far = item(5)
    far["image"].affine = far["label"].affine = torch.diag(torch.tensor([1.1, 1.3, 2.3, 1.0]))
    for kind in MIXING:
        case = kind(KEYS, [far], 1.0)(item())
        assert set(case["label"].unique().tolist()) <= {0, 1, 2}
    pasted = RandCopyPasted(KEYS, [item(5)], 1.0, labels=[2])(item())
    changed = pasted["image"] != item()["image"]
    assert bool(changed.any())
    assert not bool((changed & (item(5)["label"] != 2)).any())


@pytest.mark.parametrize("prob", [0.0, 0.3, 1.0])
def test_probability_and_random_state_are_kept(written: Path, prob: float) -> None:
    plain = item()
    for make in (
        lambda: RandSynthesisd(KEYS, written, prob),
        lambda: RandCutMixd(KEYS, written, prob),
        lambda: RandLabelContrastd(KEYS, prob),
    ):
        one = {**plain, **{key: plain[key][..., :1] for key in KEYS}}
        transform = make().set_random_state(7)
        assert isinstance(transform, Randomizable)
        cases = [transform(one) for _ in range(60)]
        share = np.mean([not same(case, one) for case in cases])
        assert {0.0: share == 0, 0.3: 0.1 < share < 0.5, 1.0: share > 0.8}[prob]
        again = make().set_random_state(7)
        before = torch.random.get_rng_state()
        assert all(same(again(one), case) for case in cases)
        assert torch.equal(before, torch.random.get_rng_state())
    with pytest.raises(ConfigError, match=r"prob must be from 0 to 1, got 1.5"):
        RandSynthesisd(KEYS, written, 1.5)


def nifti(folder: Path, count: int = 4) -> list[dict[str, str]]:
    listed = []
    for number in range(count):
        hu, label = arrays(number + 1)
        names = {key: str(folder / f"{key}_{number}.nii.gz") for key in KEYS}
        nibabel.save(nibabel.Nifti1Image(hu, AFFINE), names["image"])
        nibabel.save(nibabel.Nifti1Image(label, AFFINE), names["label"])
        listed.append(names)
    return listed


def pipeline(ours: list[Any], lazy: bool) -> Compose:
    steps = [
        LoadImaged(KEYS),
        EnsureChannelFirstd(KEYS),
        Orientationd(KEYS, "RAS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
        Spacingd(KEYS, (1.0, 2.0, 2.0), mode=("bilinear", "nearest")),
        *ours,
        RandAffined(
            KEYS,
            prob=1.0,
            rotate_range=(0, 0, 0.2),
            mode=("bilinear", "nearest"),
            padding_mode="border",
        ),
        RandFlipd(KEYS, 0.5, 0),
        ResizeWithPadOrCropd(KEYS, (16, 16, 1)),
    ]
    return Compose(steps, lazy=lazy, overrides={"label": {"mode": "nearest"}} if lazy else None)


@pytest.mark.parametrize("lazy", [False, True])
def test_lazy_resampling_is_not_broken(written: Path, tmp_path: Path, lazy: bool) -> None:
    files = nifti(tmp_path)
    seen: list[dict[str, Any]] = []

    def look(data: dict[str, Any]) -> dict[str, Any]:
        seen.append({key: data[key] for key in KEYS})
        return data

    ours = [
        RandLabelContrastd(KEYS, 1.0),
        RandCutMixd(KEYS, [item(8)], 1.0),
        look,
        RandSynthesisd(KEYS, written, 1.0),
        look,
    ]
    case = pipeline(ours, lazy).set_random_state(1)(files[0])
    mixed, replaced = seen
    assert mixed["image"].shape == (1, 20, 9, 6)
    assert np.allclose(np.abs(np.diag(mixed["image"].affine)), [1, 2, 2, 1])
    assert len(mixed["image"].applied_operations) == 2
    assert not mixed["image"].pending_operations
    assert replaced["image"].applied_operations == []
    for key in KEYS:
        assert case[key].shape == (1, 16, 16, 1)
        assert not case[key].pending_operations
        assert 1 <= len(case[key].applied_operations) <= 3
        assert torch.allclose(case[key].affine, case["image"].affine)
    assert set(case["label"].unique().tolist()) <= {0, 1}


def test_lazy_and_eager_agree_where_nothing_is_resampled_twice(
    written: Path, tmp_path: Path
) -> None:
    files = nifti(tmp_path)
    results = [
        pipeline([RandSynthesisd(KEYS, written, 1.0)], lazy).set_random_state(5)(files[1])
        for lazy in (False, True)
    ]
    assert torch.equal(results[0]["label"].affine, results[1]["label"].affine) or torch.allclose(
        results[0]["label"].affine, results[1]["label"].affine
    )
    agree = (results[0]["label"] == results[1]["label"]).float().mean()
    assert agree > 0.9


@pytest.mark.parametrize("workers", [0, 2])
def test_it_works_in_monais_loader(written: Path, tmp_path: Path, workers: int) -> None:
    files = nifti(tmp_path)

    def epoch() -> list[torch.Tensor]:
        ours = [RandSynthesisd(KEYS, written, 0.5), RandCutMixd(KEYS, written, 0.5)]
        steps = [
            LoadImaged(KEYS),
            EnsureChannelFirstd(KEYS),
            ResizeWithPadOrCropd(KEYS, (14, 12, 1)),
            *ours,
            ResizeWithPadOrCropd(KEYS, (16, 16, 1)),
        ]
        data = Dataset(files, Compose(steps))
        torch.manual_seed(4)
        loader = DataLoader(data, batch_size=2, num_workers=workers)
        return [torch.cat([b["image"], b["label"]], 1).as_tensor() for b in loader]

    first, second = epoch(), epoch()
    assert [batch.shape for batch in first] == [(2, 2, 16, 16, 1)] * 2
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_real_and_synthetic_collate_with_their_metadata(written: Path, tmp_path: Path) -> None:
    load = Compose(
        [LoadImaged(KEYS), EnsureChannelFirstd(KEYS), ResizeWithPadOrCropd(KEYS, (14, 12, 1))]
    )
    real = load(nifti(tmp_path)[0])
    drawn = RandSynthesisd(KEYS, written, 1.0)(real)
    (batch,) = DataLoader(Dataset([real, drawn]), batch_size=2)
    assert batch["image"].shape == (2, 1, 14, 12, 1)
    assert np.allclose(batch["image"].affine[1], drawn["image"].affine)
    assert batch["image"].meta["filename_or_obj"][1] == drawn["image"].meta["filename_or_obj"]
    SaveImage(tmp_path / "saved", squeeze_end_dims=False, print_log=False, separate_folder=False)(
        drawn["image"]
    )
    (saved,) = (tmp_path / "saved").glob("syn_*.nii.gz")
    assert np.allclose(nibabel.load(saved).affine, drawn["image"].affine)


def test_a_cache_dataset_lends_cases_and_pickles(tmp_path: Path) -> None:
    load = Compose([LoadImaged(KEYS), EnsureChannelFirstd(KEYS)])
    others = CacheDataset(nifti(tmp_path, 2), load, progress=False)
    transform = RandCarveMixd(KEYS, others, 1.0)
    copied = pickle.loads(pickle.dumps(transform))
    for seed in range(3):
        one = transform.set_random_state(seed)(item(3))
        assert same(one, copied.set_random_state(seed)(item(3)))


def test_missing_keys(written: Path) -> None:
    bare = {key: value for key, value in item(1, (14, 12, 1)).items() if key != "label"}
    transforms = [
        lambda **k: RandSynthesisd(KEYS, written, 1.0, **k),
        lambda **k: RandCutMixd(KEYS, written, 1.0, **k),
        lambda **k: RandLabelContrastd(KEYS, 1.0, **k),
    ]
    for make in transforms:
        with pytest.raises(ConfigError) as error:
            make()(bare)
        assert str(error.value) == "the item has no 'label' (it has: image, age)"
        case = make(allow_missing_keys=True)(bare)
        assert set(case) == {"image", "age"}
        assert not torch.equal(case["image"], bare["image"])
        assert make(allow_missing_keys=True)({"age": 3}) == {"age": 3}


def test_what_does_not_fit_is_refused(written: Path, tmp_path: Path) -> None:
    plain = item()
    before = copy.deepcopy(plain)
    with pytest.raises(ConfigError, match=r"keys: the image, and the label map if there is one"):
        RandSynthesisd(["a", "b", "c"], written)
    with pytest.raises(DataError, match="no such file or folder; give a run folder"):
        RandSynthesisd(KEYS, tmp_path / "nothing")
    with pytest.raises(DataError, match="as nnU-Net's"):
        RandCutMixd(KEYS, tmp_path / "nothing")
    with pytest.raises(ConfigError, match="one slice thick, and the subject has the shape"):
        RandCutMixd(KEYS, written, 1.0)(plain)
    with pytest.raises(ConfigError, match=r"'image': an array \(channels, x, y\).* got str"):
        RandCutMixd(KEYS, written, 1.0)({"image": "a.nii.gz", "label": "b.nii.gz"})
    with pytest.raises(ConfigError, match=r"label map 'label': the image needs the shape"):
        RandLabelContrastd(KEYS, 1.0)({**plain, "label": torch.zeros(1, 2, 2, 2)})
    synthesize(Toy("image"), 3, tmp_path / "png", uncertainty=1)
    with pytest.raises(ConfigError, match=r"draws no label maps, and 'label' would no longer"):
        RandSynthesisd(KEYS, tmp_path / "png", 1.0)(plain)
    assert RandSynthesisd("image", tmp_path / "png", 1.0)(plain)["image"].any()
    assert same(plain, before)


def test_a_missing_bank_file_is_named(written: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "bank"
    shutil.copytree(written, folder)
    for path in (folder / "imagesTr").glob("*"):
        path.unlink()
    plain = item()
    with pytest.raises(DataError, match=r"syn_\d+_0000.nii.gz: no such file, though the manifest"):
        RandSynthesisd(KEYS, folder, 1.0)(plain)
    assert same(plain, item())
