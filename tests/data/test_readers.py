"""A series that is whole is read right; one that is not is refused in one exact sentence."""

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from monai.transforms import LoadImaged

from medaug.core.errors import DataError
from medaug.data.formats.dicom_series import check_series, dicom_files
from medaug.data.formats.readers import read_label_map, read_series, read_volume
from medaug.data.formats.volumes import nifti_header
from medaug.monai import ScanReader
from tests.conftest import SHAPE, SPACING, miniature, write_label
from tests.support.refusals import refused
from tests.support.series import edit


def test_a_series_is_read_as_int16_with_its_ras_affine(series):
    image, affine, *_ = read_series(dicom_files(series))
    assert image.dtype == np.int16
    np.testing.assert_array_equal(image, miniature(1)[0])
    np.testing.assert_allclose(affine, np.diag([-SPACING[0], SPACING[1], -SPACING[2], 1]))


@pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader")
@pytest.mark.parametrize("kind", ["folder", "files", "nifti"])
def test_monai_loads_a_scan_as_int16_with_its_ras_affine(series, tmp_path, kind):
    files = [str(file) for file in dicom_files(series)]
    source = {"folder": str(series), "files": files, "nifti": str(tmp_path / "scan.nii.gz")}[kind]
    affine = np.diag([-SPACING[0], SPACING[1], -SPACING[2], 1])
    if kind == "nifti":
        nibabel.save(nibabel.Nifti1Image(miniature(1)[0], affine), source)
    item = LoadImaged("image", reader=ScanReader(), dtype=np.int16)({"image": source})
    image = item["image"]
    assert image.dtype.is_signed
    np.testing.assert_array_equal(image.numpy(), miniature(1)[0])
    np.testing.assert_allclose(image.affine, affine)
    assert tuple(image.meta["spatial_shape"]) == SHAPE
    assert image.meta["space"] == "RAS"
    np.testing.assert_array_equal(image.meta["original_affine"], image.affine)


def test_monai_is_told_what_is_wrong_with_a_series(series):
    dicom_files(series)[5].unlink()
    with pytest.raises(DataError, match="slice"):
        ScanReader().get_data(ScanReader().read(series))


def test_file_names_play_no_part(series):
    """The older Retriever numbers files in no order at all."""
    names = np.random.default_rng(0).permutation(SHAPE[2])
    for file, name in zip(dicom_files(series), names, strict=True):
        file.rename(series / f"{name:06d}.dcm")
    values, affine, *_ = read_series(tuple(dicom_files(series)))
    np.testing.assert_array_equal(values, miniature(1)[0])
    assert affine[2, 2] == pytest.approx(-SPACING[2])


def test_rescale_is_applied_and_clipped(series):
    for file in dicom_files(series):
        edit(file, RescaleSlope="2.5", RescaleIntercept="-10")
    values, *_ = read_series(tuple(dicom_files(series)))
    expected = np.clip(np.rint(miniature(1)[0] * 2.5 - 10), -1024, 3071)
    np.testing.assert_array_equal(values, expected)
    assert values.dtype == np.int16


def test_junk_is_ignored(series):
    (series / "LICENSE").write_text("CC BY 3.0")
    (series / "._1-001.dcm").write_bytes(b"\0\5\26\7")
    assert len(dicom_files(series)) == SHAPE[2]


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "middle": (
        lambda f: (f / "1-007.dcm").unlink(),
        "slice 7 of 16 is missing; download the series again",
    ),
    "several": (
        lambda f: [(f / f"1-{k:03d}.dcm").unlink() for k in (3, 7, 8, 9)],
        "slices 3, 7-9 of 16 are missing; download the series again",
    ),
    "far": (
        lambda f: edit(f / "1-016.dcm", InstanceNumber=2_000_000_000),
        "slices 16-1999999999 of 2000000000 are missing; download the series again",
    ),
    "place": (
        lambda f: edit(f / "1-007.dcm", ImagePositionPatient=[1, 2, 3, 4]),
        "1-007.dcm has no slice position or size in its header",
    ),
    "first": (
        lambda f: (f / "1-001.dcm").unlink(),
        "slice 1 of 16 is missing; download the series again",
    ),
    "twice": (
        lambda f: shutil.copy(f / "1-007.dcm", f / "copy.dcm"),
        "slice 7 is there twice (1-007.dcm, copy.dcm); keep one of them",
    ),
    "gap": (
        lambda f: edit(f / "1-016.dcm", ImagePositionPatient=[0, 0, -60]),
        "slices 15 and 16 are 25.00 mm apart, the others 2.50 mm; download the series again",
    ),
    "cut": (
        lambda f: (f / "1-004.dcm").write_bytes((f / "1-004.dcm").read_bytes()[:-1000]),
        "1-004.dcm is truncated: 2840 bytes left for 3840 bytes of pixels; "
        "download the series again",
    ),
    "header cut": (
        lambda f: (f / "1-004.dcm").write_bytes((f / "1-004.dcm").read_bytes()[:400]),
        "1-004.dcm is truncated or damaged; download the series again",
    ),
    "empty": (
        lambda f: (f / "1-004.dcm").write_bytes(b""),
        "1-004.dcm is truncated or damaged; download the series again",
    ),
    "no DICOM": (
        lambda f: (f / "1-004.dcm").write_text("<html>502 Bad Gateway</html>" * 50),
        "1-004.dcm is not a DICOM file; download the series again",
    ),
    "two series": (
        lambda f: edit(f / "1-004.dcm", SeriesInstanceUID="1.2.3"),
        "2 series are mixed in one folder; keep one CT series in each",
    ),
    "other size": (
        lambda f: edit(f / "1-004.dcm", Rows=20),
        "2 slice sizes are mixed in one folder; keep one CT series in each",
    ),
    "no number": (
        lambda f: edit(f / "1-004.dcm", InstanceNumber=None),
        "slices without InstanceNumber; their order cannot be checked",
    ),
    "no position": (
        lambda f: edit(f / "1-004.dcm", ImagePositionPatient=None),
        "1-004.dcm has no slice position or size in its header",
    ),
    "one place": (
        lambda f: [edit(p, ImagePositionPatient=[0, 0, 0]) for p in dicom_files(f)],
        "all slices are at one position; this is not a volume",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_series_is_refused(series, case, capfd):
    harm, message = BROKEN[case]
    harm(series)
    with refused(message):
        check_series(dicom_files(series))
    with refused(message):
        read_series(tuple(dicom_files(series)))
    assert capfd.readouterr() == ("", "")


def test_a_series_of_none_or_one_is_refused(series):
    with refused("the series has no DICOM files"):
        check_series([])
    with refused("the series has a single slice; at least two are needed"):
        check_series([series / "1-001.dcm"])


def test_pixels_that_cannot_be_decoded_are_named(series, capfd):
    """Compressed pixels have no length to check beforehand."""
    syntax = pydicom.uid.JPEG2000Lossless
    for file in dicom_files(series):
        image = pydicom.dcmread(file)
        image.file_meta.TransferSyntaxUID = syntax
        image.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51" + bytes(60)])
        image.save_as(file, enforce_file_format=True, implicit_vr=False, little_endian=True)
    with refused("1-001.dcm has damaged pixels; download the series again"):
        read_series(tuple(dicom_files(series)))
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_labels_of_any_type_become_uint8(tmp_path, dtype):
    mask = miniature(1)[1]
    values, affine = read_label_map(write_label(tmp_path / "l.nii.gz", mask.astype(dtype)), [1])
    assert values.dtype == np.uint8
    np.testing.assert_array_equal(values, mask)
    np.testing.assert_allclose(affine, np.diag([-6.0, 6.0, -2.5, 1.0]))


@pytest.mark.parametrize(
    ("dtype", "value", "shown"),
    [(np.uint8, 3, "3"), (np.float32, 0.5, "0.5"), (np.int16, -1, "-1"), (np.uint16, 256, "256")],
)
def test_a_value_that_is_no_label_is_named(tmp_path, dtype, value, shown):
    mask = miniature(1)[1].astype(dtype)
    mask[0, 0, 0] = value
    with refused(f"l.nii.gz holds the value {shown}, known labels are 0, 1"):
        read_label_map(write_label(tmp_path / "l.nii.gz", mask), [1])


def test_values_become_the_ids_they_are_given_and_others_background(tmp_path):
    mask = np.zeros((6, 5, 4), np.int16)
    mask[0], mask[1], mask[2] = 11, 7, 300
    file = write_label(tmp_path / "l.nii.gz", mask)
    values, _ = read_label_map(file, [1, 2], {11: 1, 300: 2})
    assert values.dtype == np.uint8
    np.testing.assert_array_equal(values, np.where(mask == 11, 1, np.where(mask == 300, 2, 0)))


def test_fractions_of_a_hu_are_rounded(tmp_path):
    hu = np.array([-2048.0, -0.6, 40.4, 4000.0, np.nan], np.float32).reshape(5, 1, 1)
    values, *_ = read_volume(write_label(tmp_path / "ct.nii.gz", hu))
    assert values.ravel().tolist() == [-1024, -1, 40, 3071, -1024]


def test_what_is_not_nifti_is_refused(tmp_path):
    text = tmp_path / "label0001.nii.gz"
    text.write_bytes(gzip.compress(b"<html>"))
    with refused("label0001.nii.gz is not a NIfTI file"):
        nifti_header(text)
    text.write_text("<html>")
    with refused("label0001.nii.gz is not a NIfTI file"):
        read_label_map(text, [1])
    with refused("label0002.nii.gz is not there"):
        nifti_header(tmp_path / "label0002.nii.gz")


def test_a_truncated_nifti_is_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 2, SHAPE).astype(np.uint8)
    path = write_label(tmp_path / "label0001.nii.gz", noise)
    path.write_bytes(path.read_bytes()[:-300])
    with refused("label0001.nii.gz is truncated or damaged"):
        read_label_map(path, [1])


def test_a_nifti_nowhere_is_refused(tmp_path):
    header = nibabel.Nifti1Header()
    header["sform_code"], header["srow_x"] = 1, np.nan
    image = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.uint8), None, header)
    nibabel.save(image, tmp_path / "t.nii")
    with refused("t.nii has an affine with values that are no finite numbers"):
        nifti_header(tmp_path / "t.nii")


def test_a_nifti_of_time_is_refused(tmp_path):
    nibabel.save(
        nibabel.Nifti1Image(np.zeros((4, 4, 4, 2), np.uint8), np.eye(4)), tmp_path / "t.nii"
    )
    with refused("t.nii has shape (4, 4, 4, 2); a volume has three axes"):
        nifti_header(tmp_path / "t.nii")


@pytest.mark.long
@pytest.mark.real
def test_real_series_equals_simpleitk(real_pancreas):
    folder = next(real_pancreas.glob("Pancreas-CT/PANCREAS_0002/*/*"))
    values, affine, *_ = read_series(tuple(dicom_files(folder)))
    image = sitk.ReadImage([str(h.file) for h in check_series(dicom_files(folder))])
    np.testing.assert_array_equal(values, sitk.GetArrayViewFromImage(image).transpose(2, 1, 0))
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    np.testing.assert_allclose(lps[:3, 3], image.GetOrigin(), atol=1e-4)
    direction = np.reshape(image.GetDirection(), (3, 3)) @ np.diag(image.GetSpacing())
    np.testing.assert_allclose(lps[:3, :3], direction, atol=1e-4)


ODD = {
    "dicom2nifti-failing/sliceincrement": "missing|apart|at one position",
    "dicom2nifti-failing/notavolume": "^slices 1-22 of 26 are missing; ",
    "dcm_qa_ct/GE_tilt_variable_spacing": "apart|mixed|twice|missing",
}


@pytest.mark.real
@pytest.mark.parametrize("name", ODD)
def test_real_oddities_are_refused(real_data, name):
    files = [p for p in (real_data / "ct" / name).rglob("*") if p.is_file() and p.suffix != ".md"]
    with pytest.raises(DataError, match=ODD[name]):
        check_series(files)


@pytest.mark.real
def test_real_compressed_series_is_read(real_data):
    """JPEG 2000, thickness and step that differ."""
    folder = real_data / "ct" / "totalsegmentator" / "example_ct_dicom"
    files = tuple(p for p in folder.iterdir() if p.name.startswith("CT."))
    values, affine, *_ = read_series(files, starts_at=None)
    assert values.dtype == np.int16
    assert values.shape[2] == len(files)
    assert -1024 <= values.min() < -900
    assert np.linalg.det(affine) != 0
