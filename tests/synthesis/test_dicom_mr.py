"""MR as DICOM: an MR Image of no sequence, its labels and its spread, read back by others."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from highdicom import imread
from highdicom._standard_utils import get_iod_module_map, get_module_attribute_map
from highdicom.seg import segread
from pydicom.uid import MRImageStorage

from medaug.core.types import Sample
from medaug.synthesis.writers import open_writer
from medaug.synthesis.writers.dicom import affine_of
from tests.synthesis.test_dicom import TILTED, case
from tests.synthesis.test_writers import AFFINE, row


def magnetic(affine: np.ndarray = AFFINE) -> Sample:
    """A sample in thousandths of a scan's range."""
    made = case(affine=affine)
    return replace(made, image=(made.image.astype(np.int16) + 160) * 2)


def written(folder: Path, made: Sample) -> dict[str, Path]:
    paths = {}
    for role, (name, content) in open_writer("dicom", "mr")[1].files(made, "syn_000007", 1).items():
        paths[role] = folder / name
        paths[role].parent.mkdir(exist_ok=True)
        paths[role].write_bytes(content)
    return paths


def test_it_is_an_mr_image_of_no_sequence(tmp_path: Path) -> None:
    paths = written(tmp_path, magnetic())
    assert paths["image"] == tmp_path / "mr" / "syn_000007.dcm"
    data = pydicom.dcmread(paths["image"])
    assert (data.SOPClassUID, data.Modality) == (MRImageStorage, "MR")
    assert data.SOPClassUID == "1.2.840.10008.5.1.4.1.1.4"
    assert (data.ScanningSequence, data.SequenceVariant) == ("RM", "NONE")
    assert list(data.ImageType) == ["DERIVED", "SECONDARY", "OTHER"]
    assert (data.WindowCenter, data.WindowWidth, data.PixelRepresentation) == (500, 1000, 0)
    assert data.SyntheticData == "YES"
    assert data.SeriesDescription == "Synthetic MR, drawn by a model; not a patient"
    for keyword in ("RescaleSlope", "RescaleIntercept", "RescaleType", "KVP"):
        assert keyword not in data, "CT alone has it"


def test_no_mandatory_attribute_is_missing(tmp_path: Path) -> None:
    """By the tables of the standard: type 1 is there with a value, types 2 and 2C are there."""
    data = pydicom.dcmread(written(tmp_path, magnetic())["image"])
    checked = set()
    for module in get_iod_module_map()["mr-image"]:
        for attribute in get_module_attribute_map()[module["key"]]:
            if module["usage"] != "M" or attribute["path"] or attribute["type"] not in ("1", "2"):
                continue
            keyword = attribute["keyword"]
            assert keyword in data, f"{module['key']}: {keyword}"
            if attribute["type"] == "1":
                assert data[keyword].value not in (None, ""), f"{module['key']}: {keyword}"
            checked.add(keyword)
    assert {"ScanningSequence", "EchoTime", "MRAcquisitionType", "PixelSpacing"} <= checked
    assert "RepetitionTime" in data, "2C: wanted of every sequence that is no plain echo-planar one"


@pytest.mark.parametrize("affine", [AFFINE, TILTED])
def test_it_comes_back_and_others_read_it(affine: np.ndarray, tmp_path: Path) -> None:
    made = magnetic(affine)
    paths = written(tmp_path, made)
    back = open_writer("dicom", "mr")[1].read(tmp_path, row(tmp_path, paths, "mr"))
    assert back.image.dtype == np.int16
    for name in ("image", "label", "std"):
        assert np.array_equal(getattr(back, name), getattr(made, name)), name
    assert np.allclose(affine_of(pydicom.dcmread(paths["image"])), affine, atol=1e-6)
    seen = sitk.ReadImage(str(paths["image"]))
    assert np.array_equal(sitk.GetArrayFromImage(seen)[0], made.image[::-1, ::-1])
    assert segread(paths["label"]).get_source_image_uids()[0][2] == (
        pydicom.dcmread(paths["image"]).SOPInstanceUID
    )


def test_its_spread_has_no_unit(tmp_path: Path) -> None:
    (shared,) = imread(written(tmp_path, magnetic())["std"]).SharedFunctionalGroupsSequence
    (mapping,) = shared.RealWorldValueMappingSequence
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "1"
    assert mapping.LUTLabel == "STD_THOUSANDTHS"


def test_the_same_slice_as_ct_is_another_object(tmp_path: Path) -> None:
    made = magnetic()
    ct = open_writer("dicom", "ct")[1].files(made, "syn_000007", 1)
    assert ct["image"][0] == "ct/syn_000007.dcm"
    assert ct["image"][1] != open_writer("dicom", "mr")[1].files(made, "syn_000007", 1)["image"][1]
