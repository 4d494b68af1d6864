"""DICOM Segmentation objects as labels: frames placed on the scan's grid by their position.

A SEG stores only slices that are not empty, in any order and, depending on who wrote it, with
rows and columns running another way than the scan's.  Where a frame lies is what its position and
orientation say; where it names the slice it was drawn on, the two must agree.
DICOM PS3.3, A.51 and C.8.20.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from monai.data import ImageReader
from monai.utils import MetaKeys, SpaceKeys

from medaug.core.errors import DataError
from medaug.core.types import Affine, LabelMap
from medaug.data.formats.archives import on_disk, opened
from medaug.data.formats.dicom_series import AGAIN, read_header, series_affine, tolerant
from medaug.data.formats.limits import check_deflated

EXTRA = "reading DICOM SEG labels needs the package highdicom: pip install medaug[dicom]"
_OFF_GRID = 0.1  # voxels; writers round positions, half a voxel is a mistake
_TO_RAS = np.diag([-1.0, -1.0, 1.0])
_HEADER = ["SegmentSequence", "ReferencedSeriesSequence", "Rows", "Columns"]


@dataclass(frozen=True)
class Segments:
    """What a SEG says it holds.

    Attributes:
        names: of each segment by its number: its label, description and coded type.
        scan: SeriesInstanceUID of the images it was drawn on, or empty.
    """

    names: Mapping[int, str]
    scan: str


def segments(file: Path) -> Segments:
    """The segments in ``file``, no frame read.

    Raises:
        DataError: not a DICOM SEG.
    """
    try:
        with tolerant(), opened(file) as stream:
            check_deflated(stream, file.name)
            data = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=_HEADER)
        names = {int(s.SegmentNumber): _name(s) for s in data.SegmentSequence}
        referenced = data.get("ReferencedSeriesSequence") or [pydicom.Dataset()]
        return Segments(names, str(referenced[0].get("SeriesInstanceUID") or ""))
    except DataError:
        raise
    except Exception as error:  # a malformed file can make a parser raise anything
        raise DataError(f"{file.name} is not a whole DICOM segmentation; {AGAIN}") from error


def _name(segment: pydicom.Dataset) -> str:
    coded = segment.get("SegmentedPropertyTypeCodeSequence") or [pydicom.Dataset()]
    told = (
        segment.get("SegmentLabel"),
        segment.get("SegmentDescription"),
        coded[0].get("CodeMeaning"),
    )
    return ", ".join(dict.fromkeys(str(name) for name in told if name))


class SegmentationReader(ImageReader):
    """A DICOM SEG as uint8 ``[x, y, z]`` on the grid of the scan it was drawn on.

    Args:
        known: the ids that may occur besides 0.
        ids: which segment number becomes which id, others background; None keeps the numbers.
        scan: the DICOM files of the scan, in slice order.
    """

    def __init__(
        self, known: Collection[int], ids: Mapping[int, int] | None, scan: Sequence[Path]
    ) -> None:
        self.known, self.ids, self.scan = set(known), ids, tuple(scan)

    def verify_suffix(self, filename: Sequence[os.PathLike] | os.PathLike) -> bool:
        """Whether the file could be DICOM."""
        names = [filename] if isinstance(filename, str | os.PathLike) else list(filename)
        return len(names) == 1 and str(names[0]).lower().endswith(".dcm")

    def read(self, data: Any, **kwargs: Any) -> Path:
        """The file."""
        names = [data] if isinstance(data, str | os.PathLike) else list(data)
        return Path(names[0])

    def get_data(self, img: Path) -> tuple[LabelMap, dict[str, Any]]:
        """Place the frames.

        Raises:
            DataError: highdicom is not installed; the file is damaged; a frame is on another grid,
                beyond the scan, drawn on another slice than it lies on, or there twice; segments
                overlap, or hold probabilities.
        """
        if len(set(self.scan)) < max(2, len(self.scan)):
            raise DataError(f"{img.name} needs its scan as one file for each slice")
        first, last = read_header(self.scan[0]), read_header(self.scan[-1])
        affine = series_affine(first, last, len(self.scan))
        labels = np.zeros((first.columns, first.rows, len(self.scan)), np.uint8)
        with on_disk([img]) as (file,):
            data = _parsed(file)
        slices = _slice_uids(self.scan)
        seen: dict[tuple[int, int], int] = {}
        for number in range(1, int(data.NumberOfFrames) + 1):
            groups = _groups(data, number)
            where = _Placement(f"{img.name}: frame {number}", groups, data, affine, labels.shape)
            _check_drawn_on(where, groups, slices)
            for segment, marked in _marked(data, number, groups, where.what).items():
                if seen.setdefault((segment, where.z), number) != number:
                    raise DataError(
                        f"{img.name}: frames {seen[segment, where.z]} and {number} of segment "
                        f"{segment} lie on one slice; {AGAIN}"
                    )
                self._add(labels, where, segment, marked)
        return labels, {
            MetaKeys.AFFINE: affine,
            MetaKeys.ORIGINAL_AFFINE: affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.array(labels.shape),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),
        }

    def _add(self, labels: LabelMap, where: "_Placement", segment: int, marked: np.ndarray) -> None:
        id = segment if self.ids is None else self.ids.get(segment, 0)
        if id == 0 or not marked.any():
            return
        if id not in self.known:
            raise DataError(
                f"{where.what} is of segment {segment}, known labels are "
                f"{', '.join(str(v) for v in sorted(self.known))}"
            )
        plane = labels[:, :, where.z]
        here = where.on_grid(marked)
        if ((plane[here] != 0) & (plane[here] != id)).any():
            raise DataError(f"{where.what} overlaps another label; a voxel can have one")
        plane[here] = id


class _Placement:
    """Where a frame lies on the scan's grid."""

    def __init__(
        self,
        what: str,
        groups: Mapping[str, pydicom.Dataset],
        data: pydicom.Dataset,
        affine: Affine,
        shape: tuple[int, ...],
    ) -> None:
        self.what = what
        try:
            position = np.array(groups["PlanePositionSequence"].ImagePositionPatient, float)
            along = np.array(groups["PlaneOrientationSequence"].ImageOrientationPatient, float)
            down_mm, right_mm = (float(v) for v in groups["PixelMeasuresSequence"].PixelSpacing)
            columns, rows = int(data.Columns), int(data.Rows)
            if columns < 1 or rows < 1:
                raise ValueError("a frame without pixels")
            into = np.linalg.inv(affine)
            start = into[:3, :3] @ _TO_RAS @ position + into[:3, 3]
            right, down = (
                into[:3, :3] @ _TO_RAS @ step
                for step in (along[:3] * right_mm, along[3:] * down_mm)
            )
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            raise DataError(f"{what} has no position or size in its header") from error
        whole = np.rint(start)
        steps = np.rint([right, down])
        off = max(
            np.abs(start - whole).max(),
            np.abs(right - steps[0]).max() * columns,
            np.abs(down - steps[1]).max() * rows,
        )
        axes = [np.flatnonzero(step) for step in steps]
        in_plane = sorted(int(a) for axis in axes for a in axis) == [0, 1]
        if not np.isfinite(off) or off > _OFF_GRID or not in_plane or np.abs(steps).max() != 1:
            raise DataError(f"{what} is on another grid than the scan; it belongs to another")
        self.z = int(whole[2])
        self.transposed = int(axes[0][0]) == 1
        self.x, self.y = (
            int(whole[axis]) + int(steps[by][axis]) * np.arange((columns, rows)[by])
            for axis, by in ((0, int(self.transposed)), (1, 1 - int(self.transposed)))
        )
        inside = 0 <= self.z < shape[2] and all(
            line.min() >= 0 and line.max() < n
            for line, n in zip((self.x, self.y), shape, strict=False)
        )
        if not inside:
            raise DataError(f"{what} lies beyond the scan; it belongs to another")

    def on_grid(self, marked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Indices (x, y) of the marked pixels [row, column]."""
        rows, columns = np.nonzero(marked)
        across, down = (rows, columns) if self.transposed else (columns, rows)
        return self.x[across], self.y[down]


def _parsed(file: Path) -> Any:
    try:
        import highdicom
    except ImportError as error:
        raise DataError(f"{file.name} is a DICOM SEG; {EXTRA}") from error
    try:
        with tolerant():
            return highdicom.seg.Segmentation.from_dataset(_with_thickness(file), copy=False)
    except DataError:
        raise
    except Exception as error:  # a malformed file can make a parser raise anything
        raise DataError(f"{file.name} is not a whole DICOM segmentation; {AGAIN}") from error


def _with_thickness(file: Path) -> pydicom.Dataset:
    """The file with a slice thickness, which highdicom asks for and nothing here depends on.

    Scans without one, as those of Pancreas-CT, hand the want down to what is drawn on them.
    """
    with file.open("rb") as stream:
        check_deflated(stream, file.name)
        data = pydicom.dcmread(stream)
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in data.get(name) or ():
            for measures in group.get("PixelMeasuresSequence") or ():
                if not measures.get("SliceThickness"):
                    measures.SliceThickness = 1.0
    return data


def _groups(data: pydicom.Dataset, number: int) -> dict[str, pydicom.Dataset]:
    """The functional groups of a frame, its own before the shared ones, by keyword."""
    shared = data.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()]
    own = data.get("PerFrameFunctionalGroupsSequence") or []
    found: dict[str, pydicom.Dataset] = {}
    for group in (shared[0], *own[number - 1 : number]):
        for element in group:
            if element.VR == "SQ" and len(element.value):
                found[element.keyword] = element.value[0]
    return found


def _slice_uids(scan: Sequence[Path]) -> dict[str, int]:
    """Which slice has which SOPInstanceUID, from 0."""
    found = {}
    for z, file in enumerate(scan):
        with opened(file) as stream:
            data = pydicom.dcmread(
                stream, stop_before_pixels=True, specific_tags=["SOPInstanceUID"]
            )
        found[str(data.get("SOPInstanceUID") or "")] = z
    return found


def _check_drawn_on(
    where: _Placement, groups: Mapping[str, pydicom.Dataset], slices: Mapping[str, int]
) -> None:
    """Refuse a frame whose position contradicts the image that it says it was drawn on."""
    sources = groups.get("DerivationImageSequence", pydicom.Dataset()).get("SourceImageSequence")
    named = [str(s.get("ReferencedSOPInstanceUID") or "") for s in sources or ()]
    drawn_on = [slices[uid] for uid in named if uid in slices]
    if named and not drawn_on:
        raise DataError(f"{where.what} was drawn on an image of another series")
    if drawn_on and where.z not in drawn_on:
        raise DataError(
            f"{where.what} lies on slice {where.z + 1} of the scan, but was drawn on slice "
            f"{drawn_on[0] + 1}; its frames are in disorder"
        )


def _marked(
    data: Any, number: int, groups: Mapping[str, pydicom.Dataset], what: str
) -> dict[int, np.ndarray]:
    """Which pixels [row, column] of a frame are of which segment."""
    try:
        values = data.get_stored_frame(number)
        if data.SegmentationType == "LABELMAP":
            return {int(v): values == v for v in np.unique(values) if v}
        segment = int(groups["SegmentIdentificationSequence"].ReferencedSegmentNumber)
    except Exception as error:  # as in `_parsed`
        raise DataError(f"{what} is truncated or damaged; {AGAIN}") from error
    full = data.get("MaximumFractionalValue") if data.SegmentationType == "FRACTIONAL" else 1
    if not np.isin(values, (0, full)).all():
        raise DataError(f"{what} holds probabilities; a mask is needed")
    return {segment: values != 0}
