"""Every transfer syntax gives the same HU, and damaged or foreign streams are refused by name."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import get_decoder
from pydicom.uid import UID

from medaug.core.errors import DataError
from medaug.data.formats.dicom_pixels import Place, decode
from medaug.data.formats.dicom_series import check_series, dicom_files
from medaug.data.formats.dicom_syntaxes import SYNTAXES
from medaug.data.formats.readers import read_series
from tests.support.refusals import refused
from tests.support.series import edit, packed, real_slice

DOCS = Path(__file__).parents[2] / "docs" / "data.md"
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


def pydicom_hu(file: Path) -> np.ndarray | None:
    """HU [y, x] by the decoders of pydicom, or None where those installed cannot."""
    data = pydicom.dcmread(file)
    try:
        stored = data.pixel_array
    except RuntimeError:
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
    from medaug.data.formats.dicom_series import check_values, read_headers

    headers = read_headers(file)
    for header in headers:
        check_values(header)
    return headers


@pytest.mark.long
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
    values, *_ = read_series(tuple(high_throughput(series)))
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
