"""The frames of an enhanced (multi-frame) CT file: where each lies and what its values mean.

DICOM PS3.3, C.7.6.16: a functional group stands once for all frames, in the shared sequence, or
once for each, in the per-frame sequence, which has the last word.
"""

from typing import Any

import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

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
    """What says where each slice of ``data`` lies: its frames, or itself where it is classic.

    Raises:
        ValueError: a classic file of several frames, or as many groups as frames are not there.
    """
    if is_enhanced(data):
        return describe(data)
    if int(data.get("NumberOfFrames") or 1) != 1:
        raise ValueError(f"{data.NumberOfFrames} frames without positions")
    return [data]


def describe(data: pydicom.Dataset) -> list[pydicom.Dataset]:
    """What a classic slice would say of each frame, as far as its groups say it.

    Raises:
        ValueError: as many groups as frames are not there.
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


def split(data: pydicom.Dataset) -> list[bytes]:
    """The pixels of each frame as they are stored.

    Raises:
        ValueError: there are not as many as the header says.
    """
    count = int(data.get("NumberOfFrames") or 1)
    if data.file_meta.TransferSyntaxUID.is_encapsulated:
        pieces = list(generate_frames(data.PixelData, number_of_frames=count))
    else:
        size = int(data.Rows) * int(data.Columns) * int(data.BitsAllocated) // 8
        pieces = [data.PixelData[i * size : (i + 1) * size] for i in range(count)]
        if len(pieces[-1]) < size:
            raise ValueError(f"{len(data.PixelData)} bytes for {count} frames")
    if len(pieces) != count:
        raise ValueError(f"{len(pieces)} frames for {count}")
    return pieces


def as_slice(data: pydicom.Dataset, pixels: bytes) -> pydicom.Dataset:
    """One frame of ``data`` as a classic slice of stored values, not rescaled."""
    syntax = data.file_meta.TransferSyntaxUID
    frame = pydicom.Dataset()
    frame.file_meta = FileMetaDataset()
    frame.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax.is_deflated else syntax
    frame.file_meta.MediaStorageSOPClassUID = frame.SOPClassUID = CTImageStorage
    frame.file_meta.MediaStorageSOPInstanceUID = frame.SOPInstanceUID = _ANY_UID
    frame.Modality = "CT"
    for name in PACKING:
        frame[name] = data[name]
    frame.RescaleSlope, frame.RescaleIntercept = 1, 0
    if syntax.is_encapsulated:
        pixels = pydicom.encaps.encapsulate([pixels])
    element: Any = pydicom.DataElement(
        "PixelData", "OB" if syntax.is_encapsulated else "OW", pixels
    )
    element.is_undefined_length = syntax.is_encapsulated
    frame["PixelData"] = element
    return frame
