"""DICOM, written by one library and read by three: pydicom, SimpleITK and highdicom."""

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from highdicom import imread
from highdicom._standard_utils import get_iod_module_map, get_module_attribute_map
from highdicom.seg import segread
from scipy.ndimage import center_of_mass

from medaug.core.errors import ConfigError, DataError
from medaug.core.types import Sample
from medaug.synthesis import journal
from medaug.synthesis.synthesize import synthesize
from medaug.synthesis.writers import open_writer
from medaug.synthesis.writers.dicom import Dicom, affine_of
from tests.support.toy import Toy
from tests.support.trees import tree
from tests.synthesis.test_writers import AFFINE, LPS_TO_RAS, row, sample, written

LABELS = {"pancreas": 1, "my tumour \\ größer": 3, "portal_vein": 7}
TURN = np.deg2rad(12)
TILTED = np.array(
    [
        [2.5 * np.cos(TURN), -3.125 * np.sin(TURN), 0, -87.51],
        [2.5 * np.sin(TURN), 3.125 * np.cos(TURN), 0, 31.7 / 3],
        [0, 0, 1.5, 42],
        [0, 0, 0, 1.0],
    ]
)


def case(**changes: Any) -> Sample:
    """A sample with two of three labels in it, from known weights."""
    origin = {"weights": "0123456789abcdef" * 4, "seed": 5, "labels": LABELS}
    made = replace(sample(), origin=origin)
    assert made.label is not None
    made.label[6, 2:5] = 7
    return replace(made, **changes)


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, Path]:
    return written(tmp_path, "dicom", case())


def test_the_files_are_a_case_and_its_uncertainty(paths: dict[str, Path], tmp_path: Path) -> None:
    assert {role: str(path.relative_to(tmp_path)) for role, path in paths.items()} == {
        "image": "ct/syn_000007.dcm",
        "label": "seg/syn_000007.dcm",
        "std": "uncertainty/syn_000007_std.dcm",
        "entropy": "uncertainty/syn_000007_entropy.dcm",
    }
    assert set(Dicom().files(case(alternatives=case().alternatives[:0]), "a", 1)) == {
        *("image", "label"),
    }
    assert set(Dicom().files(replace(sample(k=0), label=None), "a", 1)) == {"image"}


@pytest.mark.parametrize("affine", [AFFINE, TILTED])
def test_simpleitk_sees_what_it_sees_in_nifti(affine: np.ndarray, tmp_path: Path) -> None:
    made = case(affine=affine)
    dicom = sitk.ReadImage(str(written(tmp_path, "dicom", made)["image"]))
    nifti = sitk.ReadImage(str(written(tmp_path, "nifti", made)["image"]))
    assert dicom.GetPixelID() == nifti.GetPixelID() == sitk.sitkInt16
    assert dicom.GetSize() == nifti.GetSize()
    assert dicom.GetSpacing() == pytest.approx(nifti.GetSpacing())
    placed = sitk.Resample(dicom, nifti, sitk.Transform(), sitk.sitkNearestNeighbor, -9999)
    assert np.array_equal(sitk.GetArrayFromImage(placed)[0], made.image)
    for x, y in ((0, 0), (13, 9), (3, 8)):
        there = dicom.TransformIndexToPhysicalPoint((13 - x, 9 - y, 0))
        assert there == pytest.approx(nifti.TransformIndexToPhysicalPoint((x, y, 0)), abs=1e-4)
        assert LPS_TO_RAS @ there == pytest.approx((affine @ [x, y, 0, 1])[:3], abs=1e-4)
        assert dicom[13 - x, 9 - y, 0] == made.image[y, x]


def test_a_viewer_gets_the_patients_right_on_the_left_and_anterior_up(
    paths: dict[str, Path],
) -> None:
    data = pydicom.dcmread(paths["image"])
    assert [float(v) for v in data.ImageOrientationPatient] == [1, 0, 0, 0, 1, 0]
    assert [float(v) for v in data.PixelSpacing] == [3.125, 2.5]
    assert np.array_equal(data.pixel_array, case().image[::-1, ::-1])
    assert (data.RescaleSlope, data.RescaleIntercept, data.RescaleType) == (1, 0, "HU")


@pytest.mark.parametrize("affine", [AFFINE, TILTED])
def test_highdicom_finds_the_segments_where_the_labels_are(
    affine: np.ndarray, tmp_path: Path
) -> None:
    made = case(affine=affine)
    paths = written(tmp_path, "dicom", made)
    found, label = segread(paths["label"]), made.label
    assert label is not None
    assert [found.get_segment_description(n).segment_label for n in (1, 2, 3)] == [
        *("pancreas", "my tumour / größer", "portal_vein"),
    ]
    kinds = [found.get_segment_description(n).segmented_property_type.meaning for n in (1, 2, 3)]
    assert kinds == ["Pancreas", "Tissue", "Portal vein"]
    volume = found.get_volume(combine_segments=True)
    numbers = volume.array[0]
    ids = np.array([0, *LABELS.values()])
    assert np.array_equal(ids[numbers], label[::-1, ::-1])
    r, c = center_of_mass(numbers == 1)
    y, x = center_of_mass(label == 1)
    there = LPS_TO_RAS @ (volume.affine @ [0, r, c, 1])[:3]
    assert there == pytest.approx((affine @ [x, y, 0, 1])[:3], abs=1e-4)
    assert found.FrameOfReferenceUID == pydicom.dcmread(paths["image"]).FrameOfReferenceUID
    image = pydicom.dcmread(paths["image"])
    assert found.get_source_image_uids() == [
        (image.StudyInstanceUID, image.SeriesInstanceUID, image.SOPInstanceUID)
    ]


def test_uncertainty_comes_as_real_numbers_in_their_unit(paths: dict[str, Path]) -> None:
    made = case()
    for role, array, unit in (("std", made.std, "[hnsf'U]"), ("entropy", made.entropy, "bit")):
        found = imread(paths[role])
        volume = found.get_volume()
        assert array is not None
        assert np.array_equal(volume.array[0], array[::-1, ::-1])
        (shared,) = found.SharedFunctionalGroupsSequence
        (mapping,) = shared.RealWorldValueMappingSequence
        assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == unit


def test_every_object_says_that_nobody_was_scanned(paths: dict[str, Path]) -> None:
    for role, path in paths.items():
        data = pydicom.dcmread(path)
        assert data.SyntheticData == "YES", role
        assert data.PatientIdentityRemoved == "YES"
        assert "there is no patient" in data.DeidentificationMethod
        assert (data.QualityControlImage, data.QualityControlSubject) == ("YES", "YES")
        assert (data.BurnedInAnnotation, data.RecognizableVisualFeatures) == ("NO", "NO")
        assert data.ImageType[0] == "DERIVED"
        assert str(data.PatientName) == "SYNTHETIC^MEDAUG"
        assert data.PatientID == "SYNTHETIC-01234567-5-7"
        assert data.PatientBirthDate == data.PatientSex == data.StudyDate == ""
        assert "ynthetic" in data.StudyDescription
        assert "synthetic" in data.SeriesDescription.lower()
        assert "weights 0123456789ab, seed 5, sample 7" in data.DerivationDescription
        (maker,) = data.ContributingEquipmentSequence
        assert maker.Manufacturer == "medaug"
        assert maker.PurposeOfReferenceCodeSequence[0].CodeMeaning == "Synthesizing Equipment"
        dates = [item.value for item in data.iterall() if item.VR in ("DA", "DT") and item.value]
        assert set(dates) <= {"19700101"}
    assert list(pydicom.dcmread(paths["image"]).ImageType[:2]) == ["DERIVED", "SECONDARY"]


@pytest.mark.parametrize(
    ("role", "kind"),
    [
        ("image", "ct-image"),
        ("label", "segmentation"),
        ("std", "parametric-map"),
        ("entropy", "parametric-map"),
    ],
)
def test_no_mandatory_attribute_is_missing(paths: dict[str, Path], role: str, kind: str) -> None:
    """By the tables of the standard: type 1 is there with a value, type 2 is there."""
    data = pydicom.dcmread(paths[role])
    checked = 0
    for module in get_iod_module_map()[kind]:
        if module["usage"] != "M":
            continue
        for attribute in get_module_attribute_map()[module["key"]]:
            if attribute["path"] or attribute["type"] not in ("1", "2"):
                continue
            keyword = attribute["keyword"]
            assert keyword in data, f"{module['key']}: {keyword}"
            if attribute["type"] == "1":
                assert data[keyword].value not in (None, ""), f"{module['key']}: {keyword}"
            checked += 1
    assert checked > 20


def uids(content: dict[str, tuple[str, bytes]]) -> dict[str, set[str]]:
    """The identifiers that each object has for itself, without those it shares or quotes."""
    found = {}
    for role, (_, data) in content.items():
        read = pydicom.dcmread(io.BytesIO(data))
        found[role] = {str(read.SOPInstanceUID), str(read.SeriesInstanceUID)}
        for uid in found[role] | {str(read.StudyInstanceUID), str(read.FrameOfReferenceUID)}:
            assert uid.startswith("2.25.")
            assert len(uid) <= 64
            assert pydicom.uid.UID(uid).is_valid
    return found


@pytest.mark.long
def test_equal_samples_give_equal_bytes_in_another_process() -> None:
    code = (
        "import hashlib; from tests.synthesis.test_dicom import case;"
        "from medaug.synthesis.writers.dicom import Dicom;"
        "made = Dicom().files(case(), 'a', 1).values();"
        "print(hashlib.sha256(b''.join(data for _, data in made)).hexdigest())"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
        ).stdout
        for _ in range(2)
    }
    assert len(told) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"index": 8},
        {"origin": {"weights": "f" * 64, "seed": 5, "labels": LABELS}},
        {"origin": {"weights": "0123456789abcdef" * 4, "seed": 6, "labels": LABELS}},
        {"image": case().image + np.int16(1)},
        {"std": case().std + np.float32(1)},
    ],
)
def test_other_samples_never_share_an_identity(change: dict[str, Any]) -> None:
    ours, theirs = (uids(Dicom().files(made, "a", 1)) for made in (case(), case(**change)))
    every = [*ours.values(), *theirs.values()]
    assert len(set().union(*every)) == sum(map(len, every)) == 16


@pytest.mark.parametrize("affine", [AFFINE, TILTED])
def test_dicom_comes_back(affine: np.ndarray, tmp_path: Path) -> None:
    made = case(affine=affine)
    names = row(tmp_path, written(tmp_path, "dicom", made))
    back = Dicom().read(tmp_path, names)
    assert back.index == 7
    assert np.array_equal(back.image, made.image)
    assert back.image.dtype == np.int16
    assert np.array_equal(back.label, made.label)
    assert np.array_equal(back.std, made.std)
    assert np.allclose(back.affine, affine, atol=1e-6)
    assert np.allclose(affine_of(pydicom.dcmread(tmp_path / names["image"])), affine, atol=1e-6)


def test_a_mask_that_is_empty_or_full_comes_back(tmp_path: Path) -> None:
    for value in (0, 3):
        label = np.full((10, 14), value, np.uint8)
        names = row(tmp_path, written(tmp_path, "dicom", case(label=label)))
        assert np.array_equal(Dicom().read(tmp_path, names).label, label)
        assert segread(tmp_path / names["label"]).number_of_segments == 3


def test_a_sample_of_unknown_make_is_written_too(tmp_path: Path) -> None:
    made = replace(sample(), origin={})
    names = row(tmp_path, written(tmp_path, "dicom", made))
    assert np.array_equal(Dicom().read(tmp_path, names).label, made.label)
    assert segread(tmp_path / names["label"]).get_segment_description(1).segment_label == "label 1"


@pytest.mark.parametrize("role", ["image", "label", "std"])
@pytest.mark.parametrize("content", [None, b"", b"not a file of any kind", 700])
def test_damaged_files_are_named(tmp_path: Path, role: str, content: bytes | int | None) -> None:
    paths = written(tmp_path, "dicom", case())
    names = row(tmp_path, paths)
    if content is None:
        paths[role].unlink()
    elif isinstance(content, int):
        paths[role].write_bytes(paths[role].read_bytes()[:content])
    else:
        paths[role].write_bytes(content)
    with pytest.raises(DataError) as error:
        Dicom().read(tmp_path, names)
    reason = "no such file, though" if content is None else "not a readable DICOM file"
    assert str(error.value).startswith(f"{paths[role]}: {reason}")


@pytest.mark.parametrize(
    ("name", "value"), [("PixelSpacing", None), ("ImageOrientationPatient", [1.0]), ("Rows", 0)]
)
def test_headers_that_do_not_fit_are_named(tmp_path: Path, name: str, value: object) -> None:
    paths = written(tmp_path, "dicom", case())
    names = row(tmp_path, paths)
    data = pydicom.dcmread(paths["image"])
    setattr(data, name, value)
    data.save_as(paths["image"])
    with pytest.raises(DataError, match=r"not a readable DICOM file \(.+\)$"):
        Dicom().read(tmp_path, names)


def test_a_folder_of_dicom_is_the_same_in_shards(tmp_path: Path) -> None:
    options: dict[str, Any] = {"uncertainty": 2, "format": "dicom"}
    synthesize(Toy(), 20, tmp_path / "once", **options)
    for number in (1, 0):
        synthesize(Toy(), 20, tmp_path / "shards", shard=(number, 2), **options)
    assert tree(tmp_path / "once") == tree(tmp_path / "shards")
    assert {path.name for path in (tmp_path / "once").iterdir()} == {
        *("ct", "seg", "uncertainty", "manifest.csv", "run.json", "preview.png"),
    }
    rows = journal.read(tmp_path / "once")
    made = Toy().block(0, uncertainty=2)[3]
    back = Dicom().read(tmp_path / "once", rows[3])
    assert np.array_equal(back.image, made.image)
    assert np.array_equal(back.label, made.label)
    assert rows[3]["samples"] == rows[3]["masks"] == ""
    data = pydicom.dcmread(tmp_path / "once" / rows[3]["image"])
    assert data.PatientID == f"SYNTHETIC-{Toy().fingerprint[:8]}-0-3"
    found = segread(tmp_path / "once" / rows[3]["label"])
    assert found.get_segment_description(1).segment_label == "pancreas"


def test_pictures_have_no_dicom(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        synthesize(Toy("image"), 2, tmp_path / "out", format="dicom")
    assert (
        str(error.value)
        == "format dicom is for CT and MR, and these samples are pictures; take png"
    )
    assert not (tmp_path / "out").exists()


def test_without_the_extra_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    monkeypatch.delitem(sys.modules, "medaug.synthesis.writers.dicom")
    with pytest.raises(ConfigError) as error:
        synthesize(Toy(), 2, tmp_path / "out", format="dicom")
    assert str(error.value) == (
        "format dicom needs the package highdicom: pip install medaug[dicom]"
    )
    assert not (tmp_path / "out").exists()
    assert open_writer("nifti")[0] == "nifti"
