"""Every layout of docs/data.md is opened, sliced with its geometry, and not believed when wrong.

Each layout is fabricated on disk from the same miniature scans.  What comes back is compared with
what nibabel alone makes of the arrays; files of other formats are written by SimpleITK.
"""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from medaug.data import open_source
from medaug.data.cache import CacheSettings, SliceCache, prepare
from medaug.data.collections import Collection
from medaug.data.collections.names import KNOWN
from medaug.data.marks import reader_of
from medaug.data.readers import SeriesReader, VolumeReader
from medaug.data.volumes import suffix
from medaug.errors import ConfigError, DataError
from medaug.transforms.donors import open_donors
from tests.conftest import SPACING, miniature, write_series

AFFINE = np.diag([-SPACING[0], SPACING[1], -SPACING[2], 1.0])
Organs = dict[str, int]


def scan(seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """HU and two organs that do not touch."""
    hu, pancreas = miniature(seed)
    return hu, {"pancreas": pancreas, "bone": (hu > 300).astype(np.uint8)}


def label_map(organs: dict[str, np.ndarray], ids: Organs) -> np.ndarray:
    marks = np.zeros_like(organs["pancreas"])
    for name, id in ids.items():
        marks[organs[name] > 0] = id
    return marks


def write(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    """By nibabel, or by SimpleITK from what nibabel wrote."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nifti = path if suffix(path) in (".nii", ".nii.gz") else path.with_suffix(".nii")
    nibabel.save(nibabel.Nifti1Image(values, affine), nifti)
    if nifti != path:
        sitk.WriteImage(sitk.ReadImage(str(nifti)), str(path), True)
        nifti.unlink()


def change(
    path: Path, how: Callable[[np.ndarray], np.ndarray], affine: np.ndarray = AFFINE
) -> None:
    """Rewrite a label file; its header stays unless another is given."""
    if suffix(path) in (".nii", ".nii.gz"):
        values = np.asarray(nibabel.load(path).dataobj)
    else:
        values = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).transpose(2, 1, 0)
    write(path, np.ascontiguousarray(how(values)), affine)


@dataclass
class Layout:
    """How two scans lie on disk: image and label files by ``{n}``, ids, and what names them."""

    image: str
    label: str
    ids: Organs
    about: dict | None = None
    name: str = "folders"
    cases: tuple[str, str] = ("case_0001", "case_0002")
    organs: bool = False
    series: bool = False
    numbers: tuple[int, int] = (1, 2)
    labels: Organs | None = None

    def make(self, root: Path) -> Path:
        for seed in self.numbers:
            hu, organs = scan(seed)
            at = {"n": f"{seed:04d}", "n5": f"{seed:05d}", "m": seed - 1}
            if self.series:
                write_series(root / self.image.format(**at), f"X{seed:04d}", hu)
            else:
                write(root / self.image.format(**at), hu)
            if self.organs:
                for organ, mask in organs.items():
                    write(root / self.label.format(**at, organ=NAMED[organ]), mask)
                write(root / self.label.format(**at, organ="liver"), organs["bone"] * 0)
            else:
                write(root / self.label.format(**at), label_map(organs, self.ids))
        if self.about is not None:
            (root / "dataset.json").write_text(json.dumps(self.about))
        return root

    def label_files(self, root: Path, seed: int) -> list[Path]:
        at = {"n": f"{seed:04d}", "n5": f"{seed:05d}", "m": seed - 1}
        if not self.organs:
            return [root / self.label.format(**at)]
        return [root / self.label.format(**at, organ=NAMED[o]) for o in ("pancreas", "bone")]


NAMED = {"pancreas": "pancreas", "bone": "vertebrae_L1"}
NNUNET = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "pancreas": 1, "bone": 2}}
MSD = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "pancreas", "2": "bone"}}
TASK = "imagesTr/case_{n}", "labelsTr/case_{n}"
TWO = {"pancreas": 1, "bone": 2}


def nnunet(ending: str) -> Layout:
    about = {**NNUNET, "file_ending": ending}
    image, label = f"{TASK[0]}_0000{ending}", TASK[1] + ending
    return Layout(image, label, TWO, about, "nnunet")


def known(name: str) -> Organs:
    """Ids by name as the layout's own vocabulary has them, the bones under some other organ."""
    ids = KNOWN[name]
    return {"pancreas": ids["pancreas"], "bone": ids["spleen"]}


GZ = ".nii.gz"
LAYOUTS = {
    "nnunet .nii.gz": nnunet(".nii.gz"),
    "nnunet .nii": nnunet(".nii"),
    "nnunet .nrrd": nnunet(".nrrd"),
    "nnunet .mha": nnunet(".mha"),
    "nnunet .mhd": nnunet(".mhd"),
    "decathlon": Layout(TASK[0] + GZ, TASK[1] + GZ, TWO, MSD, "imagesTr"),
    "totalsegmentator": Layout(
        "s{n}/ct.nii.gz",
        "s{n}/segmentations/{organ}.nii.gz",
        {"pancreas": 7, "bone": 31},
        name="organs",
        cases=("s0001", "s0002"),
        organs=True,
        labels={"liver": 5, "pancreas": 7, "vertebrae_L1": 31},
    ),
    "btcv": Layout(
        "RawData/Training/img/img{n}.nii.gz",
        "RawData/Training/label/label{n}.nii.gz",
        known("btcv"),
        name="btcv",
        cases=("img0001", "img0002"),
        labels=KNOWN["btcv"],
    ),
    "amos": Layout(
        "imagesTr/amos_{n}.nii.gz",
        "labelsTr/amos_{n}.nii.gz",
        known("amos"),
        name="amos",
        cases=("amos_0001", "amos_0002"),
        labels=KNOWN["amos"],
    ),
    "word": Layout(
        "imagesTr/word_{n}.nii.gz",
        "labelsTr/word_{n}.nii.gz",
        known("word"),
        name="imagesTr",
        cases=("word_0001", "word_0002"),
        labels=KNOWN["word"],
    ),
    "flare22": Layout(
        "images/FLARE22_Tr_{n}_0000.nii.gz",
        "labels/FLARE22_Tr_{n}.nii.gz",
        known("flare22"),
        cases=("FLARE22_Tr_0001", "FLARE22_Tr_0002"),
        labels=KNOWN["flare22"],
    ),
    "flare22 side by side": Layout(
        "FLARE22_Tr_{n}_0000.nii.gz",
        "FLARE22_Tr_{n}.nii.gz",
        known("flare22"),
        name="side by side",
        cases=("FLARE22_Tr_0001", "FLARE22_Tr_0002"),
        labels=KNOWN["flare22"],
    ),
    "abdomenct-1k": Layout(
        "AbdomenCT-1K-ImagePart{m}/Case_{n5}_0000.nii.gz",
        "Mask/Case_{n5}.nii.gz",
        known("abdomenct-1k"),
        cases=("Case_00001", "Case_00002"),
        labels=KNOWN["abdomenct-1k"],
    ),
    "images and masks": Layout(
        "images/case_{n}.mha",
        "masks/case_{n}_mask.nii.gz",
        TWO,
        labels={"label_1": 1, "label_2": 2},
    ),
    "beside": Layout(
        "case_{n}_ct.nii.gz",
        "case_{n}_seg.nrrd",
        TWO,
        name="side by side",
        labels={"label_1": 1, "label_2": 2},
    ),
    "lits": Layout(
        "volume-{m}.nii",
        "segmentation-{m}.nii",
        TWO,
        name="LiTS",
        cases=("volume-0", "volume-1"),
        labels={"label_1": 1, "label_2": 2},
    ),
    "a folder each": Layout(
        "case_{n}/imaging.nii.gz",
        "case_{n}/segmentation.nii.gz",
        TWO,
        name="folder each",
        labels={"label_1": 1, "label_2": 2},
    ),
    "dicom": Layout(
        "scans/case_{n}",
        "labels/case_{n}.nii.gz",
        TWO,
        name="dicom",
        cases=("scans-case_0001", "scans-case_0002"),
        series=True,
        labels={"label_1": 1, "label_2": 2},
    ),
    "dicom with labels inside": Layout(
        "case_{n}/ct",
        "case_{n}/mask.nii.gz",
        TWO,
        name="dicom",
        cases=("case_0001-ct", "case_0002-ct"),
        series=True,
        labels={"label_1": 1, "label_2": 2},
    ),
}
EACH = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


def upright(values: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """RAS+ by nibabel."""
    image = nibabel.as_closest_canonical(nibabel.Nifti1Image(values, affine))
    return np.asarray(image.dataobj), image.affine


def opened(root: Path) -> Collection:
    source = open_source(str(root))
    assert isinstance(source, Collection)
    return source


@EACH
def test_it_is_known_by_sight_and_comes_with_its_names(layout, tmp_path):
    source = opened(layout.make(tmp_path))
    cases, problems = source.cases()
    assert problems == []
    assert source.excluded == {}
    assert source.name == layout.name
    assert [case.id for case in cases] == list(layout.cases)
    assert dict(source.labels) == (layout.labels or TWO)
    assert source.modality == "CT"


@EACH
def test_voxels_and_affine_are_those_that_nibabel_has(layout, tmp_path):
    source = opened(layout.make(tmp_path))
    for seed, case in zip(layout.numbers, source.cases()[0], strict=True):
        hu, organs = scan(seed)
        reader = SeriesReader() if layout.series else VolumeReader()
        image, meta = reader.get_data(case.image if layout.series else case.image[0])
        marks = reader_of(case.label, source.labels.values())
        label, label_meta = marks.get_data(marks.read(case.label.files))
        assert (image.dtype, label.dtype) == (np.int16, np.uint8)
        for got, got_meta, want in (
            (image, meta, hu),
            (label, label_meta, label_map(organs, layout.ids)),
        ):
            values, affine = upright(got, got_meta["affine"])
            expected, expected_affine = upright(want, AFFINE)
            assert np.array_equal(values, expected)
            assert np.allclose(affine, expected_affine, atol=1e-4)


@EACH
def test_a_mirrored_reordered_or_turned_label_is_caught(layout, tmp_path):
    made = layout.make(tmp_path / "made")
    first = layout.cases[0]
    for name, how in (
        ("mirrored left to right", lambda v: v[::-1]),
        ("mirrored front to back", lambda v: v[:, ::-1]),
        ("with its slices reversed", lambda v: v[:, :, ::-1]),
    ):
        root = Path(shutil.copytree(made, tmp_path / name))
        for file in layout.label_files(root, 1):
            change(file, how)
        failed = prepare(opened(root), tmp_path / f"cache {name}", CacheSettings(32), 0).failed
        assert [p.case for p in failed] == [first]
        assert "label lies better on the image" in failed[0].reason
    root = Path(shutil.copytree(made, tmp_path / "header"))
    for file in layout.label_files(root, 1):
        change(file, lambda v: v, AFFINE @ np.diag([-1.0, 1, 1, 1]))
    cases, problems = opened(root).cases()
    assert [p.case for p in problems] == [first]
    assert "another affine than the image: entry [0, 0]" in problems[0].reason
    assert [case.id for case in cases] == [layout.cases[1]]


@EACH
def test_a_label_of_another_scan_is_caught(layout, tmp_path):
    root = layout.make(tmp_path)
    for file in layout.label_files(root, 2):
        change(file, lambda v: v[:, :, :-1])
    problems = opened(root).cases()[1]
    assert [p.case for p in problems] == [layout.cases[1]]
    assert "label has shape" in problems[0].reason


def cached(source: Collection, cache: Path, size: int = 32) -> SliceCache:
    assert prepare(source, cache, CacheSettings(size), 0).failed == []
    return SliceCache.open(cache)


def test_all_layouts_give_the_same_slices(tmp_path):
    """The pancreas of the same scan, by any road."""
    seen = []
    for name, layout in LAYOUTS.items():
        source = opened(layout.make(tmp_path / name))
        wanted = {id: name for name, id in source.labels.items()}[layout.ids["pancreas"]]
        cache = cached(source.selecting([wanted]), tmp_path / f"cache {name}")
        assert cache.labels == {wanted: layout.ids["pancreas"]}
        case = cache.cases[layout.cases[0]]
        seen.append((case.image.tobytes(), (case.label > 0).tobytes(), case.affine.tolist()))
    assert all(image == seen[0][0] for image, _, _ in seen)
    assert all(label == seen[0][1] for _, label, _ in seen)
    assert all(np.allclose(affine, seen[0][2], atol=1e-4) for _, _, affine in seen)
    assert any(seen[0][1])


def test_labels_are_chosen_and_merged_by_name(tmp_path):
    about = {"labels": {"0": "background", "1": "pancreas", "2": "cancer", "3": "liver"}}
    hu, organs = scan(1)
    write(tmp_path / "imagesTr" / "a.nii.gz", hu)
    marks = label_map(organs, {"pancreas": 1, "bone": 3})
    tumour = (organs["pancreas"] > 0) & (np.arange(marks.shape[0]) % 2 == 0)[:, None, None]
    marks[tumour] = 2
    write(tmp_path / "labelsTr" / "a.nii.gz", marks)
    (tmp_path / "dataset.json").write_text(json.dumps(about))

    def ids(*labels: str) -> tuple[dict[str, int], dict[int, int]]:
        source = open_source(str(tmp_path), labels=labels or None)
        case = source.cases()[0][0]
        reader = reader_of(case.label, source.labels.values())
        values = reader.get_data(reader.read(case.label.files))[0]
        found, count = np.unique(values[values > 0], return_counts=True)
        return dict(source.labels), dict(zip(found.tolist(), count.tolist(), strict=True))

    names, whole = ids()
    assert names == {"pancreas": 1, "cancer": 2, "liver": 3}
    assert ids("pancreas") == ({"pancreas": 1}, {1: whole[1]})
    assert ids("liver", "cancer") == ({"cancer": 2, "liver": 3}, {2: whole[2], 3: whole[3]})
    assert ids("pancreas+cancer") == ({"pancreas": 1}, {1: whole[1] + whole[2]})
    with pytest.raises(
        ConfigError, match=r"^label 'pancras' is not there, did you mean 'pancreas'"
    ):
        open_source(str(tmp_path), labels=["pancras"])
    with pytest.raises(ConfigError, match=r"^label 'cancer' is asked for twice$"):
        open_source(str(tmp_path), labels=["pancreas+cancer", "cancer"])


def test_a_value_that_no_label_has_is_refused_even_where_labels_are_chosen(tmp_path):
    layout = LAYOUTS["decathlon"]
    root = layout.make(tmp_path / "made")
    change(layout.label_files(root, 1)[0], lambda v: np.where(v == 2, 9, v))
    source = open_source(str(root), labels=["pancreas"])
    failed = prepare(source, tmp_path / "cache", CacheSettings(32), 0).failed
    assert [str(p) for p in failed] == [
        "case_0001: case_0001.nii.gz holds the value 9, known labels are 0, 1, 2"
    ]


def test_regions_are_painted_in_nnunets_order_and_taken_whole(tmp_path):
    """KiTS: kidney holds masses, which hold tumours."""
    about = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2, "ignore": 4},
        "regions_class_order": [1, 3, 2],
        "file_ending": ".nii.gz",
    }
    hu, _ = scan(1)
    marks = np.zeros(hu.shape, np.uint8)
    marks[10:14, 10, 5], marks[14:17, 10, 5], marks[17:19, 10, 5], marks[20, 10, 5] = 1, 2, 3, 4
    write(tmp_path / "imagesTr" / "a_0000.nii.gz", hu)
    write(tmp_path / "labelsTr" / "a.nii.gz", marks)
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    for labels, names, counts in (
        (None, {"kidney": 1, "masses": 3, "tumor": 2, "ignore": 4}, [4, 3, 2, 1]),
        (["kidney"], {"kidney": 1}, [9]),
        (["masses"], {"masses": 3}, [0, 0, 5]),
        (["kidney", "tumor"], {"kidney": 1, "tumor": 2}, [6, 3]),
    ):
        source = open_source(str(tmp_path), labels=labels)
        assert dict(source.labels) == names
        case = source.cases()[0][0]
        reader = reader_of(case.label, source.labels.values())
        values = reader.get_data(reader.read(case.label.files))[0]
        assert np.bincount(values.ravel())[1:].tolist() == counts


def test_overlapping_masks_go_to_the_higher_id(tmp_path):
    hu, organs = scan(1)
    write(tmp_path / "s1" / "ct.nii.gz", hu)
    for name in ("lesion", "organ", "vessel"):
        write(tmp_path / "s1" / "segmentations" / f"{name}.nii.gz", organs["pancreas"])
    change(tmp_path / "s1" / "segmentations" / "vessel.nii.gz", lambda v: v * (hu > 105))
    source = open_source(str(tmp_path))
    assert dict(source.labels) == {"lesion": 1, "organ": 2, "vessel": 3}
    case = source.cases()[0][0]
    reader = reader_of(case.label, source.labels.values())
    values = reader.get_data(reader.read(case.label.files))[0]
    inside = organs["pancreas"] > 0
    assert np.array_equal(values, np.where(inside, np.where(hu > 105, 3, 2), 0))


def test_a_scan_without_one_of_the_masks_is_named(tmp_path):
    layout = LAYOUTS["totalsegmentator"]
    root = layout.make(tmp_path)
    (root / "s0002" / "segmentations" / "liver.nii.gz").unlink()
    cases, problems = opened(root).cases()
    assert [c.id for c in cases] == ["s0001"]
    assert [str(p) for p in problems] == [
        "s0002: no mask of liver, which other scans have; add it, or leave it out with --labels"
    ]
    assert len(open_source(str(root), labels=["pancreas"]).cases()[0]) == 2


def test_a_mask_that_is_a_label_map_is_refused(tmp_path):
    layout = LAYOUTS["totalsegmentator"]
    root = layout.make(tmp_path / "made")
    mask = root / "s0001" / "segmentations" / "pancreas.nii.gz"
    change(mask, lambda v: v + (np.arange(v.shape[0]) % 2).astype(np.uint8)[:, None, None] * v)
    failed = prepare(opened(root), tmp_path / "cache", CacheSettings(32), 0).failed
    assert [str(p) for p in failed] == [
        "s0001: pancreas.nii.gz is no binary mask: it holds values from 0 to 2"
    ]


def test_totalsegmentator_v1_is_told_from_v2_by_its_names(tmp_path):
    hu, organs = scan(1)
    write(tmp_path / "s1" / "ct.nii.gz", hu)
    for name in ("pancreas", "heart_myocardium"):
        write(tmp_path / "s1" / "segmentations" / f"{name}.nii.gz", organs["pancreas"])
    assert dict(open_source(str(tmp_path)).labels) == {"pancreas": 10, "heart_myocardium": 44}


def test_label_maps_without_names_are_named_when_asked(tmp_path):
    root = LAYOUTS["images and masks"].make(tmp_path / "made")
    source = open_source(str(root), names="word")
    assert dict(source.labels) == KNOWN["word"]
    own = tmp_path / "own.json"
    own.write_text(json.dumps({"labels": {"background": 0, "organ": 1, "bone": 2}}))
    assert dict(open_source(str(root), names=str(own)).labels) == {"organ": 1, "bone": 2}
    with pytest.raises(ConfigError, match=r"^label names 'wrod' are not known"):
        open_source(str(root), names="wrod")


def test_amos_gives_ct_by_its_numbers_and_the_others_as_mr(tmp_path):
    layout = Layout(**{**vars(LAYOUTS["amos"]), "numbers": (410, 507)})
    root = layout.make(tmp_path)
    hu, organs = scan(3)
    for folder, values in (("imagesVa", hu), ("labelsVa", label_map(organs, layout.ids))):
        for number in (409, 410 + 100):
            write(root / folder / f"amos_{number:04d}.nii.gz", values)
    source = opened(root)
    assert [case.id for case in source.cases()[0]] == ["amos_0409", "amos_0410"]
    reason = "a scan of MR by its number; take it with --modality MR"
    assert source.excluded == {"amos_0507": reason, "amos_0510": reason}
    other = open_source(str(root), modality="MR")
    assert [case.id for case in other.cases()[0]] == ["amos_0507", "amos_0510"]
    assert other.modality == "MR"


def test_images_of_a_test_set_are_not_taken(tmp_path):
    root = LAYOUTS["nnunet .nii.gz"].make(tmp_path)
    for kind, name in (("images", "case_0009_0000"), ("labels", "case_0009")):
        write(root / f"{kind}Ts" / f"{name}.nii.gz", scan(9)[0])
    assert [case.id for case in opened(root).cases()[0]] == ["case_0001", "case_0002"]


def test_a_label_without_an_image_is_told(tmp_path):
    root = LAYOUTS["btcv"].make(tmp_path)
    (root / "RawData" / "Training" / "img" / "img0001.nii.gz").unlink()
    source = opened(root)
    assert [case.id for case in source.cases()[0]] == ["img0002"]
    assert source.excluded == {"img0001": "no image was found for label0001.nii.gz"}


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_one_file_is_one_scan(ending, tmp_path):
    hu, _ = scan(1)
    write(tmp_path / f"mine{ending}", hu)
    source = open_source(str(tmp_path / f"mine{ending}"))
    assert dict(source.labels) == {}
    cache = cached(source, tmp_path / "cache")
    assert list(cache.cases) == ["mine"]
    assert cache.cases["mine"].label is None


def test_a_series_without_a_label_is_one_scan_and_its_files_need_no_suffix(tmp_path):
    hu, _ = scan(1)
    folder = tmp_path / "series"
    for file in write_series(folder, "Smith^0001", hu):
        file.rename(file.with_name(f"IM{file.stem.replace('-', '')}"))
    (folder / "LICENSE").write_text("text")
    source = opened(folder)
    cases, problems = source.cases()
    assert (problems, [case.id for case in cases]) == ([], ["series"])
    case = cached(source, tmp_path / "cache").cases["series"]
    assert len(case.image) == hu.shape[2]
    assert not any(
        b"Smith" in p.read_bytes() for p in (tmp_path / "cache").rglob("*") if p.is_file()
    )


def test_two_series_in_one_folder_are_two_scans(tmp_path):
    for seed in (1, 2):
        name = f"s{seed}-{{:03d}}.dcm"
        write_series(tmp_path / f"s{seed}", f"X{seed:04d}", scan(seed)[0], name=name)
    for file in (tmp_path / "s2").iterdir():
        file.rename(tmp_path / "s1" / file.name)
    (tmp_path / "s2").rmdir()
    source = opened(tmp_path)
    cases, problems = source.cases()
    assert problems == []
    assert [case.id for case in cases] == ["s1-1", "s1-2"]
    assert [len(case.image) for case in cases] == [16, 16]


def test_a_broken_series_is_named_and_not_taken(tmp_path):
    for seed in (1, 2):
        write_series(tmp_path / f"s{seed}", f"X{seed:04d}", scan(seed)[0])
    broken = tmp_path / "s1" / "1-004.dcm"
    broken.write_bytes(broken.read_bytes()[:900])
    (tmp_path / "s2" / "1-005.dcm").unlink()
    source = opened(tmp_path)
    cases, problems = source.cases()
    assert cases == []
    assert [p.case for p in problems] == ["s1", "s2"]
    assert "1-004.dcm is truncated" in problems[0].reason
    assert "slice 5 of 16 is missing" in problems[1].reason


def test_a_raw_file_that_is_gone_is_told(tmp_path):
    root = LAYOUTS["nnunet .mhd"].make(tmp_path / "made")
    for raw in (root / "imagesTr").glob("*raw"):
        raw.unlink()
    with pytest.raises(DataError, match=r"case_0001_0000\.mhd is truncated or damaged"):
        prepare(opened(root), tmp_path / "cache", CacheSettings(32), 0)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({**NNUNET, "file_ending": ".png"}, "file_ending is '.png', accepted are .nii.gz"),
        ({**NNUNET, "labels": {"a": 1, "b": 1}}, "the ids of labels are 1, 1; different whole"),
        ({**NNUNET, "labels": {"a": 300}}, "the ids of labels are 300; different whole"),
        ({**NNUNET, "labels": {"a": [1, 2]}}, "no labels as name: id"),
    ],
)
def test_a_strange_description_is_refused(about, message, tmp_path):
    layout = LAYOUTS["nnunet .nii.gz"]
    root = Layout(**{**vars(layout), "about": about}).make(tmp_path)
    with pytest.raises(DataError, match=message):
        open_source(str(root))


@pytest.mark.parametrize("name", ["nnunet .nii.gz", "nnunet .nrrd", "totalsegmentator", "beside"])
def test_cases_that_are_mixed_in_come_from_any_layout(name, tmp_path):
    layout = LAYOUTS[name]
    donors = open_donors(str(layout.make(tmp_path)))
    assert list(donors.indices(0)) == [0, 1]
    donor = donors.donor(0, 0)
    hu, organs = scan(1)
    for got, want in ((donor.image[0], hu), (donor.label, label_map(organs, layout.ids))):
        values, affine = upright(got, donor.affine)
        expected, expected_affine = upright(want, AFFINE)
        assert np.array_equal(values, expected)
        assert np.allclose(affine, expected_affine, atol=1e-4)


def test_the_command_takes_labels(medaug, tmp_path):
    root = LAYOUTS["totalsegmentator"].make(tmp_path / "made")
    done = medaug("prepare", root, "--size", 32, "--labels", "pancreas, vertebrae_L1", "--json")
    assert done.code == 0
    cache = SliceCache.open(Path(done.json["cache"]))
    assert re.fullmatch(r"organs-\w{8}-32px-400mm-pancreas-vertebrae_L1", cache.path.name)
    assert cache.labels == {"pancreas": 7, "vertebrae_L1": 31}
    wrong = medaug("prepare", root, "--labels", "pancras")
    assert wrong.code == 2
    assert wrong.err.startswith("medaug: label 'pancras' is not there, did you mean 'pancreas'?")


@pytest.mark.real
def test_totalsegmentators_example_by_masks_and_by_label_map(real_data, tmp_path):
    """One patient: both forms give the same 40 organs, named alike."""
    example = real_data / "totalsegmentator-example"
    masks = opened(example)
    (tmp_path / "s0000").mkdir()
    shutil.copy(example / "s0000" / "ct.nii.gz", tmp_path / "s0000")
    shutil.copy(example / "multilabel.nii.gz", tmp_path / "s0000")
    whole = opened(tmp_path)
    assert dict(masks.labels) == dict(whole.labels) == KNOWN["totalsegmentator-v2"]
    caches = [cached(s, tmp_path / f"cache{i}", 128) for i, s in enumerate((masks, whole))]
    first, second = (cache.cases["s0000"] for cache in caches)
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.label, second.label)
    assert len(np.unique(first.label)) == 41  # background and 40 organs
    one = cached(masks.selecting(["pancreas"]), tmp_path / "one").cases["s0000"]
    assert one.label_pixels["pancreas"].sum() > 0
    assert set(np.unique(one.label)) == {0, 7}


@pytest.mark.real
def test_totalsegmentators_example_mirrored_is_caught(real_data, tmp_path):
    example = real_data / "totalsegmentator-example"
    (tmp_path / "s0000").mkdir()
    shutil.copy(example / "s0000" / "ct.nii.gz", tmp_path / "s0000")
    image = nibabel.load(example / "multilabel.nii.gz")
    for flip in (np.s_[::-1], np.s_[:, ::-1], np.s_[:, :, ::-1]):
        turned = nibabel.Nifti1Image(np.asarray(image.dataobj)[flip], image.affine, image.header)
        nibabel.save(turned, tmp_path / "s0000" / "multilabel.nii.gz")
        with pytest.raises(DataError, match="label lies better on the image"):
            prepare(opened(tmp_path), tmp_path / "cache", CacheSettings(32), 0)
