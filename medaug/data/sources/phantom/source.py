"""The phantom: procedural abdomens, written in the Pancreas-CT layout and read like the real one.

    ROOT/phantom.json                                        the settings, so that none are mixed
    ROOT/Pancreas-CT/PANCREAS_0001/<study>/<series>/1-001.dcm
    ROOT/TCIA_pancreas_labels-02-05-2017/label0001.nii.gz

Folder names, headers and their gaps are those of the collection: rows run from posterior to
anterior, slices from superior to inferior, SliceThickness is present but empty, the numbers 25 and
70 do not exist.  ImageComments, absent there, says that nobody was scanned.
"""

import gzip
import itertools
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ImplicitVRLittleEndian

from medaug.core.errors import DataError
from medaug.core.seeds import derive
from medaug.core.types import HU, Case, LabelMap, Problem
from medaug.data.sources.pancreas import PancreasCT
from medaug.data.sources.phantom.painting import draw, draw_organs
from medaug.data.sources.phantom.shapes import Organ
from medaug.runtime.files import explaining, parse_json, write_bytes, write_json
from medaug.runtime.progress import progress

__all__ = ["Organ", "Phantom", "draw", "draw_organs", "write"]

Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]

COMMENT = "medaug procedural phantom, no patient"
_SCANS, _LABELS = "Pancreas-CT", "TCIA_pancreas_labels-02-05-2017"
_WITHDRAWN = (25, 70)
_SETTINGS = "phantom.json"
_VERSION = 1


class Phantom:
    """Procedural patients as a source; ``cases`` writes those that are missing.

    Args:
        root: the folder that holds them.
        patients: how many; a larger number later adds to them.
        seed: who they are.
        shape: voxels (x, y, z).
        spacing_mm: voxel size (x, y, z); the abdomen takes 380 x 380 x 190 mm.
    """

    name = "phantom"
    kind: Literal["ct"] = "ct"
    modality: Literal["CT", "MR"] = "CT"
    labels: Mapping[str, int] = {"pancreas": 1}

    def __init__(
        self,
        root: Path,
        patients: int = 24,
        seed: int = 0,
        shape: Shape = (160, 160, 64),
        spacing_mm: Spacing = (2.4, 2.4, 3.0),
    ) -> None:
        self.root = Path(root)
        self.patients, self.seed, self.shape, self.spacing_mm = patients, seed, shape, spacing_mm

    def cases(self) -> tuple[list[Case], list[Problem]]:
        """The scans in ``root``, found and checked as those of the real collection are.

        Raises:
            DataError: ``root`` holds other scans, or a phantom with other settings.
        """
        write(self.root, self.patients, self.seed, self.shape, self.spacing_mm)
        wanted = {_name(number) for number in itertools.islice(_numbers(), self.patients)}
        cases, problems = PancreasCT(self.root).cases()
        return [c for c in cases if c.id in wanted], [p for p in problems if p.case in wanted]


def write(
    root: Path,
    patients: int = 24,
    seed: int = 0,
    shape: Shape = (160, 160, 64),
    spacing_mm: Spacing = (2.4, 2.4, 3.0),
) -> None:
    """Write ``patients`` phantoms below ``root``; complete ones are kept, so a second call resumes.

    Raises:
        DataError: ``root`` holds other scans, or a phantom with other settings.
        OutputError: the disk cannot take them.
    """
    root = Path(root)
    _check(patients, shape, spacing_mm)
    _claim(root, seed, shape, spacing_mm)
    missing = [n for n in itertools.islice(_numbers(), patients) if not _complete(root, n, shape)]
    if not missing:
        return
    with progress("phantom", patients, "patients", done=patients - len(missing)) as report:
        for number in missing:
            _write_patient(root, number, seed, shape, spacing_mm)
            report.advance()


def _numbers() -> Iterator[int]:
    """Case numbers from 1, without those that the collection withdrew."""
    return (n for n in itertools.count(1) if n not in _WITHDRAWN)


def _name(number: int) -> str:
    return f"PANCREAS_{number:04d}"


def _check(patients: int, shape: Sequence[int], spacing_mm: Sequence[float]) -> None:
    if not 1 <= patients <= 9000:
        raise DataError(f"{patients} phantom patients; accepted are 1 to 9000")
    if len(shape) != 3 or min(shape) < 2:
        raise DataError(f"phantom of shape {_times(shape)}; accepted are three numbers from 2")
    if len(spacing_mm) != 3 or min(spacing_mm) <= 0:
        raise DataError(f"phantom of spacing {_times(spacing_mm)} mm; accepted are three above 0")


def _claim(root: Path, seed: int, shape: Shape, spacing_mm: Spacing) -> None:
    """Mark ``root`` as a phantom of these settings, unless it is something else."""
    settings = {
        "comment": COMMENT,
        "seed": seed,
        "shape": list(shape),
        "spacing_mm": [float(s) for s in spacing_mm],
        "version": _VERSION,
    }
    file = root / _SETTINGS
    if not file.exists():
        if (root / _SCANS).exists():
            raise DataError(f"{root}: holds scans that are no phantom; choose another folder")
        write_json(file, settings)
        return
    try:
        found: dict[str, Any] = parse_json(file.read_text())
        there = _describe(found)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: cannot be read ({error}); delete the folder {root}") from error
    if found != settings:
        raise DataError(
            f"{root}: holds a phantom of {there}, not of {_describe(settings)}; "
            "choose another folder or delete this one"
        )


def _describe(settings: Mapping[str, Any]) -> str:
    return (
        f"seed {settings['seed']}, shape {_times(settings['shape'])}, "
        f"spacing {_times(settings['spacing_mm'])} mm, version {settings['version']}"
    )


def _times(numbers: Sequence[float]) -> str:
    return " x ".join(f"{n:g}" for n in numbers)


def _complete(root: Path, number: int, shape: Shape) -> bool:
    label = root / _LABELS / f"label{number:04d}.nii.gz"
    slices = (root / _SCANS / _name(number)).glob("*/*/*.dcm")
    return label.exists() and sum(1 for _ in slices) == shape[2]


def _write_patient(root: Path, number: int, seed: int, shape: Shape, spacing_mm: Spacing) -> None:
    """Draw one patient and write the label, then the series, whole or not at all."""
    hu, mask, _ = draw(derive(seed, "phantom", number), shape, spacing_mm)
    write_bytes(root / _LABELS / f"label{number:04d}.nii.gz", _nifti(mask, number, spacing_mm))
    patient = root / _SCANS / _name(number)
    with explaining(patient):
        patient.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{patient.name}.", dir=patient.parent))
        try:
            _write_series(part, hu, number, seed, spacing_mm)
            part.chmod(0o755)
            if patient.exists():
                shutil.rmtree(patient)
            part.rename(patient)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _nifti(mask: LabelMap, number: int, spacing_mm: Spacing) -> bytes:
    """The label file: LAI order, origin 0; every second one is uint16, as in the collection."""
    sx, sy, sz = spacing_mm
    affine = np.diag([-sx, sy, -sz, 1.0])
    stored = mask[::-1, :, ::-1].astype(np.uint8 if number % 2 else np.uint16)
    image = nib.Nifti1Image(stored, affine)
    image.set_qform(affine, 2)
    image.set_sform(affine, 1)
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), 6, mtime=0)


def _uid(*address: int | str) -> str:
    name = ":".join(str(part) for part in ("medaug phantom", *address))
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, name).int}"


def _write_series(folder: Path, hu: HU, number: int, seed: int, spacing_mm: Spacing) -> None:
    """Write ``hu`` (RAS+) as DICOM files in the folders that the NBIA retriever makes."""
    count = hu.shape[2]
    who = (seed, *hu.shape, *(f"{s:g}" for s in spacing_mm), number)
    ds = _header(number, hu.shape, spacing_mm)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = _uid(*who, "study"), _uid(*who, "series")
    ds.FrameOfReferenceUID = _uid(*who, "frame")
    study = f"11-24-2015-PANCREAS{number:04d}-Pancreas-{ds.StudyInstanceUID[-5:]}"
    series = folder / study / f"Pancreas-{ds.SeriesInstanceUID[-5:]}"
    series.mkdir(parents=True)
    stored = np.ascontiguousarray(hu[::-1, :, ::-1].transpose(2, 1, 0), "<i2")
    for k, pixels in enumerate(stored):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = _uid(*who, k + 1)
        ds.InstanceNumber = k + 1
        ds.StudyTime = f"{100000 + k // 60 * 100 + k % 60:06d}"
        ds.ImagePositionPatient = [0, 0, f"{-k * spacing_mm[2]:.10g}"]
        ds.PixelData = pixels.tobytes()
        name = f"1-{k + 1:0{max(3, len(str(count)))}d}.dcm"
        dcmwrite(series / name, ds, enforce_file_format=True)


def _header(number: int, shape: Sequence[int], spacing_mm: Spacing) -> Dataset:
    """What all slices of a patient share; an empty value is empty in the collection too."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = CTImageStorage
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.StudyDate = "20151124"
    ds.AccessionNumber = ""
    ds.Modality = "CT"
    ds.Manufacturer = ""
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = ds.SeriesDescription = "Pancreas"
    ds.PatientName = ds.PatientID = ds.StudyID = _name(number)
    ds.PatientBirthDate = ""
    ds.PatientSex = ""
    ds.ContrastBolusAgent = ""
    ds.SliceThickness = ds.KVP = None
    ds.SeriesNumber = ds.AcquisitionNumber = None
    ds.ImageOrientationPatient = [1, 0, 0, 0, -1, 0]
    ds.PositionReferenceIndicator = ""
    ds.ImageComments = COMMENT
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = shape[1], shape[0]
    ds.PixelSpacing = [f"{spacing_mm[1]:.10g}", f"{spacing_mm[0]:.10g}"]
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 1
    ds.RescaleIntercept, ds.RescaleSlope = 0, 1
    return ds
