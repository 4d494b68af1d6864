"""Split enhanced (multi-frame) CT files: where each frame lies and what its values mean.

DICOM PS3.3, C.7.6.16: a functional group is in the shared sequence, once for all frames, or in the
per-frame sequence, once for each; there it overrides a shared one.
"""

from typing import Any

import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage

TAGS = [
    "NumberOfFrames",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]
_GROUPS = {
    "PlanePositionSequence": ["ImagePositionPatient"],
    "PlaneOrientationSequence": ["ImageOrientationPatient"],
    "PixelMeasuresSequence": ["PixelSpacing"],
    "PixelValueTransformationSequence": ["RescaleSlope", "RescaleIntercept", "RescaleType"],
}
_ANY_UID = "2.25.1"
PACKING = [
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
]


def is_enhanced(data: pydicom.Dataset) -> bool:
    """Whether positions are in functional groups."""
    return "PerFrameFunctionalGroupsSequence" in data


def planes(data: pydicom.Dataset) -> list[pydicom.Dataset]:
    """List what says where each slice of ``data`` lies: its frames, or itself if it is classic.

    Raises:
        ValueError: a classic file of several frames, or groups and frames of different number.
    """
    if is_enhanced(data):
        return describe(data)
    if int(data.get("NumberOfFrames") or 1) != 1:
        raise ValueError(f"{data.NumberOfFrames} frames without positions")
    return [data]


def describe(data: pydicom.Dataset) -> list[pydicom.Dataset]:
    """Describe each frame as a classic slice would, as far as its groups say it.

    Raises:
        ValueError: groups and frames of different number.
    """
    count = int(data.get("NumberOfFrames") or 1)
    groups = data.PerFrameFunctionalGroupsSequence
    if len(groups) != count:
        raise ValueError(f"{len(groups)} functional groups for {count} frames")
    shared = list(data.get("SharedFunctionalGroupsSequence") or [])
    frames = []
    for own in groups:
        frame = pydicom.Dataset()
        for sequence, names in _GROUPS.items():
            for group in (*shared, own):
                for item in group.get(sequence) or []:
                    for name in names:
                        if name in item:
                            frame[name] = item[name]
        frames.append(frame)
    return frames


def as_slice(data: pydicom.Dataset, pixels: bytes) -> pydicom.Dataset:
    """Make a classic slice of stored values, not rescaled, of the packed ``pixels`` of a frame."""
    frame = pydicom.Dataset()
    frame.file_meta = FileMetaDataset()
    frame.file_meta.TransferSyntaxUID = data.file_meta.TransferSyntaxUID
    frame.file_meta.MediaStorageSOPClassUID = frame.SOPClassUID = CTImageStorage
    frame.file_meta.MediaStorageSOPInstanceUID = frame.SOPInstanceUID = _ANY_UID
    frame.Modality = "CT"
    for name in PACKING:
        frame[name] = data[name]
    frame.RescaleSlope, frame.RescaleIntercept = 1, 0
    element: Any = pydicom.DataElement("PixelData", "OB", encapsulate([pixels]))
    element.is_undefined_length = True
    frame["PixelData"] = element
    return frame
