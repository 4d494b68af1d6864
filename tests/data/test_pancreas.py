"""The collection is found in every layout people have, and what cannot be used is said exactly."""

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medaug.data import open_source
from medaug.data.checks import alignment
from medaug.data.checks.alignment import check_alignment
from medaug.data.formats.readers import read_label_map, read_series
from medaug.data.sources.pancreas import PAGE, PancreasCT
from tests.conftest import SHAPE, SPACING, miniature, write_label, write_patient, write_series
from tests.support.refusals import refused

AFFINE = np.diag([-SPACING[0], SPACING[1], -SPACING[2], 1.0])


def problems(root: Path) -> list[str]:
    return [str(problem) for problem in PancreasCT(root).cases()[1]]


def labels_of(root: Path) -> Path:
    return root / "TCIA_pancreas_labels-02-05-2017"


def test_cases_come_in_name_order_with_their_own_label(collection):
    cases, found = PancreasCT(collection(3, 1, 11)).cases()
    assert found == []
    assert [case.id for case in cases] == ["PANCREAS_0001", "PANCREAS_0003", "PANCREAS_0011"]
    for case in cases:
        assert case.label is not None
        assert case.label.files[0].name == f"label{case.id[-4:]}.nii.gz"
        assert [f.name for f in case.image] == [f"1-{k:03d}.dcm" for k in range(1, 17)]


def test_a_label_without_a_scan_is_no_matter(collection):
    """The label archive has 82 files, the collection 80 scans: only numbers can pair them."""
    root = collection(1, 3)
    write_label(labels_of(root) / "label0002.nii.gz", miniature(2)[1])
    cases, found = PancreasCT(root).cases()
    assert [(c.id, c.label.files[0].name) for c in cases if c.label] == [
        ("PANCREAS_0001", "label0001.nii.gz"),
        ("PANCREAS_0003", "label0003.nii.gz"),
    ]
    assert found == []


LAYOUTS = {
    "NBIA with manifest": "manifest-15997/Pancreas-CT/PANCREAS_0007/11-24-2015-NA/Pancreas-99667",
    "older downloader": "DOI/PANCREAS_0007/1.2.826.0.1/1.2.826.0.2",
    "quoted": "\"Pancreas-CT\"/\"PANCREAS_0007\"/'study'/'series'",
    "flat": "PANCREAS_0007",
    "REST zip": "1.2.826.0.1.7.0.1",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout):
    hu, mask = miniature(7)
    series = tmp_path / LAYOUTS[layout]
    write_series(series, "PANCREAS_0007", hu)
    (series / "LICENSE").write_text("CC BY 3.0")
    (series / "._1-001.dcm").write_bytes(b"\0\5")
    (tmp_path / "metadata.csv").write_text("Series UID,Collection\n")
    write_label(tmp_path / "Labels" / "nested" / "label0007.nii", mask)
    source = open_source(str(tmp_path))
    assert isinstance(source, PancreasCT)
    cases, found = source.cases()
    assert [(c.id, len(c.image)) for c in cases] == [("PANCREAS_0007", SHAPE[2])]
    assert found == []


def test_older_file_names_are_ordered_by_instance(tmp_path):
    hu, mask = miniature(1)
    files = write_series(tmp_path / "PANCREAS_0001" / "s", "PANCREAS_0001", hu, name="a{:06d}.dcm")
    for k, file in enumerate(files):
        file.rename(file.with_name(f"{(k * 7) % 16:06d}.dcm"))
    write_label(tmp_path / "label0001.nii.gz", mask)
    (case,), _ = PancreasCT(tmp_path).cases()
    assert [int(f.stem) for f in case.image] == [(k * 7) % 16 for k in range(16)]


def test_labels_may_lie_beside_the_scans(tmp_path, collection):
    root = collection(1)
    cases, found = PancreasCT(root / "Pancreas-CT").cases()
    assert [c.id for c in cases] == ["PANCREAS_0001"]
    assert found == []


def test_withdrawn_duplicates_are_left_out_by_name(collection):
    source = PancreasCT(collection(2, 25, 70))
    cases, found = source.cases()
    assert [c.id for c in cases] == ["PANCREAS_0002"]
    assert found == []
    reason = "the same scan as PANCREAS_0002, cropped differently; withdrawn by the collection"
    assert source.excluded == {"PANCREAS_0025": reason, "PANCREAS_0070": reason}


def test_a_folder_that_names_another_patient_is_refused(collection):
    root = collection(1, 2)
    (root / "Pancreas-CT" / "PANCREAS_0002").rename(root / "Pancreas-CT" / "PANCREAS_0003")
    assert problems(root) == [
        "PANCREAS_0003: the folder is named PANCREAS_0003, the DICOM headers in it say "
        "PANCREAS_0002; keep the right one"
    ]


def test_a_missing_slice_names_its_patient(collection):
    root = collection(1, 42)
    next(root.glob("**/PANCREAS_0042/*/*/1-005.dcm")).unlink()
    cases, found = PancreasCT(root).cases()
    assert [c.id for c in cases] == ["PANCREAS_0001"]
    assert [str(p) for p in found] == [
        "PANCREAS_0042: slice 5 of 16 is missing; download the series again"
    ]


def test_a_missing_last_slice_is_seen_by_its_label(collection):
    root = collection(42)
    next(root.glob("**/1-016.dcm")).unlink()
    assert problems(root) == [
        "PANCREAS_0042: label has shape (48, 40, 16), image (48, 40, 15); slice 16 is missing at "
        "the end of the series, or pair by PatientID, not by list position"
    ]


def test_a_label_of_another_shape_is_refused(collection):
    root = collection(42)
    write_label(labels_of(root) / "label0042.nii.gz", miniature(42, (48, 40, 12))[1])
    assert problems(root) == [
        "PANCREAS_0042: label has shape (48, 40, 12), image (48, 40, 16); "
        "pair by PatientID, not by list position"
    ]


def test_a_label_of_another_affine_is_refused(collection):
    root = collection(42)
    write_label(labels_of(root) / "label0042.nii.gz", miniature(42)[1], (6.0, 6.0, 2.0))
    assert problems(root) == [
        "PANCREAS_0042: label has another affine than the image: entry [2, 2] is -2, image -2.5; "
        "the label belongs to another scan or lost its header"
    ]


def test_an_affine_equal_but_for_rounding_is_accepted(collection):
    """Some labels store 0.74218798 for 0.7421875."""
    root = collection(42)
    write_label(labels_of(root) / "label0042.nii.gz", miniature(42)[1], (6.0 + 5e-4, 6.0, 2.5))
    assert problems(root) == []


def test_a_label_that_is_not_nifti_is_refused(collection):
    root = collection(42)
    (labels_of(root) / "label0042.nii.gz").write_text("<html>")
    assert problems(root) == ["PANCREAS_0042: label0042.nii.gz is not a NIfTI file"]


def test_a_scan_without_label_is_named(collection):
    root = collection(1, 42)
    (labels_of(root) / "label0042.nii.gz").unlink()
    assert problems(root) == ["PANCREAS_0042: no label0042.nii.gz was found for it"]


def test_two_labels_are_fine_if_equal(collection):
    root = collection(42)
    shutil.copytree(labels_of(root), labels_of(root) / "nested")
    assert problems(root) == []
    write_label(labels_of(root) / "nested" / "label0042.nii.gz", miniature(1)[1])
    assert problems(root) == [
        "PANCREAS_0042: 2 labels that differ, TCIA_pancreas_labels-02-05-2017/label0042.nii.gz, "
        "nested/label0042.nii.gz; keep one"
    ]


def test_a_scan_in_two_places_is_named(collection):
    root = collection(42)
    series = next(root.glob("Pancreas-CT/*/*/*"))
    shutil.copytree(series, series.with_name("again"))
    assert problems(root) == [
        f"PANCREAS_0042: 2 series in {series.parent.name}/Pancreas-99667, "
        f"{series.parent.name}/again; keep one"
    ]


def test_labels_in_a_broken_archive_are_told(collection):
    root = collection(1)
    shutil.rmtree(labels_of(root))
    archive = root / "TCIA_pancreas_labels-02-05-2017.zip"
    archive.write_bytes(b"PK")
    with refused(f"{archive}: {archive.name} is not a whole zip archive; download it again"):
        PancreasCT(root).cases()


def test_no_labels_at_all(collection):
    root = collection(1)
    shutil.rmtree(labels_of(root))
    with refused(
        f"{root}: scans, but no labels (label0001.nii.gz, ...) below it or in a folder beside it; "
        f"get them from {PAGE}"
    ):
        PancreasCT(root).cases()


def test_no_scans_at_all(tmp_path):
    (tmp_path / "readme.txt").write_text("")
    with refused(f"{tmp_path}: no Pancreas-CT scans in it; get the collection from {PAGE}"):
        PancreasCT(tmp_path).cases()
    with refused(f"{tmp_path / 'nowhere'}: no such folder"):
        PancreasCT(tmp_path / "nowhere")


FLIPS = {
    "left to right": lambda m: m[::-1],
    "front to back": lambda m: m[:, ::-1],
    "head to foot": lambda m: m[:, :, ::-1],
    "half a turn": lambda m: m[::-1, ::-1],
    "transposed": lambda m: m.swapaxes(0, 1),
}


def lies_better(hu: np.ndarray, mask: np.ndarray, affine: np.ndarray) -> bool:
    verdict, reason = check_alignment(hu, np.ascontiguousarray(mask), affine)
    return verdict == "refused" and reason.startswith("label lies better on the image ")


@pytest.mark.parametrize("seed", range(5))
def test_alignment_on_miniatures(seed):
    hu, mask = miniature(seed)
    assert check_alignment(hu, mask, AFFINE) == ("ok", "")
    for name in ("left to right", "front to back", "half a turn"):
        assert lies_better(hu, FLIPS[name](mask), AFFINE)
    verdict, reason = check_alignment(hu, np.roll(mask, 2, axis=0), AFFINE)
    assert verdict == "refused"
    assert "moved by 12 mm" in reason


def test_alignment_says_how_the_label_lies_better():
    hu, mask = miniature(1)
    assert check_alignment(hu, np.ascontiguousarray(mask[::-1]), AFFINE) == (
        "refused",
        "label lies better on the image mirrored left to right (its border then explains 98.5% of "
        "the variance there, as given 0.1%); check its orientation and its patient",
    )


def test_too_small_a_label_is_not_judged():
    hu, mask = miniature(1)
    few = np.zeros_like(mask)
    few[:3, :3, :3] = 1
    assert check_alignment(hu, few, AFFINE) == ("ok", "")
    assert check_alignment(hu, np.zeros_like(mask), AFFINE) == ("ok", "")


def test_explained_variance_has_its_closed_form():
    values = np.array([0, 0, 10, 10, 99], np.int16)
    assert alignment.explained(values, np.array([1, 1, 2, 2, 0])) == pytest.approx(1.0)
    assert alignment.explained(values, np.array([1, 2, 1, 2, 0])) == pytest.approx(0.0)
    assert alignment.explained(values, np.array([1, 1, 1, 2, 0])) == pytest.approx(1 / 3)


@pytest.mark.real
def test_real_scans_are_found(real_pancreas):
    source = open_source(str(real_pancreas))
    assert isinstance(source, PancreasCT)
    cases, found = source.cases()
    assert [(c.id, len(c.image)) for c in cases] == [("PANCREAS_0001", 240), ("PANCREAS_0002", 195)]
    assert found == []


@pytest.mark.real
@pytest.mark.parametrize("number", [0, 1])
def test_real_labels_are_accepted_as_they_lie_and_refused_otherwise(real_pancreas, number):
    case = PancreasCT(real_pancreas).cases()[0][number]
    hu, affine, *_ = read_series(case.image, checked=True)
    assert case.label is not None
    mask, _ = read_label_map(case.label.files[0], [1])
    assert check_alignment(hu, mask, affine) == ("ok", "")
    for turned in FLIPS.values():
        assert lies_better(hu, turned(mask), affine)


@pytest.mark.real
def test_a_real_label_of_another_patient_is_refused(real_pancreas):
    first, second = PancreasCT(real_pancreas).cases()[0]
    assert first.label is not None
    assert second.label is not None
    hu, affine, *_ = read_series(first.image, checked=True)
    mask = np.asanyarray(nibabel.load(second.label.files[0]).dataobj).astype(np.uint8)
    assert lies_better(hu[:, :, : mask.shape[2]], mask, affine)


def test_write_patient_is_what_the_reader_expects(tmp_path):
    """The miniature itself passes every check, so that each refusal above has one cause."""
    write_patient(tmp_path, 5)
    assert problems(tmp_path) == []
