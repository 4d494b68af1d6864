"""DICOM: a derived image and a segmentation for each sample, marked as synthetic throughout.

    ct/syn_000000.dcm                      CT Image: int16 HU (rescale 1 and 0), one slice
    mr/syn_000000.dcm                      or MR Image: uint16 thousandths of a scan's range
    seg/syn_000000.dcm                     Segmentation, binary, one segment a label
    uncertainty/syn_000000_std.dcm         Parametric Map, float32 HU or thousandths
    uncertainty/syn_000000_entropy.dcm     Parametric Map, float32 bits

The plain CT or MR Image is what every reader takes, which cannot be said of the enhanced one.  The
K alternatives are left to NIfTI: no DICOM object holds them as what they are.

Each sample is a patient and a study of its own, with no dates but 1 January 1970 where a date must
be.  UIDs are name-based UUIDs (ITU-T X.667, root 2.25) of the weights, the seed, the index and the
content, so that equal samples give equal bytes and others never share an identity.

The CT Image is DICOM PS3.3 A.3, the MR Image A.4, the attributes that mark synthetic data C.12.1.
No sequence made the MR slices: their scanning sequence is RM (research mode), and its times are
empty.  Rows run from
anterior to posterior and columns from the patient's right to the left, as viewers expect, so the
arrays are those of the sample with both axes turned.  Pixels are not compressed.
"""

import io
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import medaug
from medaug.core.errors import ConfigError, DataError, reason
from medaug.core.modality import CT, Modality
from medaug.core.types import Affine, Sample
from medaug.data.formats.limits import check_deflated
from medaug.synthesis.writers import inside

try:
    import highdicom
    from pydicom import Dataset, dcmread
    from pydicom.dataset import FileMetaDataset
    from pydicom.errors import InvalidDicomError
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
    from pydicom.valuerep import DSfloat
except ImportError as error:
    raise ConfigError(
        "format dicom needs the package highdicom: pip install medaug[dicom]"
    ) from error

DATE, TIME = "19700101", "000000"
"""Where DICOM wants a date, since equal samples are to give equal bytes."""

_NAMESPACE = uuid.UUID("5d0a3b52-94c4-5a2b-8d4c-6a4c2f3e9b17")
_LPS = np.diag([-1.0, -1.0, 1.0])  # RAS to LPS, its own inverse
_UNFIT = ValueError, TypeError, KeyError, AttributeError
_UTF8 = "ISO_IR 192"
_ROLES: dict[str, tuple[int, str]] = {
    "image": (1, "Synthetic {}, drawn by a model; not a patient"),
    "label": (2, "Labels of a synthetic {}; not a patient"),
    "std": (3, "Standard deviation over alternatives of a synthetic {}"),
    "entropy": (4, "Entropy of the votes on labels of a synthetic {}"),
}
"""Number and description of the series of each role, a place left for the modality."""


@dataclass(frozen=True)
class _Identity:
    """Who a sample is: everything that UIDs and descriptions are made from."""

    sample: Sample
    case: str
    modality: Modality

    @property
    def weights(self) -> str:
        return str(self.sample.origin.get("weights", "")) or "unknown"

    @property
    def seed(self) -> int:
        return int(self.sample.origin.get("seed", 0))

    @property
    def patient(self) -> str:
        return f"SYNTHETIC-{self.weights[:8]}-{self.seed}-{self.sample.index}"

    @property
    def description(self) -> str:
        return (
            f"Drawn by a generative model (medaug {medaug.__version__}, weights "
            f"{self.weights[:12]}, seed {self.seed}, sample {self.sample.index}); not a patient"
        )

    def digest(self) -> str:
        """Of all that the files show."""
        content = sha256(np.asarray(self.sample.affine, np.float64).tobytes())
        shown = self.sample.image, self.sample.label, self.sample.std, self.sample.entropy
        for array in shown:
            content.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
        return f"{self.weights}:{self.seed}:{self.sample.index}:{content.hexdigest()}"


class Dicom:
    """One image, one segmentation and up to two parametric maps a sample.

    Args:
        modality: of the samples.
    """

    def __init__(self, modality: Modality = CT) -> None:
        self.modality = modality

    def files(self, sample: Sample, case: str, level: int) -> dict[str, tuple[str, bytes]]:
        """See ``Writer.files``; ``level`` changes nothing."""
        who = _Identity(sample, case, self.modality)
        digest = who.digest()

        def uid(*address: str) -> str:
            return f"2.25.{uuid.uuid5(_NAMESPACE, ':'.join((digest, *address))).int}"

        image = _image(who, uid)
        objects = {"image": (f"{self.modality.name.lower()}/{case}", image)}
        if sample.label is not None:
            objects["label"] = (f"seg/{case}", _segmentation(who, image, uid))
        if len(sample.alternatives):
            objects["std"] = (f"uncertainty/{case}_std", _map(who, image, uid, "std"))
            if sample.entropy is not None:
                entropy = _map(who, image, uid, "entropy")
                objects["entropy"] = (f"uncertainty/{case}_entropy", entropy)
        return {role: (f"{name}.dcm", _encode(data)) for role, (name, data) in objects.items()}

    def read(self, folder: Path, row: Mapping[str, str]) -> Sample:
        """See ``Writer.read``."""
        with _decoded(inside(folder, row["image"])) as ct:
            image, affine = turned(ct.pixel_array).astype(np.int16), affine_of(ct)
        label, std = None, np.zeros(image.shape, np.float32)
        if row["label"]:
            with _decoded(inside(folder, row["label"])) as seg:
                label = _labels(seg, image.shape)
        if row["std"]:
            with _decoded(inside(folder, row["std"])) as spread:
                std = turned(spread.pixel_array.reshape(image.shape))
        return Sample(
            index=int(row["index"]),
            image=image,
            label=label,
            affine=affine,
            alternatives=image[None][:0],
            alternative_labels=None,
            std=std.astype(np.float32),
            entropy=None,
        )

    def about(self, kind: str, labels: Mapping[str, int], count: int) -> dict[str, bytes]:
        """Nothing: every file says what it is."""
        return {}


def turned(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A slice [y, x] in RAS+ as DICOM rows and columns, and back: both axes are reversed."""
    return np.ascontiguousarray(array[..., ::-1, ::-1])


def affine_of(ct: Dataset) -> Affine:
    """The affine, (x, y, z=0) of the array turned back to RAS+ mm, of a CT or MR image."""
    x, y = np.reshape(np.asarray(ct.ImageOrientationPatient, float), (2, 3))
    down, across = (float(value) for value in ct.PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = -_LPS @ x * across, -_LPS @ y * down
    affine[:3, 2] = _LPS @ np.cross(x, y) * float(ct.SliceThickness)
    first = _LPS @ np.asarray(ct.ImagePositionPatient, float)
    affine[:3, 3] = first - affine[:3, 0] * (ct.Columns - 1) - affine[:3, 1] * (ct.Rows - 1)
    return affine


def _image(who: _Identity, uid: Callable[..., str]) -> Dataset:
    sample, modality = who.sample, who.modality
    rows, columns = sample.image.shape
    affine = np.asarray(sample.affine, np.float64)
    x_mm, y_mm, z_mm = np.linalg.norm(affine[:3, :3], axis=0)
    first = _LPS @ (affine @ [columns - 1, rows - 1, 0, 1])[:3]
    along = -_LPS @ affine[:3, :2] / (x_mm, y_mm)
    data = Dataset()
    data.SpecificCharacterSet = _UTF8
    data.SOPClassUID = CTImageStorage if modality is CT else MRImageStorage
    data.SOPInstanceUID = uid("image")
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.PatientName, data.PatientID = "SYNTHETIC^MEDAUG", who.patient
    data.PatientBirthDate = data.PatientSex = ""
    data.StudyInstanceUID, data.StudyID = uid("study"), who.case[:16]
    data.StudyDate = data.StudyTime = data.AccessionNumber = data.ReferringPhysicianName = ""
    data.SeriesInstanceUID, data.FrameOfReferenceUID = uid("image", "series"), uid("frame")
    data.Modality, data.PatientPosition = modality.name, "HFS"
    data.PositionReferenceIndicator = ""
    data.SeriesNumber, data.InstanceNumber, data.AcquisitionNumber = 1, 1, ""
    data.ImageOrientationPatient = [_number(value) for value in along.T.ravel()]
    data.ImagePositionPatient = [_number(value) for value in first]
    data.PixelSpacing = [_number(y_mm), _number(x_mm)]
    data.SliceThickness = data.SpacingBetweenSlices = _number(z_mm)
    data.Rows, data.Columns = rows, columns
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit = 15
    low, high = modality.window
    data.WindowCenter, data.WindowWidth = round((low + high) / 2), round(high - low)
    if modality is CT:
        data.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
        data.KVP = ""
        data.PixelRepresentation = 1
        data.RescaleIntercept, data.RescaleSlope, data.RescaleType = 0, 1, "HU"
    else:
        data.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
        data.ScanningSequence, data.SequenceVariant = "RM", "NONE"
        data.ScanOptions = data.MRAcquisitionType = ""
        data.RepetitionTime = data.EchoTime = data.EchoTrainLength = ""
        data.PixelRepresentation = 0
    data.PixelData = turned(sample.image).astype("<i2" if modality is CT else "<u2").tobytes()
    _mark(data, who, "image")
    return data


def _segmentation(who: _Identity, ct: Dataset, uid: Callable[..., str]) -> Dataset:
    label = who.sample.label
    assert label is not None
    seen = np.unique(label[label > 0]).tolist() or [1]
    labels = who.sample.origin.get("labels") or {f"label {number}": number for number in seen}
    numbers = np.zeros(label.shape, np.uint8)
    segments = []
    for number, (name, value) in enumerate(sorted(labels.items(), key=lambda item: item[1]), 1):
        numbers[label == value] = number
        category, kind = _property(name)
        segments.append(
            highdicom.seg.SegmentDescription(
                segment_number=number,
                segment_label=name.replace("\\", "/")[:64],
                segmented_property_category=category,
                segmented_property_type=kind,
                algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
                algorithm_identification=highdicom.AlgorithmIdentificationSequence(
                    name="medaug",
                    family=codes.cid7162.ArtificialIntelligence,
                    version=medaug.__version__,
                ),
                tracking_uid=uid("segment", str(number)),
                tracking_id=str(value),
            )
        )
    data = highdicom.seg.Segmentation(
        source_images=[ct],
        pixel_array=turned(numbers)[None],
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        omit_empty_frames=bool(numbers.any()),
        content_label="SYNTHETIC_LABELS",
        **_common(who, uid, "label"),
    )
    _settle(data, who, uid, "label")
    return data


def _map(who: _Identity, ct: Dataset, uid: Callable[..., str], role: str) -> Dataset:
    values = who.sample.std if role == "std" else who.sample.entropy
    assert values is not None
    bits = Code("bit", "UCUM", "bit")
    unit, label, top = bits, "ENTROPY_BIT", 8.0
    if role == "std" and who.modality is CT:
        unit, label, top = codes.UCUM.HounsfieldUnit, "STD_HU", 4096.0
    elif role == "std":
        unit, label, top = codes.UCUM.NoUnits, "STD_THOUSANDTHS", 4096.0
    data = highdicom.pm.ParametricMap(
        source_images=[ct],
        pixel_array=turned(values).astype(np.float32)[None],
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[
            highdicom.pm.RealWorldValueMapping(
                lut_label=label,
                lut_explanation=_ROLES[role][1].format(who.modality.name),
                unit=unit,
                value_range=(0.0, top),
                slope=1,
                intercept=0,
            )
        ],
        voi_lut_transformations=[
            highdicom.VOILUTTransformation(window_center=top / 64, window_width=top / 32)
        ],
        content_label=label,
        **_common(who, uid, role),
    )
    _settle(data, who, uid, role)
    return data


def _common(who: _Identity, uid: Callable[..., str], role: str) -> dict[str, Any]:
    return {
        "series_instance_uid": uid(role, "series"),
        "series_number": _ROLES[role][0],
        "sop_instance_uid": uid(role),
        "instance_number": 1,
        "manufacturer": "medaug",
        "manufacturer_model_name": "medaug",
        "software_versions": medaug.__version__,
        "device_serial_number": who.weights[:16],
        "content_date": DATE,
        "content_time": TIME,
        "specific_character_set": _UTF8,
    }


def _settle(data: Dataset, who: _Identity, uid: Callable[..., str], role: str) -> None:
    """Replace what highdicom draws anew at every call, its clock and its random UID."""
    del data.InstanceCreationDate, data.InstanceCreationTime
    dimension = uid(role, "dimension")
    for item in (*data.DimensionOrganizationSequence, *data.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimension
    _mark(data, who, role)


def _mark(data: Dataset, who: _Identity, role: str) -> None:
    """Say that nobody was scanned, in every attribute meant for it."""
    data.SyntheticData = "YES"
    data.PatientIdentityRemoved = "YES"
    data.DeidentificationMethod = "Synthetic: drawn by a generative model; there is no patient"
    data.QualityControlSubject = data.QualityControlImage = "YES"
    data.BurnedInAnnotation = data.RecognizableVisualFeatures = "NO"
    data.LossyImageCompression = "00"
    data.StudyDescription = "Synthetic, made by medaug; not a patient"
    data.SeriesDescription = _ROLES[role][1].format(who.modality.name)
    data.DerivationDescription = who.description
    data.Manufacturer = data.ManufacturerModelName = "medaug"
    data.SoftwareVersions = medaug.__version__
    data.DeviceSerialNumber = who.weights[:16]
    data.ContributingEquipmentSequence = [
        highdicom.ContributingEquipment(
            manufacturer="medaug",
            purpose_of_reference=codes.DCM.SynthesizingEquipment,
            manufacturer_model_name="medaug",
            software_versions=medaug.__version__,
            device_serial_number=who.weights[:16],
            contribution_description=who.description,
        )
    ]


@lru_cache(maxsize=256)
def _property(name: str) -> tuple[Code, Code]:
    """Category and type of a label: what SNOMED CT has under its name, else some tissue."""
    keyword = "".join(part.capitalize() for part in name.replace("_", " ").split())
    if keyword in codes.cid7192.dir():
        return codes.cid7150.AnatomicalStructure, getattr(codes.cid7192, keyword)
    return codes.cid7150.Tissue, codes.SCT.Tissue


def _number(value: float) -> DSfloat:
    """A decimal string of at most 16 characters; no minus before a zero."""
    return DSfloat(float(value) + 0.0, auto_format=True)


def _encode(data: Dataset) -> bytes:
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@contextmanager
def _decoded(path: Path) -> Iterator[Dataset]:
    """The file with its pixels, for as long as what it says is made use of."""
    try:
        with path.open("rb") as stream:
            check_deflated(stream, path.name)
            data = dcmread(stream)
        if data.file_meta.TransferSyntaxUID.is_compressed:
            raise ValueError("compressed, as medaug never writes it")
        yield data
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file, though the manifest lists it") from error
    except (OSError, EOFError, *_UNFIT, InvalidDicomError) as error:
        raise DataError(f"{path}: not a readable DICOM file ({reason(error)})") from error


def _labels(data: Dataset, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """The label map of a segmentation; segments that show nothing have no frame."""
    label = np.zeros(shape, np.uint8)
    ids = {int(s.SegmentNumber): int(s.TrackingID) for s in data.SegmentSequence}
    frames = data.pixel_array.reshape(-1, *shape)
    (shared,) = data.SharedFunctionalGroupsSequence
    for frame, own in zip(frames, data.PerFrameFunctionalGroupsSequence, strict=True):
        group = own if "SegmentIdentificationSequence" in own else shared
        (segment,) = group.SegmentIdentificationSequence
        label[frame > 0] = ids[int(segment.ReferencedSegmentNumber)]
    return turned(label)
