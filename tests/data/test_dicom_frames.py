"""Enhanced CT, many slices in one file, reads as the same series slice by slice would."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from medaug.core.errors import DataError
from medaug.data import open_source
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
from medaug.data.formats.dicom_series import check_series, dicom_files
from medaug.data.formats.readers import read_series
from medaug.data.sources.unlabeled import Unlabeled
from tests.conftest import SHAPE, miniature, write_label, write_patient, write_series
from tests.support.enhanced import enhanced, rescale, save
from tests.support.refusals import refused

HU = np.clip(miniature(1)[0], -1024, None)
SHUFFLED = [int(i) for i in np.random.default_rng(3).permutation(SHAPE[2])]


def by_z(values: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Voxels [x, y, z] with z ascending to Superior."""
    return values if affine[2, 2] > 0 else values[:, :, ::-1]


@pytest.mark.parametrize("order", [None, SHUFFLED], ids=["in order", "shuffled"])
def test_frames_equal_the_slices_of_a_series(tmp_path, order):
    write_series(tmp_path / "classic", "PANCREAS_0001", HU)
    file = save(enhanced(HU, order), tmp_path / "many.dcm")
    classic, affine, *_ = read_series(tuple(dicom_files(tmp_path / "classic")))
    values, placed, *_ = read_series((file,))
    np.testing.assert_array_equal(by_z(values, placed), by_z(classic, affine))
    corners = np.array([[0, 0, 0, 1], [SHAPE[0] - 1, SHAPE[1] - 1, SHAPE[2] - 1, 1]])
    ours, theirs = (corners @ matrix.T for matrix in (placed, affine))
    np.testing.assert_allclose(ours.min(0), theirs.min(0), atol=1e-6)
    np.testing.assert_allclose(ours.max(0), theirs.max(0), atol=1e-6)


def test_each_frame_has_its_own_rescale(tmp_path):
    stored = (HU + 1024).astype(np.uint16)
    rescales = [(1.0, -1024.0), (0.5, -512.25), (2.0, -2048.0), (3.7, -1000.0)] * 4
    file = save(enhanced(stored, SHUFFLED, rescales), tmp_path / "many.dcm")
    values, affine, *_ = read_series((file,))
    slopes, intercepts = np.transpose(rescales)
    expected = np.clip(np.rint(stored * slopes + intercepts), -1024, 3071)
    got = by_z(values, affine)
    np.testing.assert_array_equal(got, expected[:, :, ::-1])


def test_the_frame_has_the_last_word_over_what_is_shared(tmp_path):
    data = enhanced(HU, rescales=[(1.0, 0.0)] * SHAPE[2])
    shared = pydicom.Dataset()
    for name, value in rescale(1, -500).items():
        setattr(shared, name, value)
    data.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence = [shared]
    values, affine, *_ = read_series((save(data, tmp_path / "many.dcm"),))
    np.testing.assert_array_equal(by_z(values, affine), HU[:, :, ::-1])


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        DeflatedExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        RLELossless,
        JPEGLSLossless,
    ],
    ids=lambda s: s.name,
)
def test_frames_are_read_in_every_syntax(tmp_path, syntax):
    data = enhanced(HU, SHUFFLED)
    if syntax.is_encapsulated:
        data.compress(syntax, generate_instance_uid=False)
    else:
        data.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            data.PixelData = np.frombuffer(data.PixelData, "<i2").astype(">i2").tobytes()
    values, affine, *_ = read_series((save(data, tmp_path / "many.dcm"),))
    np.testing.assert_array_equal(by_z(values, affine), HU[:, :, ::-1])


def drop_group(data):
    del data.PerFrameFunctionalGroupsSequence[3]


def drop_position(data):
    del data.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence


def drop_rescale(data):
    del data.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence


def move(frame: int, z: float):
    def harm(data):
        item = data.PerFrameFunctionalGroupsSequence[frame].PlanePositionSequence[0]
        item.ImagePositionPatient = [0, 0, z]

    return harm


def cut(data):
    data.PixelData = data.PixelData[:-200]


def turn(data):
    item = pydicom.Dataset()
    item.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    data.PerFrameFunctionalGroupsSequence[3].PlaneOrientationSequence = [item]


BROKEN = {
    "a group missing": (drop_group, "many.dcm has no slice position or size in its header"),
    "no position": (drop_position, "many.dcm has no slice position or size in its header"),
    "no rescale": (
        drop_rescale,
        "many.dcm frame 1 has no RescaleSlope and RescaleIntercept; its values are not known to "
        "be HU",
    ),
    "gap": (
        move(15, -60),
        "many.dcm frame 15 and many.dcm frame 16 are 25.00 mm apart, the others 2.50 mm; "
        "download the series again",
    ),
    "twice": (
        move(7, -15),
        "many.dcm frame 7 and many.dcm frame 8 are 0.00 mm apart, the others 2.50 mm; "
        "download the series again",
    ),
    "cut": (
        cut,
        f"many.dcm is truncated: {48 * 40 * 2 * 16 - 200} bytes left for "
        f"{48 * 40 * 2 * 16} bytes of pixels; download the series again",
    ),
    "turned": (turn, "2 slice orientations are mixed in one folder; keep one CT series in each"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_frames_are_refused(tmp_path, case):
    harm, message = BROKEN[case]
    data = enhanced(HU)
    harm(data)
    file = save(data, tmp_path / "many.dcm")
    with refused(message):
        check_series([file])


def test_two_phases_in_one_file_are_refused(tmp_path):
    data = enhanced(np.concatenate([HU, HU], axis=2))
    groups = data.PerFrameFunctionalGroupsSequence
    for k in range(SHAPE[2]):
        groups[SHAPE[2] + k].PlanePositionSequence = groups[k].PlanePositionSequence
    with pytest.raises(DataError, match=r"apart|share their position"):
        check_series([save(data, tmp_path / "many.dcm")])


@pytest.mark.parametrize("frame", [0, 7, 15])
def test_a_damaged_frame_is_named(tmp_path, frame):
    data = enhanced(HU)
    data.compress(JPEGLSLossless, generate_instance_uid=False)
    pieces = list(pydicom.encaps.generate_frames(data.PixelData, number_of_frames=SHAPE[2]))
    pieces[frame] = pieces[frame][:300] + bytes(len(pieces[frame]) - 300)
    data.PixelData = pydicom.encaps.encapsulate(pieces)
    with refused(f"many.dcm frame {frame + 1} cannot be decoded; download the series again"):
        read_series((save(data, tmp_path / "many.dcm"),))


PACKED = {
    "plain": None,
    "deflated": DeflatedExplicitVRLittleEndian,
    "RLE": RLELossless,
    "JPEG-LS": JPEGLSLossless,
}


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("packing", PACKED)
def test_any_damage_is_told_in_one_sentence(tmp_path, packing, seed):
    """A header, pixels or an end that is not what it should be: DataError, or a volume."""
    data, syntax = enhanced(HU), PACKED[packing]
    if syntax is not None and syntax.is_encapsulated:
        data.compress(syntax, generate_instance_uid=False)
    elif syntax is not None:
        data.file_meta.TransferSyntaxUID = syntax
    file = save(data, tmp_path / "many.dcm")
    harmed = bytearray(file.read_bytes())
    rng = np.random.default_rng([seed, len(packing)])
    match seed % 4:
        case 0:
            for at in rng.integers(132, min(len(harmed), 6000), 3):
                harmed[at] = rng.integers(256)
        case 1:
            del harmed[rng.integers(len(harmed)) :]
        case 2:
            at = rng.integers(132, len(harmed))
            del harmed[at : at + rng.integers(1, 64)]
        case 3:
            at = rng.integers(132, len(harmed) - 300)
            harmed[at : at + 300] = rng.bytes(300)
    file.write_bytes(harmed)
    told = None
    try:
        values, *_ = read_series((file,))
    except DataError as error:
        told = str(error)
    if seed % 4 == 1:
        assert told is not None, "a file cut short was read"
    if told is None:
        assert values.ndim == 3
    else:
        assert "\n" not in told


def patient(root: Path, flip: bool) -> Path:
    """A patient of Pancreas-CT as one enhanced file, the label mirrored or not."""
    mask = miniature(1)[1]
    save(enhanced(HU, SHUFFLED), root / "PANCREAS_0001" / "study" / "many.dcm")
    # frames come in the order of their positions along the slice normal
    ascending = mask[:, :, :: 1 if np.cross([1, 0, 0], [0, -1, 0])[2] < 0 else -1]
    write_label(root / "labels" / "label0001.nii.gz", ascending[::-1] if flip else ascending)
    return root


def test_an_enhanced_scan_fills_the_same_cache(tmp_path):
    write_patient(tmp_path / "classic", 1)
    settings = CacheSettings(size=32, holdout=0.0)
    prepare(open_source(str(tmp_path / "classic")), tmp_path / "a", settings, 0)
    prepare(open_source(str(patient(tmp_path / "many", False))), tmp_path / "b", settings, 0)
    one, other = (SliceCache.open(tmp_path / name).cases["PANCREAS_0001"] for name in "ab")
    np.testing.assert_array_equal(one.image, other.image)
    np.testing.assert_array_equal(one.label, other.label)
    assert other.label.any()


def test_a_mirrored_label_of_an_enhanced_scan_is_refused(tmp_path):
    source = open_source(str(patient(tmp_path / "many", True)))
    with pytest.raises(DataError, match="mirrored"):
        prepare(source, tmp_path / "cache", CacheSettings(size=32, holdout=0.0), 0)


def test_frames_split_over_files_are_one_series(tmp_path):
    for part in (0, 1):
        data = enhanced(HU[:, :, part * 8 : part * 8 + 8])
        for k, group in enumerate(data.PerFrameFunctionalGroupsSequence):
            group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, -(part * 8 + k) * 2.5]
        save(data, tmp_path / "split" / f"{part}.dcm")
    (case,), problems = Unlabeled(tmp_path / "split").cases()
    assert not problems
    values, affine, *_ = read_series(case.image, checked=True)
    np.testing.assert_array_equal(by_z(values, affine), HU[:, :, ::-1])


REAL = ["ct/pydicom-data/eCT_Supplemental.dcm"]
REAL += ["ct-transfer-syntaxes/CT0012.fragmented_no_bot_jpeg_baseline.51.dcm"]


@pytest.mark.real
@pytest.mark.parametrize("name", REAL)
def test_a_real_map_of_perfusion_is_no_scan(real_data, name):
    with pytest.raises(DataError, match=r"frame 1 is a perfusion image, not a slice of a CT scan$"):
        check_series([real_data / name])


@pytest.mark.real
@pytest.mark.parametrize("name", REAL)
def test_real_frames_lie_where_their_groups_say(real_data, tmp_path, name, capfd):
    """The same files said to be plain volumes: a descending stack, one in fragments of JPEG."""
    data = pydicom.dcmread(real_data / name)
    data.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
    file = save(data, tmp_path / "many.dcm")
    values, affine, *_ = read_series((file,))
    capfd.readouterr()
    image = sitk.ReadImage(str(file))
    capfd.readouterr()
    whole = np.clip(sitk.GetArrayFromImage(image), -1024, 3071).transpose(2, 1, 0)
    if name.endswith("eCT_Supplemental.dcm"):
        np.testing.assert_array_equal(by_z(values, affine), whole)
    positions = [
        [float(v) for v in group.PlanePositionSequence[0].ImagePositionPatient]
        for group in data.PerFrameFunctionalGroupsSequence
    ]
    ends = (np.array([[0, 0, 0, 1], [0, 0, 1, 1]]) @ affine.T)[:, :3] * [-1, -1, 1]
    np.testing.assert_allclose(sorted(ends.tolist()), sorted(positions), atol=1e-6)
