"""The phantom: organs in their places, headers as in the collection, writing that resumes."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
import pytest

from medaug.core.errors import DataError
from medaug.core.seeds import derive
from medaug.data.sources.phantom.source import Organ, Phantom, draw, draw_organs, write

SHAPE, SPACING = (52, 48, 24), (7.4, 7.6, 8.0)
SEEDS = (0, 1, 2)
LABEL = "TCIA_pancreas_labels-02-05-2017/label{:04d}.nii.gz"


@pytest.fixture(scope="module")
def people() -> list[tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]]:
    """HU and organ maps of a few seeds at 4 mm."""
    return [draw_organs(seed, (96, 96, 40), (4.0, 4.0, 5.0))[:2] for seed in SEEDS]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom")
    write(root, 2, 7, SHAPE, SPACING)
    return root


def series(root: Path, number: int) -> list[pydicom.FileDataset]:
    files = sorted((root / f"Pancreas-CT/PANCREAS_{number:04d}").glob("*/*/*.dcm"))
    return [pydicom.dcmread(file) for file in files]


def content(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_same_seed_same_scan_and_another_seed_another() -> None:
    hu, label, affine = draw(3, SHAPE, SPACING)
    again, same_label, same_affine = draw(3, SHAPE, SPACING)
    other, other_label, _ = draw(4, SHAPE, SPACING)
    assert (hu.dtype, label.dtype, hu.shape, label.shape) == (np.int16, np.uint8, SHAPE, SHAPE)
    np.testing.assert_array_equal(hu, again)
    np.testing.assert_array_equal(label, same_label)
    np.testing.assert_array_equal(affine, same_affine)
    assert np.mean(np.abs(hu.astype(float) - other)) > 30
    assert (label != other_label).any()


def test_another_spacing_shows_the_same_person() -> None:
    coarse = draw(5, (64, 64, 32), (6.0, 6.0, 6.0))[0]
    fine = draw(5, (128, 128, 32), (3.0, 3.0, 6.0))[0]
    pooled = fine.reshape(64, 2, 64, 2, 32).mean((1, 3))
    inside = coarse > -500
    assert np.corrcoef(coarse[inside], pooled[inside])[0, 1] > 0.9


def test_every_organ_is_there_and_on_its_side(
    people: list[tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]],
) -> None:
    for _, organs in people:
        at = {
            organ: np.argwhere(organs == organ).mean(0)
            for organ in Organ
            if organ is not Organ.GALLBLADDER
        }
        middle = at[Organ.BONE][0]
        right = (Organ.LIVER, Organ.RIGHT_KIDNEY, Organ.CAVA, Organ.DUODENUM)
        left = (Organ.SPLEEN, Organ.LEFT_KIDNEY, Organ.STOMACH, Organ.AORTA)
        assert all(at[organ][0] > middle for organ in right)
        assert all(at[organ][0] < middle for organ in left)
        assert at[Organ.BONE][1] < at[Organ.AORTA][1] < at[Organ.PANCREAS][1]
        assert at[Organ.PANCREAS][1] < at[Organ.STOMACH][1]
        assert at[Organ.LEFT_KIDNEY][1] < at[Organ.PANCREAS][1]
        assert at[Organ.COUCH][1] < at[Organ.BONE][1]
        assert at[Organ.LUNG][2] > at[Organ.PANCREAS][2] > at[Organ.BOWEL][2]


def test_organs_have_their_hu(
    people: list[tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]],
) -> None:
    ranges = {
        Organ.AIR: (-1010, -980),
        Organ.LUNG: (-900, -700),
        Organ.FAT: (-115, -60),
        Organ.MUSCLE: (20, 75),
        Organ.LIVER: (25, 130),
        Organ.SPLEEN: (90, 150),
        Organ.AORTA: (100, 300),
        Organ.PANCREAS: (70, 125),
        Organ.BONE: (180, 600),
    }
    for hu, organs in people:
        for organ, (low, high) in ranges.items():
            assert low < hu[organs == organ].mean() < high, organ


def test_the_couch_stands_apart_from_the_body(
    people: list[tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]],
) -> None:
    for _, organs in people:
        couch = organs == Organ.COUCH
        body = (organs != Organ.AIR) & ~couch
        for axis in (0, 1):
            for shift in (-1, 1):
                assert not (np.roll(couch, shift, axis) & body).any()


def test_the_pancreas_has_the_size_and_extent_of_real_ones(
    people: list[tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]],
) -> None:
    for _, organs in people:
        mask = organs == Organ.PANCREAS
        slices = np.flatnonzero(mask.any((0, 1)))
        assert 35 < mask.sum() * 0.08 < 120
        assert 0.25 < len(slices) / mask.shape[2] < 0.5
        assert slices[0] > 3
        assert slices[-1] < mask.shape[2] - 4
        assert len(slices) == slices[-1] - slices[0] + 1


def test_hu_under_the_mask_tells_it_from_its_mirror_images(
    people: list[tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]],
) -> None:
    for hu, organs in people:
        mask = organs == Organ.PANCREAS
        spread = hu[mask].std()
        assert spread < 45
        for axis in (0, 1, 2):
            assert hu[np.flip(mask, axis)].std() > 1.5 * spread


def test_label_voxels_are_pixels_of_the_slice_with_their_instance_number(root: Path) -> None:
    for number in (1, 2):
        label = np.asarray(nib.load(root / LABEL.format(number)).dataobj)
        slices = series(root, number)
        assert label.shape == (*SHAPE[:2], len(slices))
        hu = np.stack([s.pixel_array.T for s in slices], axis=2)
        assert [s.InstanceNumber for s in slices] == list(range(1, SHAPE[2] + 1))
        inside = hu[label == 1]
        assert 60 < inside.mean() < 130
        assert all(hu[np.flip(label, axis) == 1].std() > inside.std() for axis in (0, 1, 2))


def test_written_series_is_the_drawn_volume(root: Path) -> None:
    hu, mask, affine = draw(derive(7, "phantom", 1), SHAPE, SPACING)
    stored = np.stack([s.pixel_array.T for s in series(root, 1)], axis=2)
    np.testing.assert_array_equal(stored[::-1, :, ::-1], hu)
    label = nib.as_closest_canonical(nib.load(root / LABEL.format(1)))
    np.testing.assert_array_equal(np.asarray(label.dataobj), mask)
    np.testing.assert_allclose(label.affine, affine, atol=1e-4)


def test_dicom_headers_are_those_of_the_collection(root: Path) -> None:
    slices = series(root, 1)
    for k, s in enumerate(slices):
        assert s.file_meta.TransferSyntaxUID == pydicom.uid.ImplicitVRLittleEndian
        assert (s.PixelRepresentation, s.BitsStored, s.HighBit) == (1, 16, 15)
        assert (s.RescaleSlope, s.RescaleIntercept) == (1, 0)
        assert s.ImageOrientationPatient == [1, 0, 0, 0, -1, 0]
        assert s.ImagePositionPatient == [0, 0, -8.0 * k]
        assert s.PixelSpacing == [7.6, 7.4]
        for name in ("SliceThickness", "KVP", "SeriesNumber", "AcquisitionNumber"):
            assert name in s
            assert s[name].value is None
        for name in ("SpacingBetweenSlices", "SliceLocation", "PatientPosition", "WindowCenter"):
            assert name not in s
        for name in ("Manufacturer", "PatientSex", "ContrastBolusAgent"):
            assert s[name].value == ""
        assert (s.StudyDescription, s.SeriesDescription, s.Modality) == ("Pancreas",) * 2 + ("CT",)
        assert s.StudyDate == "20151124"
        assert s.PatientID == s.PatientName == s.StudyID == "PANCREAS_0001"
        assert s.ImageComments == "medaug procedural phantom, no patient"
    assert len({s.SOPInstanceUID for s in slices}) == len({s.StudyTime for s in slices}) == SHAPE[2]
    assert len({s.SeriesInstanceUID for s in slices}) == 1
    first = slices[0]
    assert first.SOPInstanceUID.startswith("2.25.")
    assert Path(first.filename).relative_to(root).parts == (
        "Pancreas-CT",
        "PANCREAS_0001",
        f"11-24-2015-PANCREAS0001-Pancreas-{first.StudyInstanceUID[-5:]}",
        f"Pancreas-{first.SeriesInstanceUID[-5:]}",
        "1-001.dcm",
    )


def test_label_headers_are_those_of_the_collection(root: Path) -> None:
    for number, dtype in ((1, np.uint8), (2, np.uint16)):
        image = nib.load(root / LABEL.format(number))
        assert nib.aff2axcodes(image.affine) == ("L", "A", "I")
        np.testing.assert_allclose(image.affine, np.diag([-7.4, 7.6, -8.0, 1]), atol=1e-4)
        assert image.get_data_dtype() == dtype
        assert image.header.get_xyzt_units()[0] == "mm"
        assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (2, 1)
        np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
        assert set(np.unique(np.asarray(image.dataobj))) == {0, 1}


def test_numbers_withdrawn_from_the_collection_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blank = np.zeros((4, 4, 2), np.int16), np.zeros((4, 4, 2), np.uint8), np.eye(4)
    monkeypatch.setattr("medaug.data.sources.phantom.source.draw", lambda *_: blank)
    write(tmp_path, 26, 0, (4, 4, 2), (90.0, 80.0, 90.0))
    numbers = [int(p.name[-4:]) for p in (tmp_path / "Pancreas-CT").iterdir()]
    assert sorted(numbers) == [*range(1, 25), 26, 27]


def test_a_second_call_writes_what_is_missing_and_touches_nothing_else(
    root: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    whole = content(copy)
    kept = next((copy / "Pancreas-CT/PANCREAS_0001").rglob("*.dcm"))
    before = kept.stat().st_mtime_ns
    next((copy / "Pancreas-CT/PANCREAS_0002").rglob("*.dcm")).unlink()
    write(copy, 2, 7, SHAPE, SPACING)
    assert content(copy) == whole
    shutil.rmtree(copy / "Pancreas-CT/PANCREAS_0002")
    (copy / LABEL.format(2)).unlink()
    write(copy, 2, 7, SHAPE, SPACING)
    assert content(copy) == whole
    assert kept.stat().st_mtime_ns == before


def test_other_settings_are_refused_in_one_sentence(root: Path) -> None:
    with pytest.raises(DataError) as error:
        write(root, 2, 8, (52, 48, 24), (7.4, 7.6, 7.0))
    assert str(error.value) == (
        f"{root}: holds a phantom of seed 7, shape 52 x 48 x 24, spacing 7.4 x 7.6 x 8 mm, "
        "version 1, not of seed 8, shape 52 x 48 x 24, spacing 7.4 x 7.6 x 7 mm, version 1; "
        "choose another folder or delete this one"
    )


def test_scans_that_are_no_phantom_are_never_joined(tmp_path: Path) -> None:
    (tmp_path / "Pancreas-CT/PANCREAS_0001").mkdir(parents=True)
    with pytest.raises(DataError) as error:
        write(tmp_path, 1)
    assert str(error.value) == (
        f"{tmp_path}: holds scans that are no phantom; choose another folder"
    )


@pytest.mark.parametrize(
    ("patients", "shape", "spacing"),
    [(0, SHAPE, SPACING), (1, (8, 8, 1), SPACING), (1, SHAPE, (1.0, 0.0, 1.0))],
)
def test_settings_out_of_range_are_refused_before_anything_is_written(
    tmp_path: Path,
    patients: int,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
) -> None:
    with pytest.raises(DataError, match="accepted are"):
        write(tmp_path / "new", patients, 0, shape, spacing)
    assert not (tmp_path / "new").exists()


def test_the_source_lists_its_cases_as_the_real_one_does(root: Path) -> None:
    cases, problems = Phantom(root, 2, 7, SHAPE, SPACING).cases()
    assert problems == []
    assert [c.id for c in cases] == ["PANCREAS_0001", "PANCREAS_0002"]
    assert [len(c.image) for c in cases] == [SHAPE[2]] * 2
    assert cases[0].image[0].name == "1-001.dcm"
    assert cases[1].label is not None
    assert cases[1].label.files == (root / LABEL.format(2),)
    assert [c.id for c in Phantom(root, 1, 7, SHAPE, SPACING).cases()[0]] == ["PANCREAS_0001"]
