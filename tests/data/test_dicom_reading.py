"""What the values of a DICOM series mean, where its slices lie, and what is refused for it."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from medaug.core.types import Case
from medaug.data import open_source
from medaug.data.cache.prepare import CacheSettings, prepare
from medaug.data.cache.slicing import cut
from medaug.data.formats.dicom_series import check_series, dicom_files
from medaug.data.formats.readers import read_series
from medaug.data.quality.survey import survey
from medaug.data.sources.unlabeled import Unlabeled
from tests.conftest import SHAPE, miniature, write_patient, write_series
from tests.support.refusals import refused
from tests.support.series import edit, packed, real_slice


def load(folder: Path) -> np.ndarray:
    """The HU [x, y, z] of the series in ``folder``."""
    return read_series(tuple(dicom_files(folder)))[0]


# What values mean


def test_each_slice_has_its_own_rescale(tmp_path):
    """As PET has it, and some CT; one rescale for all would cut and wrap around."""
    stored = miniature(2)[0]
    write_series(tmp_path / "s", "PANCREAS_0001", stored)
    rescales = [(1, 0), (2.5, -10.3), (0.5, 100), (20, -1024)] * 4
    for file, (slope, intercept) in zip(dicom_files(tmp_path / "s"), rescales, strict=True):
        edit(file, RescaleSlope=slope, RescaleIntercept=intercept)
    slopes, intercepts = np.transpose(rescales)
    expected = np.clip(np.rint(stored * slopes + intercepts), -1024, 3071)
    np.testing.assert_array_equal(load(tmp_path / "s"), expected)


BITS = {
    "8": (np.uint8, 8, 8, 0, 16.0, -1024.0, (0, 255)),
    "12 unsigned": (np.uint16, 16, 12, 0, 1.0, -1024.0, (0, 4095)),
    "12 signed": (np.int16, 16, 12, 1, 1.0, 0.0, (-1024, 2047)),
    "16 unsigned": (np.uint16, 16, 16, 0, 1.0, -1024.0, (0, 4095)),
    "16 signed": (np.int16, 16, 16, 1, 1.0, -1024.0, (-32768, 32767)),
}


@pytest.mark.parametrize("bits", BITS)
def test_bits_are_read_as_the_header_says(series, bits):
    dtype, allocated, stored, signed, slope, intercept, (low, high) = BITS[bits]
    values = np.random.default_rng(0).integers(low, high + 1, (SHAPE[1], SHAPE[0]))
    values.flat[:2] = low, high
    raw = values.astype(dtype)
    if bits == "12 signed":  # the sign in bit 11, nothing above it
        raw = raw.view(np.uint16) & 0xFFF
    for file in dicom_files(series):
        data = pydicom.dcmread(file)
        data.BitsAllocated, data.BitsStored, data.HighBit = allocated, stored, stored - 1
        data.PixelRepresentation = signed
        data.RescaleSlope, data.RescaleIntercept = slope, intercept
        data.PixelData = raw.tobytes()
        data["PixelData"].VR = "OW"
        data.save_as(file)
    expected = np.clip(np.rint(values * slope + intercept), -1024, 3071)
    np.testing.assert_array_equal(load(series)[:, :, 5].T, expected)


NOT_HU = {
    "inverted": (
        {"PhotometricInterpretation": "MONOCHROME1"},
        "is MONOCHROME1, accepted is MONOCHROME2 (one grey value, high is bright); "
        "convert the series",
    ),
    "colour": (
        {"PhotometricInterpretation": "PALETTE COLOR"},
        "is PALETTE COLOR, accepted is MONOCHROME2 (one grey value, high is bright); "
        "convert the series",
    ),
    "no slope": (
        {"RescaleSlope": None},
        "has no RescaleSlope and RescaleIntercept; its values are not known to be HU",
    ),
    "no intercept": (
        {"RescaleIntercept": None},
        "has no RescaleSlope and RescaleIntercept; its values are not known to be HU",
    ),
    "slope 0": (
        {"RescaleSlope": 0},
        "has no RescaleSlope and RescaleIntercept; its values are not known to be HU",
    ),
    "density": ({"RescaleType": "ED"}, "has values in ED, accepted are HU"),
    "scout": (
        {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
        "is a localizer image, not a slice of a CT scan",
    ),
}


@pytest.mark.parametrize("what", NOT_HU)
def test_values_that_are_not_hu_are_refused(series, what):
    values, message = NOT_HU[what]
    edit(series / "1-003.dcm", **values)
    with refused(f"1-003.dcm {message}"):
        check_series(dicom_files(series))


def test_a_header_that_asks_for_gigabytes_is_refused(series):
    for file in packed(series, "1.2.840.10008.1.2.4.90", b"\xff\x4f" * 40):
        edit(file, Rows=60000, Columns=60000)
    with refused("1-001.dcm has 60000 x 60000 pixels, accepted are 1 to 8192 each way"):
        check_series(dicom_files(series))


# Geometry


@pytest.mark.parametrize(("degrees", "accepted"), [(0.0, True), (0.3, True), (2.0, False)])
def test_a_tilted_gantry_is_refused(series, degrees, accepted):
    angle = np.radians(degrees)
    for file in dicom_files(series):
        edit(file, ImageOrientationPatient=[1, 0, 0, 0, -np.cos(angle), np.sin(angle)])
    if accepted:
        check_series(dicom_files(series))
        return
    with refused(
        "the gantry was tilted by 2.0 degrees, so the slices are no upright stack; "
        "resample the series first"
    ):
        check_series(dicom_files(series))


def test_an_oblique_stack_keeps_its_geometry(series):
    """Slices and steps turned together are no tilt."""
    angle = np.radians(10)
    turn = np.array(
        [[1, 0, 0], [0, np.cos(angle), np.sin(angle)], [0, -np.sin(angle), np.cos(angle)]]
    )
    for file in dicom_files(series):
        data = pydicom.dcmread(file)
        position = [float(v) for v in turn @ np.array(data.ImagePositionPatient, float)]
        edit(
            file,
            ImagePositionPatient=[round(v, 9) for v in position],
            ImageOrientationPatient=[1, 0, 0, *(round(v, 9) for v in turn @ [0, -1, 0])],
        )
    affine = read_series(dicom_files(series)).affine
    image = sitk.ReadImage([str(f) for f in dicom_files(series)])
    itk = np.reshape(image.GetDirection(), (3, 3)) @ np.diag(image.GetSpacing())
    np.testing.assert_allclose((np.diag([-1, -1, 1.0]) @ affine[:3, :3]), itk, atol=1e-6)


def test_a_slice_set_aside_is_refused(series):
    edit(series / "1-009.dcm", ImagePositionPatient=[7, 0, -20])
    with refused(
        "1-009.dcm lies 7.0 mm off the line of the slices; keep one reconstruction in each folder"
    ):
        check_series(dicom_files(series))


ODD = {
    "dicom2nifti-failing/gantrytilting": "the gantry was tilted by 14.0 degrees, so the slices are "
    "no upright stack; resample the series first",
    "dicom2nifti-failing/sliceincrement": "slices 9 and 10 are 10.00 mm apart, the others 5.00 mm; "
    "download the series again",
    "dicom2nifti-failing/notavolume": "all slices are at one position; this is not a volume",
    "dcm_qa_ct/GE_tilt_variable_spacing": "slices 14 and 15 are 1.08 mm apart, the others 4.00 mm; "
    "download the series again",
}


@pytest.mark.real
@pytest.mark.parametrize("name", ODD)
def test_real_odd_series_are_refused_with_the_reason(real_data, name):
    with refused(ODD[name]):
        check_series((real_data / "ct" / name).rglob("*.dcm"), starts_at=None)


@pytest.mark.real
def test_a_real_scan_feet_first_comes_out_canonical(real_data):
    """Padded with -3024 HU outside the circle, which becomes air."""
    folder = real_data / "ct" / "dcmqi-ct3slice" / "ct-3slice"
    files = tuple(h.file for h in check_series(dicom_files(folder)))
    found = cut(Case("feet-first", files), {}, 512, 512 * 0.810547, "image")
    oriented = sitk.DICOMOrient(sitk.ReadImage([str(f) for f in files]), "RAS")
    raw = sitk.GetArrayFromImage(oriented).transpose(2, 1, 0)
    assert raw.min() == -3024
    expected = np.clip(raw, -1024, 3071)
    got = found.image.transpose(2, 1, 0)
    assert np.mean(np.abs(got - expected.astype(float)) <= 3) > 0.99
    assert got.min() == -1024
    lps = np.diag([-1.0, -1.0, 1.0]) @ found.affine[:3, 3]
    np.testing.assert_allclose(lps, oriented.GetOrigin(), atol=0.01)
    assert (np.diag(found.affine)[:3] > 0).all()


# Lossy compression is said


def test_a_lossy_scan_is_doubtful(tmp_path, medaug):
    root = tmp_path / "pancreas"
    lossy = write_patient(root, 1)
    write_patient(root, 2)
    for file in dicom_files(lossy):
        edit(file, LossyImageCompression="01")
    reason = "compression: its pixels went through an earlier, unnamed compression (lossy)"
    report = prepare(open_source(str(root)), tmp_path / "cache", CacheSettings(size=32), 0)
    assert report.done == ["PANCREAS_0001", "PANCREAS_0002"]
    assert [str(problem) for problem in report.doubtful] == [f"PANCREAS_0001: {reason}"]
    told = medaug("prepare", root, "--cache", tmp_path / "again", "--size", 32, "--json")
    assert told.json["doubtful"] == [f"PANCREAS_0001: {reason}"]
    assert f"doubtful: PANCREAS_0001: {reason}" in told.err.replace("\n", " ")
    again = prepare(open_source(str(root)), tmp_path / "cache", CacheSettings(size=32), 0)
    assert again.doubtful == report.doubtful, "the same command tells it again"
    seen = {one.case: one.verdict for one in survey(open_source(str(root)))[0]}
    assert seen == {"PANCREAS_0001": "doubtful", "PANCREAS_0002": "ok"}


@pytest.mark.real
def test_a_real_lossy_series_is_named(real_data, tmp_path):
    for k in range(3):
        data = pydicom.dcmread(real_slice(real_data, "1.2.840.10008.1.2.4.51"))
        data.InstanceNumber, data.ImagePositionPatient = k + 1, [0, 0, 2.5 * k]
        data.save_as(tmp_path / f"{k}.dcm")
    files = tuple(tmp_path.glob("*.dcm"))
    assert read_series(files).lossy == "JPEG extended"
    cases, problems = Unlabeled(tmp_path).cases()
    assert (len(cases), problems) == (1, [])
