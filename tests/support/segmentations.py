"""DICOM SEG labels, fabricated by highdicom."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from tests.conftest import miniature, write_series
from tests.support.pancreas_layouts import ID

highdicom = pytest.importorskip("highdicom")


def describe(number: int, name: str) -> Any:
    from pydicom.sr.codedict import codes

    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=codes.SCT.Organ,
        segmented_property_type=codes.SCT.Pancreas if name == "Pancreas" else codes.SCT.Liver,
        algorithm_type="MANUAL",
    )


def write_seg(
    path: Path,
    files: Sequence[Path],
    masks: dict[str, np.ndarray],
    kind: str = "BINARY",
    change: Callable[[pydicom.Dataset], None] | None = None,
) -> Path:
    """Write masks [x, y, z] as the DICOM SEG of a series, empty slices left out."""
    scan = [pydicom.dcmread(file) for file in files]
    for slice_ in scan:
        slice_.StudyTime, slice_.AccessionNumber, slice_.StudyID = "", "", ""
        slice_.PatientBirthDate, slice_.PatientSex, slice_.FrameOfReferenceUID = "", "", "1.2.3"
        slice_.ReferringPhysicianName = slice_.PatientName = ""
    frames = np.stack([mask.transpose(2, 1, 0) for mask in masks.values()], axis=-1)
    if kind == "LABELMAP":
        frames = (frames * np.arange(1, frames.shape[-1] + 1)).max(axis=-1)
    seg = highdicom.seg.Segmentation(
        source_images=scan,
        pixel_array=frames.astype(np.float32 if kind == "FRACTIONAL" else np.uint8),
        segmentation_type=kind,
        segment_descriptions=[describe(n, name) for n, name in enumerate(masks, 1)],
        series_instance_uid=generate_uid(),
        series_number=1,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="-",
        manufacturer_model_name="-",
        software_versions="-",
        device_serial_number="-",
        omit_empty_frames=True,
    )
    seg.PatientName = ID  # as the collection's files have it
    if change is not None:
        change(seg)
    path.parent.mkdir(parents=True, exist_ok=True)
    seg.save_as(path)
    return path


def idc(
    root: Path, masks: dict[str, np.ndarray] | None = None, **how: Any
) -> tuple[list[Path], Path]:
    """Scan and SEG of patient 7 in the Imaging Data Commons' layout, files named by chance."""
    hu, mask = miniature(7)
    study = root / "pancreas_ct" / ID / "1.2.826.0.1.7.0.2"
    files = write_series(study / "CT_1.2.826.0.1.7.0.1", ID, hu)
    seg = write_seg(study / "SEG_1.2.3" / "f00.dcm", files, masks or {"Pancreas": mask}, **how)
    for k, file in enumerate(files):
        files[k] = file.rename(file.with_name(f"{(k * 7 + 3) % 16:08x}.dcm"))
    return files, seg
