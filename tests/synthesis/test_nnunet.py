"""Folders that nnU-Net takes as they are: real cases beside synthetic ones, ignore, folds."""

import csv
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from medaug.core.errors import CacheError, ConfigError, DataError, OutputError
from medaug.core.types import Sample
from medaug.data.cache.prepare import SliceCache
from medaug.synthesis import journal
from medaug.synthesis.ignore_label import IgnoreAbove
from medaug.synthesis.manifest import case_name
from medaug.synthesis.nnunet_splits import nnunet_splits
from medaug.synthesis.synthesize import plan, synthesize
from tests.support.toy import Toy, finish, start
from tests.support.trees import tree

LPS_TO_RAS = np.diag([-1, -1, 1])


class Model(Toy):
    """A toy whose settings are those of a run on the phantom."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.config = {"data": {"size": 32, "fov_mm": 400.0, "min_label_pixels": 3}}


def stems(folder: Path) -> set[str]:
    return {path.name.removesuffix("_0000.nii.gz") for path in (folder / "imagesTr").iterdir()}


def showing(cache: SliceCache, least: int) -> dict[str, tuple[str, int]]:
    """The labelled training slices by the name they should have."""
    found = {}
    for patient in cache.split["train"]:
        label = cache.cases[patient].label
        assert label is not None
        for z in np.flatnonzero((label == 1).sum((1, 2)) >= least):
            found[f"real_{patient}_z{z:03d}"] = (patient, int(z))
    return found


def verified(folder: Path) -> None:
    """What nnU-Net v2 checks of a raw folder before it plans anything."""
    content = json.loads((folder / "dataset.json").read_text())
    assert content.keys() >= {"labels", "channel_names", "numTraining", "file_ending"}
    cases = stems(folder)
    assert len(cases) == content["numTraining"]
    assert cases == {p.name.removesuffix(".nii.gz") for p in (folder / "labelsTr").iterdir()}
    ids = [value for name, value in content["labels"].items() if name != "ignore"]
    assert sorted(ids) == list(range(len(ids)))
    if "ignore" in content["labels"]:
        assert content["labels"]["ignore"] == max(ids) + 1
    allowed = set(content["labels"].values())
    for case in cases:
        image = sitk.ReadImage(str(folder / "imagesTr" / f"{case}_0000.nii.gz"))
        label = sitk.ReadImage(str(folder / "labelsTr" / f"{case}.nii.gz"))
        assert image.GetSize() == label.GetSize()
        for get in ("GetSpacing", "GetOrigin", "GetDirection"):
            assert getattr(image, get)() == pytest.approx(getattr(label, get)())
        assert set(np.unique(sitk.GetArrayFromImage(label)).tolist()) <= allowed


def test_real_training_slices_stand_beside_the_samples(phantom_cache: Path, tmp_path: Path) -> None:
    cache, out = SliceCache.open(phantom_cache), tmp_path / "out"
    expected = showing(cache, 3)
    assert len(expected) > 5
    report = synthesize(Model(), 20, out, uncertainty=2, with_real=phantom_cache)
    assert (report.written, report.real) == (20, len(expected))
    assert f"{len(expected)} real slices beside them" in str(report)
    assert stems(out) == set(expected) | {case_name(i) for i in range(20)}
    assert not any(patient in name for patient in cache.split["heldout"] for name in stems(out))
    verified(out)
    for name, (patient, z) in expected.items():
        case = cache.cases[patient]
        assert case.label is not None
        image = sitk.ReadImage(str(out / "imagesTr" / f"{name}_0000.nii.gz"))
        assert np.array_equal(sitk.GetArrayFromImage(image)[0], case.image[z])
        label = sitk.ReadImage(str(out / "labelsTr" / f"{name}.nii.gz"))
        assert np.array_equal(sitk.GetArrayFromImage(label)[0], case.label[z])
        where = image.TransformIndexToPhysicalPoint((3, 5, 0))
        assert LPS_TO_RAS @ where == pytest.approx((case.affine @ [3, 5, z, 1])[:3], abs=1e-3)
        assert image.GetSpacing() == pytest.approx(case.spacing_mm)
    with (out / "manifest.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["origin"] for row in rows] == ["synthetic"] * 20 + ["real"] * len(expected)
    real = {row["case"]: row for row in rows if row["origin"] == "real"}
    assert {name: row["patient"] for name, row in real.items()} == {
        name: patient for name, (patient, _) in expected.items()
    }
    name, (patient, z) = next(iter(expected.items()))
    row, case = real[name], cache.cases[patient]
    area = (case.label[z] == 1).sum() * case.spacing_mm[0] * case.spacing_mm[1]  # type: ignore[index]
    assert float(row["mask_area_mm2"]) == pytest.approx(area, abs=0.01)
    assert row["index"] == row["seed"] == row["std"] == row["mean_std"] == ""
    assert len(journal.read(out)) == 20
    run = json.loads((out / "run.json").read_text())
    assert run["settings"]["real_slices"] == cache.fingerprint
    assert run["real"] == len(expected)


def test_the_real_part_is_the_same_in_shards_in_steps_and_after_losses(
    phantom_cache: Path, tmp_path: Path
) -> None:
    wishes: dict[str, Any] = {"uncertainty": 2, "with_real": phantom_cache}
    synthesize(Model(), 40, tmp_path / "once", **wishes)
    owned = []
    for number in (2, 0, 1):
        before = stems(tmp_path / "shards") if owned else set()
        synthesize(Model(), 40, tmp_path / "shards", shard=(number, 3), **wishes)
        owned.append({name for name in stems(tmp_path / "shards") - before if name[0] == "r"})
    assert all(owned)
    assert sum(map(len, owned)) == len(set().union(*owned))
    assert tree(tmp_path / "shards") == tree(tmp_path / "once")
    synthesize(Model(), 5, tmp_path / "steps", **wishes)
    synthesize(Model(), 40, tmp_path / "steps", **wishes)
    assert tree(tmp_path / "steps") == tree(tmp_path / "once")
    name = sorted(stems(tmp_path / "steps"))[0]
    assert name.startswith("real_")
    (tmp_path / "steps" / "labelsTr" / f"{name}.nii.gz").unlink()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "steps").glob("*Tr/*")}
    assert synthesize(Model(), 40, tmp_path / "steps", **wishes).written == 0
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())
    assert tree(tmp_path / "steps") == tree(tmp_path / "once")


def test_leftovers_of_real_files_belong_to_their_shard(phantom_cache: Path, tmp_path: Path) -> None:
    wishes: dict[str, Any] = {"uncertainty": 1, "with_real": phantom_cache}
    synthesize(Model(), 2, tmp_path / "out", **wishes)
    names = [name for name in stems(tmp_path / "out") if name.startswith("real")]
    theirs = next(name for name in names if journal.in_shard(name, 1, 2))
    part = tmp_path / "out" / "imagesTr" / f".{theirs}_0000.nii.gz.ab_z1c.part"
    part.write_bytes(b"half")
    synthesize(Model(), 2, tmp_path / "out", shard=(0, 2), **wishes)
    assert part.exists()
    synthesize(Model(), 2, tmp_path / "out", shard=(1, 2), **wishes)
    assert not part.exists()


def test_real_slices_are_part_of_what_a_folder_is(phantom_cache: Path, tmp_path: Path) -> None:
    synthesize(Model(), 2, tmp_path, uncertainty=1)
    before = tree(tmp_path)
    with pytest.raises(OutputError) as error:
        synthesize(Model(), 2, tmp_path, uncertainty=1, with_real=phantom_cache)
    fingerprint = SliceCache.open(phantom_cache).fingerprint[:12]
    assert str(error.value) == (
        f"{tmp_path}: holds samples made with real_slices none, asked for real_slices "
        f"{fingerprint}; choose another folder, or the settings it was made with"
    )
    assert tree(tmp_path) == before


def test_real_slices_that_do_not_fit_are_refused(phantom_cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    other, many = Model(), Model()
    other.labels = {"liver": 1}
    many.config = {"data": {"min_label_pixels": 900}}
    for generator, options, kind, message in (
        (other, {}, ConfigError, f"the model has the label liver: 1, and {phantom_cache} has panc"),
        (many, {}, DataError, "no training slice shows 900 pixels of pancreas"),
        (Model(), {"format": "png"}, ConfigError, "real slices go with format nifti, got png"),
        (Model(kind="image"), {"format": "nifti"}, ConfigError, "this model draws no masks"),
        (Model(), {"with_real": tmp_path / "no"}, CacheError, "no such folder; make one with"),
    ):
        for call in (synthesize, plan):
            with pytest.raises(kind, match=message):
                call(generator, 2, out, **{"with_real": phantom_cache, **options})
    assert not out.exists()


def test_a_plan_counts_the_real_slices(phantom_cache: Path, tmp_path: Path) -> None:
    told = plan(Model(), 2, tmp_path / "out", with_real=phantom_cache, shard=(0, 2))
    rest = plan(Model(), 2, tmp_path / "out", with_real=phantom_cache, shard=(1, 2))
    assert told.real + rest.real == len(showing(SliceCache.open(phantom_cache), 3))
    assert not (tmp_path / "out").exists()


def test_transforms_draw_synthetic_pairs_only(phantom_cache: Path, tmp_path: Path) -> None:
    from medaug.transforms.pairs import open_pairs

    synthesize(Model(), 3, tmp_path, uncertainty=1, with_real=phantom_cache)
    assert list(open_pairs(tmp_path).indices(99)) == [0, 1, 2]


def test_two_shards_with_real_slices_at_the_same_time(phantom_cache: Path, tmp_path: Path) -> None:
    more = f", with_real=Path({str(phantom_cache)!r})"
    for process in [start(tmp_path / "a", 64, (number, 2), more=more) for number in range(2)]:
        finish(process)
    synthesize(Toy(), 64, tmp_path / "b", uncertainty=2, with_real=phantom_cache)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def entropic(entropy: np.ndarray) -> Sample:
    label = np.zeros(entropy.shape, np.uint8)
    label[0] = 1
    image = np.zeros(entropy.shape, np.int16)
    return Sample(0, image, label, np.eye(4), image[None], label[None], image * 0.0, entropy)


def test_the_quantile_is_over_uncertain_voxels_and_takes_the_top_along() -> None:
    entropy = np.zeros((10, 10), np.float32)
    entropy[0] = np.linspace(0.1, 1.0, 10)
    marked = IgnoreAbove(2, 0.75, relative=True).marked(entropic(entropy))
    assert marked.label is not None
    assert np.array_equal(marked.label == 2, entropy >= np.quantile(entropy[0], 0.75))
    assert (marked.label == 2).sum() == 3
    entropy[0] = 1
    marked = IgnoreAbove(2, 0.95, relative=True).marked(entropic(entropy))
    assert (marked.label == 2).sum() == 10


def test_bits_are_a_bound_of_their_own() -> None:
    entropy = np.zeros((10, 10), np.float32)
    entropy[0, :4] = 0.2, 0.5, 0.6, 1.0
    marked = IgnoreAbove(2, 0.5, relative=False).marked(entropic(entropy))
    assert marked.label is not None
    assert np.flatnonzero(marked.label == 2).tolist() == [2, 3]
    none = IgnoreAbove(2, 0.5, relative=True).marked(entropic(entropy * 0))
    assert none.label is not None
    assert set(none.label.ravel()) == {0, 1}


@pytest.mark.parametrize("asked", ["q50", "q95", 0.5, "0.5"])
def test_a_folder_declares_and_holds_the_ignore_label(
    asked: str | float, phantom_cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options: dict[str, Any] = {"uncertainty": 3, "with_real": phantom_cache}
    synthesize(Model(), 5, out, ignore_above=asked, **options)
    verified(out)
    assert json.loads((out / "dataset.json").read_text())["labels"] == {
        "background": 0,
        "pancreas": 1,
        "ignore": 2,
    }
    plain = tmp_path / "plain"
    synthesize(Model(), 5, plain, **options)
    for sample in Model().block(0, uncertainty=3)[:5]:
        name = f"labelsTr/{case_name(sample.index)}.nii.gz"
        label = nib.load(out / name).get_fdata()[..., 0].T
        assert sample.entropy is not None
        assert np.array_equal(label == 2, sample.entropy > 0)  # the toy's entropy is 0 or 1
        assert np.array_equal(label[label < 2], sample.label[label < 2])  # type: ignore[index]
    changed = {name for name, digest in tree(out).items() if digest != tree(plain)[name]}
    assert {name.split("/")[0] for name in changed} == {
        *("labelsTr", "dataset.json", "manifest.csv", "run.json", "preview.png"),
    }
    assert not any("real_" in name for name in changed)
    areas = [{i: row["mask_area_mm2"] for i, row in journal.read(f).items()} for f in (out, plain)]
    assert areas[0] == areas[1]
    with Image.open(out / "preview.png") as picture:
        assert picture.width > 300
    with pytest.raises(OutputError, match="made with ignore_above none, asked for ignore_above"):
        synthesize(Model(), 5, plain, ignore_above=asked, **options)


def test_one_bound_spelt_otherwise_is_the_same_folder(tmp_path: Path) -> None:
    for first, second in (("q95", "q95.0"), ("0.5", 0.50)):
        out = tmp_path / first
        synthesize(Toy(), 2, out, uncertainty=2, ignore_above=first)
        assert synthesize(Toy(), 2, out, uncertainty=2, ignore_above=second).written == 0
        run = json.loads((out / "run.json").read_text())
        assert run["settings"]["ignore_above"] == first


@pytest.mark.parametrize(
    ("generator", "options", "message"),
    [
        (Toy(), {"uncertainty": 1}, "votes need an uncertainty of at least 2, got 1"),
        (Toy("image"), {"format": "nifti"}, "this model draws no masks, so there are no votes"),
        (Toy(), {"format": "png"}, "nnU-Net's label goes with format nifti, got png"),
        (Toy(), {"ignore_above": "most"}, "'most', accepted are q95 and the like, or bits such"),
        (Toy(), {"ignore_above": "q100"}, "q100, accepted are above q0 to below q100"),
        (Toy(), {"ignore_above": 95}, "95 bits, accepted are 0 to below 1, which is all that 8 v"),
        (Toy(), {"ignore_above": -1}, "-1 bits, accepted are 0 to below 1"),
        (Toy(), {"ignore_above": "nan"}, "nan bits, accepted are 0 to below 1"),
    ],
)
def test_an_ignore_label_that_cannot_be_is_refused(
    generator: Toy, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as error:
        synthesize(generator, 2, tmp_path / "out", **{"ignore_above": "q95", **options})
    assert str(error.value).startswith(f"ignore_above: {message}")
    assert not (tmp_path / "out").exists()


def test_a_label_of_the_same_name_is_refused(tmp_path: Path) -> None:
    model = Toy()
    model.labels = {"pancreas": 1, "ignore": 2}
    with pytest.raises(ConfigError, match="has a label of its own called 'ignore'"):
        synthesize(model, 2, tmp_path / "out", ignore_above=0.5)
    model.labels = {"pancreas": 255}
    with pytest.raises(ConfigError, match="ids up to 255, and 255 is taken"):
        synthesize(model, 2, tmp_path / "out", ignore_above=0.5)


def raw(folder: Path, cases: list[str], ending: str = ".nii.gz") -> Path:
    """A folder in nnU-Net's raw layout with empty files, which the folds never open."""
    for place in ("imagesTr", "labelsTr"):
        (folder / place).mkdir(parents=True)
    for case in cases:
        (folder / "imagesTr" / f"{case}_0000{ending}").touch()
        (folder / "labelsTr" / f"{case}{ending}").touch()
    (folder / "dataset.json").write_text(json.dumps({"file_ending": ending}))
    return folder


def patient_of(case: str) -> str:
    return case.removeprefix("real_").rpartition("_z")[0] or case


def test_folds_keep_patients_whole_and_synthetic_cases_out_of_validation(
    phantom_cache: Path, tmp_path: Path
) -> None:
    synthesize(Model(), 7, tmp_path, uncertainty=1, with_real=phantom_cache)
    report = nnunet_splits(tmp_path, folds=3)
    splits = json.loads((tmp_path / "splits_final.json").read_text())
    synthetic = {case_name(i) for i in range(7)}
    real = stems(tmp_path) - synthetic
    assert (report.patients, report.real, report.synthetic) == (3, len(real), 7)
    assert [set(fold) for fold in splits] == [{"train", "val"}] * 3
    seen: list[str] = []
    for fold in splits:
        train, val = set(fold["train"]), set(fold["val"])
        assert len(train) + len(val) == len(fold["train"]) + len(fold["val"])
        assert train | val == real | synthetic
        assert synthetic <= train
        assert not train & val
        assert not {patient_of(c) for c in train - synthetic} & {patient_of(c) for c in val}
        seen += fold["val"]
    assert sorted(seen) == sorted(real)


def test_cases_of_others_are_patients_of_their_own(tmp_path: Path) -> None:
    cases = [f"liver_{i:03d}" for i in range(11)] + ["syn_000000", "syn_000001"]
    folder = raw(tmp_path / "a", cases, ".mha")
    assert nnunet_splits(folder).patients == 11
    splits = json.loads((folder / "splits_final.json").read_text())
    assert sorted(len(fold["val"]) for fold in splits) == [2, 2, 2, 2, 3]
    assert all(fold["train"][-2:] == cases[-2:] for fold in splits)


def test_the_seed_and_the_names_decide_alone(tmp_path: Path) -> None:
    cases = [f"case{i}" for i in range(20)]
    a, b = raw(tmp_path / "a", cases), raw(tmp_path / "b", cases[::-1])

    def content(folder: Path, **options: int) -> bytes:
        nnunet_splits(folder, **options)
        return (folder / "splits_final.json").read_bytes()

    assert content(a) == content(b) == content(a)
    assert content(a, seed=1) != content(b)
    assert len(json.loads(content(a, folds=2))) == 2


def test_folds_that_cannot_be_are_refused(tmp_path: Path) -> None:
    few = raw(tmp_path / "few", ["a", "b", "syn_000000"])
    none = raw(tmp_path / "none", ["syn_000000"])
    bare = raw(tmp_path / "bare", ["a", "b"])
    (bare / "labelsTr" / "b.nii.gz").unlink()
    (tmp_path / "empty").mkdir()
    half = raw(tmp_path / "half", ["syn_000000", "a", "b"])
    (half / "run.json").write_text(json.dumps({"n": 4, "real": 2}))
    thin = raw(tmp_path / "thin", ["syn_000000", "a", "b"])
    (thin / "run.json").write_text(json.dumps({"n": 1, "real": 5}))
    for folder, folds, kind, message in (
        (few, 5, ConfigError, f"folds: 5 asked, and {few} holds real cases of 2 patients"),
        (few, 1, ConfigError, "folds must be at least 2, got 1"),
        (none, 2, DataError, "holds no real case to validate on"),
        (bare, 2, DataError, "the case b has an image and no label in labelsTr"),
        (tmp_path / "empty", 2, DataError, "not in nnU-Net's raw layout"),
        (half, 2, DataError, "holds 1 of 4 samples; run its medaug synthesize command again"),
        (thin, 2, DataError, "holds 2 of 5 real slices; run its medaug"),
    ):
        with pytest.raises(kind, match=message):
            nnunet_splits(folder, folds)
        assert not (folder / "splits_final.json").exists()
