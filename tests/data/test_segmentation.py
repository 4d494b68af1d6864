"""DICOM SEG labels lie where their frames' positions say, or are refused."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from medaug.core.errors import DataError
from medaug.data import open_source
from medaug.data.cache.prepare import SliceCache, prepare
from medaug.data.formats.dicom_seg import read_segmentation, segments
from medaug.data.sources.pancreas import PancreasCT
from tests.conftest import SHAPE, miniature, write_label, write_series
from tests.support.pancreas_layouts import ID, SETTINGS, zipped
from tests.support.segmentations import idc, write_seg


def read(files: Sequence[Path], seg: Path, ids: dict[int, int] | None = None) -> np.ndarray:
    return read_segmentation(seg, [1, 2], ids, files)[0]


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_frames_come_back_where_they_were(tmp_path, kind):
    files, seg = idc(tmp_path, kind=kind)
    assert 0 < pydicom.dcmread(seg).NumberOfFrames < SHAPE[2]
    labels, affine = read_segmentation(seg, [1], None, files)
    np.testing.assert_array_equal(labels, miniature(7)[1])
    assert labels.dtype == np.uint8
    np.testing.assert_allclose(affine, np.diag([-6, 6, -2.5, 1]))


@pytest.mark.parametrize("packed", ["no", "as one archive", "each series"])
def test_the_cache_equals_that_of_the_nifti_label(tmp_path, packed):
    hu, mask = miniature(7)
    write_series(tmp_path / "nifti" / ID, ID, hu)
    write_label(tmp_path / "nifti" / "label0007.nii.gz", mask)
    idc(tmp_path / "seg")
    if packed == "as one archive":
        zipped(tmp_path / "seg" / "pancreas_ct", tmp_path / "seg" / "all.zip")
    elif packed == "each series":
        for folder in list((tmp_path / "seg").glob("*/*/*/*")):
            zipped(folder, tmp_path / "seg" / f"{folder.name}.zip")
    digests = []
    for name in ("nifti", "seg"):
        source = open_source(str(tmp_path / name))
        assert prepare(source, tmp_path / f"{name}-cache", SETTINGS, 0).failed == []
        digests.append(SliceCache.open(tmp_path / f"{name}-cache").cases[ID].digest)
    assert digests[0] == digests[1]


def test_a_seg_beside_the_slices_in_one_folder_is_found(tmp_path):
    files, seg = idc(tmp_path)
    seg.rename(files[0].with_name("00000000-seg.dcm"))
    (case,), found = PancreasCT(tmp_path).cases()
    assert found == []
    assert len(case.image) == SHAPE[2]
    assert case.label is not None
    assert case.label.files[0].name == "00000000-seg.dcm"


def test_the_nifti_label_is_taken_where_both_are_there(tmp_path):
    idc(tmp_path)
    write_label(tmp_path / "label0007.nii.gz", miniature(7)[1])
    (case,), found = PancreasCT(tmp_path).cases()
    assert found == []
    assert case.label is not None
    assert case.label.files[0].name == "label0007.nii.gz"


def test_the_pancreas_is_chosen_by_name(tmp_path):
    hu, mask = miniature(7)
    liver = ((hu > 40) & (hu < 90) & (mask == 0)).astype(np.uint8)
    files, seg = idc(tmp_path, {"Liver": liver, "Pancreas": mask})
    assert segments(seg).names == {1: "Liver", 2: "Pancreas"}
    (case,), found = PancreasCT(tmp_path).cases()
    assert found == []
    assert case.label is not None
    assert case.label.ids == {2: 1}
    np.testing.assert_array_equal(read(files, seg, {2: 1}), mask)
    np.testing.assert_array_equal(read(files, seg), liver + 2 * mask)


def frames(seg: pydicom.Dataset) -> pydicom.Sequence:
    return seg.PerFrameFunctionalGroupsSequence


def permute(seg: pydicom.Dataset) -> None:
    """Frames in another order, each with its own header: no harm."""
    order = np.random.default_rng(0).permutation(seg.NumberOfFrames)
    pixels = seg.pixel_array[order]
    seg.PerFrameFunctionalGroupsSequence = pydicom.Sequence([frames(seg)[k] for k in order])
    seg.PixelData = np.packbits(pixels.ravel(), bitorder="little").tobytes()
    seg.PixelData += b"\0" * (len(seg.PixelData) % 2)


def test_the_order_of_frames_plays_no_part(tmp_path):
    files, seg = idc(tmp_path, change=permute)
    np.testing.assert_array_equal(read(files, seg), miniature(7)[1])


def test_frames_on_other_axes_come_back_where_they_were(tmp_path):
    """ITK's writers keep the axes of the label map: here rows to the left, columns to behind."""

    def turn(seg: pydicom.Dataset) -> None:
        pixels = seg.pixel_array[:, ::-1].transpose(0, 2, 1)
        seg.Rows, seg.Columns = pixels.shape[1:]
        seg.PixelData = np.packbits(pixels.ravel(), bitorder="little").tobytes()
        seg.PixelData += b"\0" * (len(seg.PixelData) % 2)
        shared = seg.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
        shared.ImageOrientationPatient = [0, 1, 0, 1, 0, 0]
        for frame in frames(seg):
            position = frame.PlanePositionSequence[0].ImagePositionPatient
            frame.PlanePositionSequence[0].ImagePositionPatient = [
                position[0],
                position[1] - (SHAPE[1] - 1) * 6.0,
                position[2],
            ]

    files, seg = idc(tmp_path, change=turn)
    np.testing.assert_array_equal(read(files, seg), miniature(7)[1])


def position(frame: pydicom.Dataset) -> pydicom.Dataset:
    return frame.PlanePositionSequence[0]


def swap_positions(seg: pydicom.Dataset) -> None:
    first, second = (position(frame) for frame in frames(seg)[:2])
    first.ImagePositionPatient, second.ImagePositionPatient = (
        second.ImagePositionPatient,
        first.ImagePositionPatient,
    )


def drop_references(seg: pydicom.Dataset) -> None:
    for frame in frames(seg):
        del frame.DerivationImageSequence


def reverse_positions(seg: pydicom.Dataset) -> None:
    """Positions mirrored along the scan, and nothing that would tell."""
    drop_references(seg)
    for frame in frames(seg):
        x, y, z = position(frame).ImagePositionPatient
        position(frame).ImagePositionPatient = [x, y, -(SHAPE[2] - 1) * 2.5 - z]


def shift(mm: float) -> Callable[[pydicom.Dataset], None]:
    def change(seg: pydicom.Dataset) -> None:
        for frame in frames(seg):
            x, y, z = position(frame).ImagePositionPatient
            position(frame).ImagePositionPatient = [x + mm, y, z]

    return change


def pitch(seg: pydicom.Dataset) -> None:
    seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [6.0, 6.1]


def double(seg: pydicom.Dataset) -> None:
    drop_references(seg)
    position(frames(seg)[1]).ImagePositionPatient = position(frames(seg)[0]).ImagePositionPatient


def foreign(seg: pydicom.Dataset) -> None:
    for frame in frames(seg):
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        source.ReferencedSOPInstanceUID = "1.2.3.4"


def cut(seg: pydicom.Dataset) -> None:
    seg.PixelData = seg.PixelData[:200]


def no_position(seg: pydicom.Dataset) -> None:
    position(frames(seg)[0]).ImagePositionPatient = [0, 0]


def no_rows(seg: pydicom.Dataset) -> None:
    seg.Rows = 0


WRONG = {
    "frame 1 lies on slice 14 of the scan, but was drawn on slice 15; its frames are in "
    "disorder": swap_positions,
    "frame 1 is on another grid than the scan; it belongs to another": shift(3.0),
    "frame 1 lies beyond the scan; it belongs to another": shift(60.0),
    "frames 1 and 2 of segment 1 lie on one slice; download the series again": double,
    "frame 1 was drawn on an image of another series": foreign,
}


def test_a_frame_without_a_position_is_refused(tmp_path):
    files, seg = idc(tmp_path, change=no_position)
    with pytest.raises(DataError, match=r"^f00\.dcm is not a whole DICOM segmentation; download"):
        read(files, seg)


def test_frames_without_pixels_are_refused(tmp_path):
    files, seg = idc(tmp_path, change=no_rows)
    with pytest.raises(DataError, match=r"^f00\.dcm: frame 1 has no position or size in its"):
        read(files, seg)


@pytest.mark.parametrize("reason", WRONG)
def test_frames_that_lie_wrong_are_refused(tmp_path, reason):
    files, seg = idc(tmp_path, change=WRONG[reason])
    with pytest.raises(DataError) as told:
        read(files, seg)
    assert str(told.value) == f"f00.dcm: {reason}"


def test_another_pixel_spacing_is_refused(tmp_path):
    files, seg = idc(tmp_path, change=pitch)
    with pytest.raises(DataError, match="is on another grid than the scan"):
        read(files, seg)


def test_missing_pixels_are_refused(tmp_path):
    files, seg = idc(tmp_path, change=cut)
    with pytest.raises(DataError, match=r"^f00\.dcm.* (not a whole|truncated or damaged)"):
        read(files, seg)


def test_a_scan_in_one_file_is_refused(tmp_path):
    """Enhanced CT lists its file once for each frame."""
    files, seg = idc(tmp_path)
    with pytest.raises(DataError, match=r"^f00\.dcm needs its scan as one file for each slice$"):
        read([files[0]] * 3, seg)


def test_probabilities_are_refused(tmp_path):
    mask = miniature(7)[1] * 0.5
    files, seg = idc(tmp_path, {"Pancreas": mask}, kind="FRACTIONAL")
    with pytest.raises(
        DataError, match=r"^f00.dcm: segment 1 holds probabilities; a mask is needed"
    ):
        read(files, seg)


def test_overlapping_segments_are_refused_where_both_are_wanted(tmp_path):
    mask = miniature(7)[1]
    files, seg = idc(tmp_path, {"Liver": mask, "Pancreas": mask})
    with pytest.raises(DataError, match="overlaps another label; a voxel can have one"):
        read(files, seg)
    np.testing.assert_array_equal(read(files, seg, {2: 1}), mask)


MIRRORED: dict[str, dict[str, Any]] = {
    "mirrored left to right": {"masks": lambda m: m[::-1]},
    "mirrored front to back": {"masks": lambda m: m[:, ::-1]},
    "with its slices reversed": {"change": reverse_positions},
}


@pytest.mark.parametrize("how", MIRRORED)
def test_a_mirrored_seg_is_caught_by_the_voxels(tmp_path, how):
    """Its headers are sound: only the image can tell."""
    hu, mask = miniature(7)
    mask = mask * (np.arange(SHAPE[2]) < 9).astype(np.uint8)
    hu = np.where((miniature(7)[1] == 1) & (mask == 0), -90, hu).astype(np.int16)
    study = tmp_path / ID
    files = write_series(study / "CT", ID, hu)
    turned = MIRRORED[how].get("masks", lambda m: m)(mask)
    write_seg(
        study / "SEG" / "s.dcm", files, {"Pancreas": turned}, change=MIRRORED[how].get("change")
    )
    with pytest.raises(DataError, match=f"label lies better on the image {how}"):
        prepare(open_source(str(tmp_path)), tmp_path / "cache", SETTINGS, 0)


def problems(root: Path) -> list[str]:
    return [str(problem) for problem in PancreasCT(root).cases()[1]]


def test_a_seg_of_something_else_is_no_label(tmp_path):
    idc(tmp_path, {"Liver": miniature(7)[1]})
    assert problems(tmp_path) == [
        "PANCREAS_0007: no DICOM SEG has its pancreas: f00.dcm holds Liver"
    ]


def test_a_seg_of_another_series_is_no_label(tmp_path):
    def elsewhere(seg: pydicom.Dataset) -> None:
        seg.ReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.3"

    idc(tmp_path, change=elsewhere)
    assert problems(tmp_path) == [
        "PANCREAS_0007: no DICOM SEG has its pancreas: f00.dcm was drawn on another series"
    ]


def test_two_segs_of_the_pancreas_are_named(tmp_path):
    files, seg = idc(tmp_path)
    write_seg(seg.with_name("f01.dcm"), files, {"Pancreas": miniature(7)[1]})
    assert problems(tmp_path) == [
        "PANCREAS_0007: 2 DICOM SEG of the pancreas, SEG_1.2.3/f00.dcm, SEG_1.2.3/f01.dcm; keep one"
    ]


def test_without_highdicom_the_extra_is_named(tmp_path, monkeypatch):
    files, seg = idc(tmp_path)
    monkeypatch.setitem(sys.modules, "highdicom", None)
    needs = "reading DICOM SEG labels needs the package highdicom: pip install medaug[dicom]"
    assert problems(tmp_path) == [f"PANCREAS_0007: its only label is a DICOM SEG; {needs}"]
    with pytest.raises(DataError, match=r"f00\.dcm is a DICOM SEG; reading .* pip install"):
        read(files, seg)


@pytest.mark.real
def test_real_segs_equal_their_published_label_maps(real_data):
    """Written by dcmqi, frames in descending order, positions rounded otherwise than the scan's."""
    folder = real_data / "ct" / "dcmqi-ct3slice"
    files = sorted((folder / "ct-3slice").glob("*.dcm"))
    positions = [pydicom.dcmread(file).ImagePositionPatient[2] for file in files]
    cases = {("liver.dcm", 1): "liver_seg.nrrd"}
    cases |= {
        ("partial_overlaps.dcm", n): f"partial_overlaps-{part}.nrrd"
        for n, part in ((1, 1), (2, 2), (3, 3), (4, 1), (5, 1))
    }
    for (name, segment), reference in cases.items():
        labels, _ = read_segmentation(folder / name, [1], {segment: 1}, files)
        image = sitk.ReadImage(str(folder / reference))
        heights = [image.TransformIndexToPhysicalPoint((0, 0, z))[2] for z in range(3)]
        order = [int(np.argmin(np.abs(np.subtract(heights, z)))) for z in positions]
        expected = sitk.GetArrayFromImage(image).transpose(2, 1, 0)[:, :, order]
        wanted = (expected == segment).astype(np.uint8)
        assert wanted.any()
        np.testing.assert_array_equal(labels, wanted)


@pytest.mark.long
@pytest.mark.real
def test_the_real_label_as_a_seg_gives_the_same_voxels(real_pancreas, tmp_path):
    import nibabel

    (case, _), _ = PancreasCT(real_pancreas).cases()
    assert case.label is not None
    mask = np.asanyarray(nibabel.load(case.label.files[0]).dataobj).astype(np.uint8)
    seg = write_seg(tmp_path / "s.dcm", case.image, {"Pancreas": mask})
    assert pydicom.dcmread(seg, stop_before_pixels=True).NumberOfFrames == 71
    np.testing.assert_array_equal(read(case.image, seg), mask)
