"""DICOM Segmentation objects (SEG) as label maps on the grid of the scan they were drawn on.

A SEG stores only slices that are not empty, in any order and, depending on who wrote it, with rows
and columns that run in other directions than the scan's.  highdicom stacks its frames to a volume
by their positions; the scan's grid then says where that volume belongs.  A frame that names the
slice it was drawn on must lie on that slice.  DICOM PS3.3, A.51 and C.8.20.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom

from medaug.core import geometry
from medaug.core.errors import DataError
from medaug.core.types import Affine, LabelMap
from medaug.data.formats.archives import on_disk, opened
from medaug.data.formats.dicom_series import AGAIN, read_header, series_affine, tolerant
from medaug.data.formats.limits import check_deflated

EXTRA = "reading DICOM SEG labels needs the package highdicom: pip install medaug[dicom]"
_OFF_GRID = 0.1  # voxels; writers round positions, half a voxel is a mistake
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_HEADER = ["SegmentSequence", "ReferencedSeriesSequence", "Rows", "Columns"]


@dataclass(frozen=True)
class Segments:
    """What a SEG says it holds.

    Attributes:
        names: label, description and coded type of each segment, by its number.
        scan: SeriesInstanceUID of the images it was drawn on, or empty.
    """

    names: Mapping[int, str]
    scan: str


def segments(file: Path) -> Segments:
    """List the segments in ``file`` without reading a frame.

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
        raise _damaged(file) from error


def _name(segment: pydicom.Dataset) -> str:
    coded = segment.get("SegmentedPropertyTypeCodeSequence") or [pydicom.Dataset()]
    texts = (
        segment.get("SegmentLabel"),
        segment.get("SegmentDescription"),
        coded[0].get("CodeMeaning"),
    )
    return ", ".join(dict.fromkeys(str(text) for text in texts if text))


def read_segmentation(
    file: Path, known: Collection[int], ids: Mapping[int, int] | None, scan: Sequence[Path]
) -> tuple[LabelMap, Affine]:
    """Read a SEG as label ids ``[x, y, z]`` on the grid of its scan, with the scan's RAS+ affine.

    Args:
        file: the SEG.
        known: the ids that may occur besides 0.
        ids: which segment number becomes which id, others background; None keeps the numbers.
        scan: the DICOM files of the scan, in slice order.

    Raises:
        DataError: highdicom is not installed; the file is damaged; a frame is on another grid,
            beyond the scan, drawn on another slice than it lies on, or there twice; segments
            overlap, or hold probabilities.
    """
    if len(set(scan)) < max(2, len(scan)):
        raise DataError(f"{file.name} needs its scan as one file for each slice")
    first, last = read_header(scan[0]), read_header(scan[-1])
    affine = series_affine(first, last, len(scan))
    labels = np.zeros((len(scan), first.rows, first.columns), np.uint8)
    with on_disk([file]) as (local,):
        data = _parsed(local, geometry.spacing(affine)[2])
    # from mm in a DICOM header to x, y, z of the scan
    into = np.asarray(np.linalg.inv(affine) @ _LPS_TO_RAS, np.float64)
    _check_frames(file.name, data, into, labels.shape, _slice_uids(scan))
    for segment in data.segment_numbers:
        id = segment if ids is None else ids.get(segment, 0)
        marked = _on_scan(file.name, data, segment, into, labels.shape) if id else np.zeros(0, bool)
        if not marked.any():
            continue
        if id not in known:
            raise DataError(
                f"{file.name} holds segment {segment}, known labels are "
                f"{', '.join(str(v) for v in sorted(known))}"
            )
        if not np.isin(labels[marked], (0, id)).all():
            raise DataError(
                f"{file.name}: segment {segment} overlaps another label; a voxel can have one"
            )
        labels[marked] = id
    return np.ascontiguousarray(labels.transpose(2, 1, 0)), affine


def _damaged(file: Path) -> DataError:
    return DataError(f"{file.name} is not a whole DICOM segmentation; {AGAIN}")


def _parsed(file: Path, step_mm: float) -> Any:
    """The SEG with what highdicom needs to stack its frames.

    Scans without a slice thickness, as those of Pancreas-CT, pass the gap on to what is drawn on
    them.  The scan's slice distance says which slices lie between two frames.
    """
    try:
        import highdicom
    except ImportError as error:
        raise DataError(f"{file.name} is a DICOM SEG; {EXTRA}") from error
    try:
        with tolerant(), file.open("rb") as stream:
            check_deflated(stream, file.name)
            data = pydicom.dcmread(stream)
            for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
                for group in data.get(name) or ():
                    for measures in group.get("PixelMeasuresSequence") or ():
                        measures.SpacingBetweenSlices = pydicom.valuerep.DSfloat(step_mm, True)
                        if not measures.get("SliceThickness"):
                            measures.SliceThickness = 1.0
            return highdicom.seg.Segmentation.from_dataset(data, copy=False)
    except DataError:
        raise
    except Exception as error:  # a malformed file can make a parser raise anything
        raise _damaged(file) from error


def _check_frames(
    name: str, data: Any, into: Affine, shape: tuple[int, ...], slices: Mapping[str, int]
) -> None:
    """Refuse frames off the scan's grid, on one slice, or drawn on another slice than they lie on.

    Args:
        name: of the file.
        data: the parsed SEG.
        into: maps mm of DICOM (LPS) to x, y, z of the scan.
        shape: of the scan (z, y, x).
        slices: the number of each slice, from 0, by its SOPInstanceUID.
    """
    shared = (data.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()])[0]
    outline = None
    seen: dict[tuple[str, int], int] = {}
    for number, own in enumerate(data.PerFrameFunctionalGroupsSequence, 1):
        what = f"{name}: frame {number}"
        groups = {
            element.keyword: element.value[0]
            for element in (*shared, *own)
            if element.VR == "SQ" and len(element.value)
        }

        # Where do its first pixel, the last of its first row and the last of its first column lie?
        try:
            position = np.array(groups["PlanePositionSequence"].ImagePositionPatient, float)
            along = np.array(groups["PlaneOrientationSequence"].ImageOrientationPatient, float)
            down_mm, right_mm = (float(v) for v in groups["PixelMeasuresSequence"].PixelSpacing)
            across, down = int(data.Columns) - 1, int(data.Rows) - 1
            if min(across, down) < 0:
                raise ValueError("a frame without pixels")
            ends = np.outer([0, across, 0], along[:3] * right_mm)
            ends += np.outer([0, 0, down], along[3:] * down_mm) + position
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            raise DataError(f"{what} has no position or size in its header") from error
        exact = ends @ into[:3, :3].T + into[:3, 3]
        found = np.rint(exact)
        steps = np.abs(found[1:] - found[0]).tolist()
        upright = [[across, 0, 0], [0, down, 0]], [[0, across, 0], [down, 0, 0]]
        outline = found[:, :2] if outline is None else outline
        if (
            not np.abs(exact - found).max() <= _OFF_GRID
            or steps not in upright
            or (found[:, :2] != outline).any()
        ):
            raise DataError(f"{what} is on another grid than the scan; it belongs to another")
        if found.min() < 0 or (found >= shape[::-1]).any():
            raise DataError(f"{what} lies beyond the scan; it belongs to another")
        z = int(found[0, 2])

        # Is there another one of its segment?
        identity = groups.get("SegmentIdentificationSequence")
        of = f" of segment {identity.ReferencedSegmentNumber}" if identity else ""
        if seen.setdefault((of, z), number) != number:
            raise DataError(
                f"{name}: frames {seen[of, z]} and {number}{of} lie on one slice; {AGAIN}"
            )

        # Does it name another slice?
        sources = groups.get("DerivationImageSequence", {}).get("SourceImageSequence") or ()
        uids = [str(source.get("ReferencedSOPInstanceUID") or "") for source in sources]
        drawn_on = [slices[uid] for uid in uids if uid in slices]
        if uids and not drawn_on:
            raise DataError(f"{what} was drawn on an image of another series")
        if drawn_on and z not in drawn_on:
            raise DataError(
                f"{what} lies on slice {z + 1} of the scan, but was drawn on slice "
                f"{drawn_on[0] + 1}; its frames are in disorder"
            )


def _slice_uids(scan: Sequence[Path]) -> dict[str, int]:
    """The number of each slice, from 0, by its SOPInstanceUID."""
    found = {}
    for z, file in enumerate(scan):
        with opened(file) as stream:
            data = pydicom.dcmread(
                stream, stop_before_pixels=True, specific_tags=["SOPInstanceUID"]
            )
        found[str(data.get("SOPInstanceUID") or "")] = z
    return found


def _on_scan(
    name: str, data: Any, segment: int, into: Affine, shape: tuple[int, ...]
) -> npt.NDArray[np.bool_]:
    """The voxels of a segment on the scan's grid (z, y, x), on which its frames are known to lie.

    Args:
        name: of the file.
        data: the parsed SEG.
        segment: its number.
        into: maps mm of DICOM (LPS) to x, y, z of the scan.
        shape: of the scan (z, y, x).
    """
    import highdicom

    try:
        stack = data.get_volume(
            segment_numbers=[segment], rescale_fractional=False, rtol=2 * _OFF_GRID
        )
    except Exception as error:  # as in `_parsed`
        raise DataError(f"{name} is truncated or damaged; {AGAIN}") from error
    values = stack.array[..., 0]
    full = data.MaximumFractionalValue if data.SegmentationType == "FRACTIONAL" else 1
    if not np.isin(values, (0, full)).all():
        raise DataError(f"{name}: segment {segment} holds probabilities; a mask is needed")
    # In units of the scan's voxels, where rounding takes away what writers round otherwise.
    grid = np.rint(into @ stack.affine)[[2, 1, 0, 3]]
    marked = highdicom.Volume(values > 0, grid, "PATIENT")
    scan = highdicom.VolumeGeometry(np.eye(4), shape, "PATIENT")
    return np.asarray(marked.match_geometry(scan).array)
