"""Enhanced (multi-frame) CT files, fabricated."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import EnhancedCTImageStorage, ExplicitVRLittleEndian

from tests.conftest import SPACING


def _group(**values) -> pydicom.Dataset:
    """A functional group: sequences of one item each, by name."""
    group = pydicom.Dataset()
    for sequence, content in values.items():
        item = pydicom.Dataset()
        for name, value in content.items():
            setattr(item, name, value)
        setattr(group, sequence, Items([item]))
    return group


def rescale(slope: float, intercept: float) -> dict:
    return {"RescaleSlope": slope, "RescaleIntercept": intercept, "RescaleType": "HU"}


def enhanced(
    stored: np.ndarray,
    order: Sequence[int] | None = None,
    rescales: Sequence[tuple[float, float]] | None = None,
    patient: str = "PANCREAS_0001",
) -> pydicom.Dataset:
    """A multi-frame CT of stored values [x, y, z] in the geometry of `write_series`.

    Args:
        stored: int16 or uint16.
        order: of the slices in the file; None for ascending z.
        rescales: slope and intercept of each slice, in its own group; None shares (1, 0).
        patient: PatientID.
    """
    count = stored.shape[2]
    order = range(count) if order is None else order
    data = pydicom.Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = EnhancedCTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.826.0.1.9.1"
    data.SeriesInstanceUID, data.StudyInstanceUID = "1.2.826.0.1.9.2", "1.2.826.0.1.9.3"
    data.Modality, data.PatientID, data.InstanceNumber = "CT", patient, 1
    data.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    data.Columns, data.Rows = stored.shape[:2]
    data.NumberOfFrames = count
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, int(stored.dtype == np.int16)
    shared = {
        "PlaneOrientationSequence": {"ImageOrientationPatient": [1, 0, 0, 0, -1, 0]},
        "PixelMeasuresSequence": {"PixelSpacing": [SPACING[1], SPACING[0]]},
    }
    if rescales is None:
        shared["PixelValueTransformationSequence"] = rescale(1, 0)
    data.SharedFunctionalGroupsSequence = Items([_group(**shared)])
    groups = []
    for k in order:
        own = {"PlanePositionSequence": {"ImagePositionPatient": [0, 0, -k * SPACING[2]]}}
        if rescales is not None:
            own["PixelValueTransformationSequence"] = rescale(*rescales[k])
        groups.append(_group(**own))
    data.PerFrameFunctionalGroupsSequence = Items(groups)
    data.PixelData = np.ascontiguousarray(stored[:, :, list(order)].transpose(2, 1, 0)).tobytes()
    data["PixelData"].VR = "OW"
    return data


def save(data: pydicom.Dataset, file: Path) -> Path:
    """Write ``data`` to ``file``, whose folder is made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(file, enforce_file_format=True)
    return file
