"""Every packing of DICOM pixels gives the same HU, or one sentence that says why not."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import get_decoder
from pydicom.uid import UID

from medaug.data import open_source
from medaug.data.cache import CacheSettings, prepare
from medaug.data.pixels import Place, decode
from medaug.data.readers import LOSSY, SeriesReader
from medaug.data.series import check_series, dicom_files
from medaug.data.slicing import pipeline
from medaug.data.syntaxes import SYNTAXES
from medaug.data.unlabeled import Unlabeled
from medaug.errors import DataError
from medaug.types import Case
from tests.conftest import SHAPE, miniature, write_patient, write_series

DOCS = Path(__file__).parents[1] / "docs" / "data.md"
HTJ2K = "1.2.840.10008.1.2.4.201"
STREAM = bytes.fromhex(
    "ff4fff51002940000000000800000008000000000000000000000008000000080000000000000000"
    "00010f0101ff50000800020000000aff52000c00020001000504044001ff5c001320889090909090"
    "90909090888888888888ff64001700014f70656e4a50482056657220302e32362e332eff90000a00"
    "000000005a0001ff93c000265ff6050774000000c000134000130022fe020774001af103877400c0"
    "0013400013800c0c018274006ee88600c35400c0002a20001560b66ddbaa70827500befbf6edfbc0"
    "4201ecb600ffd9"
)
"""Of the values 0, 60, 120, ..., 8 x 8, in high-throughput JPEG 2000 by OpenJPH."""


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """The folder of a whole series."""
    folder = tmp_path / "series"
    write_series(folder, "PANCREAS_0001", miniature(1)[0])
    return folder


def refused(message: str):
    """Expect a DataError with exactly this message."""
    return pytest.raises(DataError, match=f"^{re.escape(message)}$")


def edit(file: Path, **values) -> None:
    """Change attributes of a DICOM file."""
    data = pydicom.dcmread(file)
    for name, value in values.items():
        setattr(data, name, value)
    data.save_as(file)


def load(folder: Path) -> np.ndarray:
    """The HU [x, y, z] of the series in ``folder``."""
    return SeriesReader().get_data(tuple(dicom_files(folder)))[0]


# Transfer syntaxes


def test_the_page_lists_the_syntaxes_that_are_read():
    rows = re.findall(
        r"^\| `(1\.2\.840[\d.]*)` \| ([^|]*) \| ([^|]*) \| ([^|]*) \|", DOCS.read_text(), re.M
    )
    assert {uid: (name, lossy == "yes", reader) for uid, name, lossy, reader in rows} == {
        s.uid: (s.name, s.lossy, s.reader) for s in SYNTAXES.values()
    }


REAL = {
    "1.2.840.10008.1.2": 0,
    "1.2.840.10008.1.2.1": 0,
    "1.2.840.10008.1.2.2": 0,
    "1.2.840.10008.1.2.1.99": 0,
    "1.2.840.10008.1.2.5": 0,
    "1.2.840.10008.1.2.4.50": 65,
    "1.2.840.10008.1.2.4.51": 36,
    "1.2.840.10008.1.2.4.53": 36,
    "1.2.840.10008.1.2.4.55": 36,
    "1.2.840.10008.1.2.4.57": 0,
    "1.2.840.10008.1.2.4.70": 0,
    "1.2.840.10008.1.2.4.80": 0,
    "1.2.840.10008.1.2.4.81": 1,
    "1.2.840.10008.1.2.4.90": 0,
    "1.2.840.10008.1.2.4.91": 5,
}
"""How far, in HU, the worst pixel is from the same slice never compressed."""


def real_slice(folder: Path, uid: str) -> Path:
    return next((folder / "ct-transfer-syntaxes").glob(f"CTImage.dcm_*_{uid}.dcm"))


def pydicom_hu(file: Path) -> np.ndarray | None:
    """HU [y, x] by the decoders of pydicom, or None where those installed cannot."""
    data = pydicom.dcmread(file)
    try:
        stored = data.pixel_array
    except (RuntimeError, NotImplementedError):
        return None
    return stored * float(data.RescaleSlope) + float(data.RescaleIntercept)


@pytest.mark.real
@pytest.mark.parametrize("uid", REAL)
def test_a_real_slice_gives_the_same_hu_in_every_syntax(real_data, uid, capfd):
    file = real_slice(real_data, uid)
    (header,) = check_two(file)
    assert header.syntax == uid
    assert header.lossy == (REAL[uid] > 0)
    values, syntaxes = decode([Place(file)])
    plain = pydicom_hu(real_data / "ct-transfer-syntaxes" / "CTImage.dcm")
    assert np.abs(values[0] - plain).max() <= REAL[uid]
    assert [s.uid for s in syntaxes] == [uid]
    independent = pydicom_hu(file)
    needs_codecs = UID(uid).is_encapsulated and uid[-2:] in ("51", "53", "55", "57", "70")
    assert (independent is None) <= needs_codecs
    if independent is not None:
        np.testing.assert_allclose(values[0], independent, atol=1e-3)
    assert capfd.readouterr() == ("", "")


def check_two(file: Path):
    """The header of ``file`` after the checks of a series, less those that need two slices."""
    from medaug.data.series import check_values, read_headers

    headers = read_headers(file)
    for header in headers:
        check_values(header)
    return headers


@pytest.mark.real
def test_a_real_slice_compressed_again_equals_its_original(real_data, real_pancreas):
    """JPEG 2000 in explicit VR with many elements of unknown type."""
    (original,) = real_pancreas.rglob("PANCREAS_0001/*/*/1-122.dcm")
    again = real_data / "ct" / "pydicom-data" / "explicit_VR-UN.dcm"
    np.testing.assert_array_equal(decode([Place(original)])[0], decode([Place(again)])[0])


@pytest.mark.real
def test_a_real_broken_sequence_is_read_past(real_data):
    file = real_data / "ct" / "pydicom-data" / "bad_sequence.dcm"
    (header,) = check_two(file)
    assert header.syntax == "1.2.840.10008.1.2.4.70"
    values, _ = decode([Place(file)])
    assert (values.min(), values.max()) == (-1011, 1243)


def packed(folder: Path, uid: str, stream: bytes) -> list[Path]:
    """The series with every slice's pixels replaced by a compressed stream."""
    for file in dicom_files(folder):
        data = pydicom.dcmread(file)
        data.file_meta.TransferSyntaxUID = UID(uid)
        data.PixelData = encapsulate([stream])
        data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
        data.save_as(file, enforce_file_format=True, implicit_vr=False, little_endian=True)
    return dicom_files(folder)


@pytest.mark.parametrize(
    ("uid", "said"),
    [
        ("1.2.840.10008.1.2.4.100", "MPEG2 Main Profile / Main Level (1.2.840.10008.1.2.4.100)"),
        (
            "1.2.840.10008.1.2.4.92",
            "JPEG 2000 Part 2 Multi-component Image Compression (Lossless Only) "
            "(1.2.840.10008.1.2.4.92)",
        ),
        ("1.2.840.10008.1.2.4.110", "'1.2.840.10008.1.2.4.110'"),
    ],
)
def test_a_syntax_that_nothing_reads_is_named(series, uid, said):
    known = "1.2.840.10008.1.2.4.100"
    for file in packed(series, known if len(uid) == len(known) else uid, b"\0" * 64):
        file.write_bytes(file.read_bytes().replace(known.encode(), uid.encode()))
    with refused(
        f"1-001.dcm is packed as {said}, which neither SimpleITK nor pydicom reads; "
        "convert it to explicit little endian (dcmconv, gdcmconv --raw)"
    ):
        check_series(dicom_files(series))


def high_throughput(folder: Path) -> list[Path]:
    """The series with all slices as `STREAM`."""
    files = packed(folder, HTJ2K, STREAM)
    for file in files:
        edit(file, Rows=8, Columns=8, PixelRepresentation=0)
    return files


@pytest.mark.skipif(get_decoder(HTJ2K).is_available, reason="medaug[codecs] is installed")
def test_a_syntax_names_the_package_that_reads_it(series):
    with refused(
        f"1-001.dcm is packed as high-throughput JPEG 2000 lossless ({HTJ2K}), which "
        'pylibjpeg-openjpeg reads; pip install "medaug[codecs]"'
    ):
        check_series(high_throughput(series))


@pytest.mark.skipif(not get_decoder(HTJ2K).is_available, reason="needs medaug[codecs]")
def test_the_package_named_reads_it(series):
    values, _ = SeriesReader().get_data(tuple(high_throughput(series)))
    expected = np.clip(np.arange(64).reshape(8, 8) * 60, -1024, 3071)
    np.testing.assert_array_equal(values[:, :, 3].T, expected)


# Damage

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "half": lambda s: s[: len(s) // 2],
    "half and an end": lambda s: s[: len(s) // 2 // 2 * 2] + b"\xff\xd9",
    "half and zeros": lambda s: s[: len(s) // 2] + bytes(len(s) - len(s) // 2),
    "a hole": lambda s: s[: len(s) // 2] + bytes(2048) + s[len(s) // 2 + 2048 :],
    "no end": lambda s: s[:-100],
    "nothing": lambda s: b"\0\0",
}


@pytest.mark.real
@pytest.mark.parametrize("harm", DAMAGE)
@pytest.mark.parametrize("uid", [uid for uid in REAL if UID(uid).is_encapsulated])
def test_damaged_frames_are_refused_in_one_sentence(real_data, tmp_path, uid, harm, capfd):
    data = pydicom.dcmread(real_slice(real_data, uid))
    stream = DAMAGE[harm](get_frame(data.PixelData, 0, number_of_frames=1))
    data.PixelData = encapsulate([stream + bytes(len(stream) % 2)])
    data.save_as(tmp_path / "harmed.dcm")
    with pytest.raises(
        DataError,
        match=r"^harmed.dcm (cannot be decoded|has damaged pixels); download the series again$",
    ):
        decode([Place(tmp_path / "harmed.dcm")])
    assert capfd.readouterr().out == ""


@pytest.mark.real
@pytest.mark.parametrize("uid", ["1.2.840.10008.1.2.4." + end for end in ("51", "70", "80", "90")])
def test_a_stream_of_another_size_is_refused(real_data, tmp_path, uid):
    """Not decoded at all: a few altered bytes would ask for gigabytes."""
    data = pydicom.dcmread(real_slice(real_data, uid))
    data.Rows = 256
    data.save_as(tmp_path / "size.dcm")
    with refused("size.dcm has damaged pixels; download the series again"):
        decode([Place(tmp_path / "size.dcm")])


@pytest.mark.real
@pytest.mark.parametrize("lost", [9, 100, 5000])
@pytest.mark.parametrize("uid", REAL)
def test_a_file_cut_short_is_refused_by_its_header(real_data, tmp_path, uid, lost):
    whole = real_slice(real_data, uid).read_bytes()
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(whole[:-lost])
    with pytest.raises(DataError, match=r"^cut.dcm is truncated"):
        check_two(cut)


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
    _, meta = SeriesReader().get_data(tuple(dicom_files(series)))
    image = sitk.ReadImage([str(f) for f in dicom_files(series)])
    itk = np.reshape(image.GetDirection(), (3, 3)) @ np.diag(image.GetSpacing())
    np.testing.assert_allclose((np.diag([-1, -1, 1.0]) @ meta["affine"][:3, :3]), itk, atol=1e-6)


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
    cut = pipeline(Case("feet-first", files), {}, 512, 512 * 0.810547, "image")(
        {"image": [str(f) for f in files]}
    )["image"]
    oriented = sitk.DICOMOrient(sitk.ReadImage([str(f) for f in files]), "RAS")
    raw = sitk.GetArrayFromImage(oriented).transpose(2, 1, 0)
    assert raw.min() == -3024
    expected = np.clip(raw, -1024, 3071)
    got = cut.as_tensor()[0].numpy()
    assert np.mean(np.abs(got - expected.astype(float)) <= 3) > 0.99
    assert got.min() == -1024
    lps = np.diag([-1.0, -1.0, 1.0]) @ np.asarray(cut.affine)[:3, 3]
    np.testing.assert_allclose(lps, oriented.GetOrigin(), atol=0.01)
    assert (np.diag(np.asarray(cut.affine))[:3] > 0).all()


# Lossy compression is said


def test_a_lossy_scan_is_noted(tmp_path, medaug):
    root = tmp_path / "pancreas"
    lossy = write_patient(root, 1)
    write_patient(root, 2)
    for file in dicom_files(lossy):
        edit(file, LossyImageCompression="01")
    note = "its pixels went through an earlier, unnamed compression (lossy)"
    report = prepare(open_source(str(root)), tmp_path / "cache", CacheSettings(size=32), 0)
    assert report.done == ["PANCREAS_0001", "PANCREAS_0002"]
    assert report.notes == {"PANCREAS_0001": note}
    told = medaug("prepare", root, "--cache", tmp_path / "again", "--size", 32, "--json")
    assert told.json["notes"] == {"PANCREAS_0001": note}
    assert f"note: PANCREAS_0001: {note}" in told.err.replace("\n", " ")


@pytest.mark.real
def test_a_real_lossy_series_is_named(real_data, tmp_path):
    for k in range(3):
        data = pydicom.dcmread(real_slice(real_data, "1.2.840.10008.1.2.4.51"))
        data.InstanceNumber, data.ImagePositionPatient = k + 1, [0, 0, 2.5 * k]
        data.save_as(tmp_path / f"{k}.dcm")
    files = tuple(tmp_path.glob("*.dcm"))
    _, meta = SeriesReader().get_data(files)
    assert meta[LOSSY] == "JPEG extended"
    cases, problems = Unlabeled(tmp_path).cases()
    assert (len(cases), problems) == (1, [])
