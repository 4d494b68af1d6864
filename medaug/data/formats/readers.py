"""Read scans and label maps, checking on the way, and say what is wrong in one sentence.

DICOM series are decoded slice by slice, after the checks that other readers leave out: a slice
missing or there twice, a truncated file, slices of two series.  NIfTI files are read by nibabel,
NRRD and MetaImage files by SimpleITK, DICOM SEG files by highdicom.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from medaug.core.errors import DataError
from medaug.core.geometry import HU_RANGE
from medaug.core.modality import CT, Modality, check_unitless, thousandths
from medaug.core.types import Affine, LabelFiles, LabelMap
from medaug.data.formats.archives import on_disk
from medaug.data.formats.dicom_pixels import Place, decode
from medaug.data.formats.dicom_seg import read_segmentation
from medaug.data.formats.dicom_series import Header, check_series, read_header, series_affine
from medaug.data.formats.grids import check_geometry
from medaug.data.formats.volumes import DAMAGE, is_nifti, nifti_header, read_itk, voxels


class Volume(NamedTuple):
    """A scan in memory, as its files store it.

    Attributes:
        voxels: int16 ``[x, y, z]`` in C order: CT in HU, MR in thousandths of its own range.
        affine: maps voxel indices to RAS+ mm.
        lossy: names of the lossy compressions that altered the voxels; empty without any.
        unknown: how many voxels are no finite number and were taken as background.
    """

    voxels: npt.NDArray[np.int16]
    affine: Affine
    lossy: str = ""
    unknown: int = 0


def read_series(
    files: Sequence[Path],
    *,
    checked: bool = False,
    starts_at: int | None = 1,
    modality: Modality = CT,
) -> Volume:
    """Read a DICOM series.

    Args:
        files: of the series.
        checked: the files come in the order of `check_series`, which need not be run again.
        starts_at: InstanceNumber of the first slice; None for series cut out of longer ones.
        modality: CT comes in HU, MR in thousandths of its own range.

    Raises:
        DataError: the series is not complete, or a file cannot be decoded.
    """
    with on_disk(files) as local:
        first, last, places = _slices(local, checked, starts_at)
        values, syntaxes = decode(places)
    lossy = ", ".join(sorted(syntax.name for syntax in syntaxes if syntax.lossy))
    if not lossy and (first.lossy or last.lossy):
        lossy = "an earlier, unnamed compression"
    stored = _stored(values.transpose(2, 1, 0), modality)
    return Volume(stored, series_affine(first, last, len(places)), lossy)


def _slices(
    files: Sequence[Path], checked: bool, starts_at: int | None
) -> tuple[Header, Header, list[Place]]:
    """The headers of the first and the last slice, and where all slices are, in their order."""
    if checked:
        first, last = read_header(files[0]), read_header(files[-1])
        if first.frame is None:
            return first, last, [Place(file) for file in files]
        files, starts_at = tuple(dict.fromkeys(files)), None
    headers = check_series(files, starts_at)
    places = [Place(h.file, h.frame, h.slope, h.intercept) for h in headers]
    return headers[0], headers[-1], places


def read_volume(file: Path, modality: Modality = CT) -> Volume:
    """Read a NIfTI, NRRD or MetaImage file of a scan.

    Args:
        file: on disk or in an archive.
        modality: CT comes in HU, fractions rounded; MR in thousandths of its own range.

    Raises:
        DataError: not such a file, damaged, or CT with infinite values.
    """
    values, affine = _values(file)
    unknown = 0
    if values.dtype.kind == "f":
        unknown = values.size - int(np.count_nonzero(np.isfinite(values)))
        infinite = int(np.count_nonzero(np.isinf(values))) if unknown else 0
        if infinite and modality is CT:
            raise DataError(
                f"{file.name} has {infinite} infinite values; CT in HU has none, and "
                "NaN where nothing was measured"
            )
    return Volume(_stored(values, modality), affine, unknown=unknown)


def read_labels(files: LabelFiles, known: Collection[int]) -> tuple[LabelMap, Affine]:
    """Read the label map of one scan, whatever the form it is kept in.

    Args:
        files: a label map, binary masks, or a DICOM SEG.
        known: the ids that the result may hold besides 0.

    Returns:
        uint8 ids ``[x, y, z]`` and their RAS+ affine.

    Raises:
        DataError: a file cannot be read, or holds a value that is no known id.
    """
    if files.each is not None:
        ids = files.ids or {}
        return read_masks(files.files, [ids.get(value, value) for value in files.each])
    if files.files[0].suffix.lower() == ".dcm":
        return read_segmentation(files.files[0], known, files.ids, files.scan)
    return read_label_map(files.files[0], known, files.ids, files.strict)


def read_label_map(
    file: Path,
    known: Collection[int],
    ids: Mapping[int, int] | None = None,
    strict: bool = False,
) -> tuple[LabelMap, Affine]:
    """Read ids, whatever the type they are stored in, as uint8 ``[x, y, z]``, with their affine.

    Args:
        file: NIfTI, NRRD or MetaImage.
        known: the ids that may occur besides 0.
        ids: which stored value becomes which id, others background; None keeps them as they are.
        strict: a stored value that ``ids`` does not name is an error instead.

    Raises:
        DataError: not such a file, damaged, or with a value that is no known id.
    """
    values, affine = _values(file)
    if ids is not None and strict:
        _check_ids(file, values, {0, *ids})
    if ids is not None:
        values = _renumbered(values, ids)
    marked = _check_ids(file, values, {0, *known})
    labels = np.zeros(values.shape, np.uint8)
    if marked:
        held = slice(marked[0], marked[-1] + 1)
        labels[:, :, held] = _laid_out(values[:, :, held], np.uint8)
    return labels, affine


def read_masks(files: Sequence[Path], ids: Sequence[int]) -> tuple[LabelMap, Affine]:
    """Read binary masks, a file for each label, as one label map ``[x, y, z]`` with its affine.

    Where masks overlap, the later file covers the earlier one.

    Args:
        files: NIfTI, NRRD or MetaImage.
        ids: of the files, in their order.

    Raises:
        DataError: no mask, one that is not binary, or one not on the grid of the first.
    """
    labels, first = np.empty(0, np.uint8), None
    for file, id in zip(files, ids, strict=True):
        values, affine = _values(file)
        if first is None:
            labels, first = np.zeros(values.shape, np.uint8), affine
        check_geometry(labels.shape, first, values.shape, affine)
        inside = values != 0
        if len(np.unique(values[inside])) > 1:
            raise DataError(
                f"{file.name} is no binary mask: it holds values from "
                f"{values.min():g} to {values.max():g}"
            )
        labels[inside] = id
    if first is None:
        raise DataError("no mask was given")
    return labels, first


def _values(file: Path) -> tuple[npt.NDArray[Any], Affine]:
    """The voxels ``[x, y, z]`` of a volume file in the type they are stored in, and their affine.

    Raises:
        DataError: not such a file, or damaged.
    """
    with on_disk([file]) as (local,):
        if not is_nifti(local):
            return read_itk(local)
        image = nifti_header(local)
        try:
            values = voxels(image)
        except DAMAGE as error:
            raise DataError(f"{file.name} is truncated or damaged") from error
    return values.reshape(values.shape[:3]), np.array(image.affine, float)


def _stored(values: npt.NDArray[Any], modality: Modality) -> npt.NDArray[np.int16]:
    """``values`` [x, y, z] as a cache keeps them: int16 HU, or thousandths of the scan's range."""
    if modality is not CT:
        check_unitless(values)
        values = thousandths(values)
    return _laid_out(values, np.int16)


def _laid_out(values: npt.NDArray[Any], dtype: type[np.generic]) -> npt.NDArray[Any]:
    """``values`` [x, y, z] as ``dtype`` in C order, HU clipped to what CT stores.

    Files keep x fastest.  A row of slices at a time stays within the processor's cache, which makes
    this several times faster than one copy of the whole.
    """
    laid_out = np.empty(values.shape, dtype)
    for y in range(values.shape[1]):
        row = values[:, y, :].T
        if row.dtype.kind == "f":
            row = np.rint(np.nan_to_num(row, nan=HU_RANGE[0]))
        if row.dtype != dtype and dtype is np.int16:
            row = np.clip(row, *HU_RANGE)
        laid_out[:, y, :] = row.T
    return laid_out


def _check_ids(file: Path, values: npt.NDArray[Any], known: Collection[int]) -> list[int]:
    """Refuse values that are not known; returns the numbers of the slices that hold any."""
    marked = [z for z in range(values.shape[2]) if values[:, :, z].any()]
    found: set[float] = set()
    for z in marked:
        plane = values[:, :, z].ravel(order="K")
        found.update(np.unique(plane[plane != 0]).tolist())
    for value in sorted(found):
        if value not in known:
            raise DataError(
                f"{file.name} holds the value {value:g}, known labels are "
                f"{', '.join(str(v) for v in sorted(known))}"
            )
    return marked


def _renumbered(values: npt.NDArray[Any], ids: Mapping[int, int]) -> LabelMap:
    """Stored values as ids, uint8; what ``ids`` does not name becomes 0."""
    renumbered = np.zeros(values.shape, np.uint8, order="F")
    for value, id in ids.items():
        renumbered[values == value] = id
    return renumbered
