"""DICOM series to be changed file by file."""

from pathlib import Path

import pydicom
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from medaug.data.formats.dicom_series import dicom_files


def edit(file: Path, **values) -> None:
    """Change attributes of a DICOM file."""
    data = pydicom.dcmread(file)
    for name, value in values.items():
        setattr(data, name, value)
    data.save_as(file)


def packed(folder: Path, uid: str, stream: bytes) -> list[Path]:
    """The series with every slice's pixels replaced by a compressed stream."""
    for file in dicom_files(folder):
        data = pydicom.dcmread(file)
        data.file_meta.TransferSyntaxUID = UID(uid)
        data.PixelData = encapsulate([stream])
        data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
        data.save_as(file, enforce_file_format=True, implicit_vr=False, little_endian=True)
    return dicom_files(folder)


def real_slice(folder: Path, uid: str) -> Path:
    """The real slice that is packed in a transfer syntax."""
    return next((folder / "ct-transfer-syntaxes").glob(f"CTImage.dcm_*_{uid}.dcm"))
