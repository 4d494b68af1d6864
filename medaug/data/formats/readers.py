"""Readers for MONAI's ``LoadImage`` that check what they read and say what is wrong with it.

``SeriesReader`` reads a CT series of DICOM files through SimpleITK, several times faster than
MONAI's own readers, after the checks they all leave out: a slice missing or there twice, a
truncated file, slices of two series.  ``VolumeReader`` and ``LabelReader`` read NIfTI files
through MONAI's own reader, NRRD and MetaImage through SimpleITK.

``LoadImage`` swallows whatever a reader's ``read`` raises and tries the next reader, so the readers
here do their work, and raise, in ``get_data``.
"""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import ImageReader, NibabelReader
from monai.utils import MetaKeys, SpaceKeys

from medaug.core.errors import DataError
from medaug.core.geometry import HU_RANGE
from medaug.core.modality import CT, Modality, check_unitless, thousandths
from medaug.core.types import Affine
from medaug.data.formats.archives import on_disk
from medaug.data.formats.dicom_pixels import Place, decode
from medaug.data.formats.dicom_series import (
    Header,
    check_series,
    dicom_files,
    read_header,
    series_affine,
)
from medaug.data.formats.grids import check_geometry
from medaug.data.formats.volumes import DAMAGE, is_nifti, nifti_header, read_itk, voxels

LOSSY = "lossy"
"""In a volume's metadata: the compressions that have altered its pixels."""
UNKNOWN = "unknown"
"""In a volume's metadata: how many voxels are no finite number and were taken as background."""


def _meta(affine: Affine, shape: tuple[int, ...]) -> dict[str, Any]:
    return {
        MetaKeys.AFFINE: affine,
        MetaKeys.ORIGINAL_AFFINE: affine.copy(),
        MetaKeys.SPATIAL_SHAPE: np.array(shape),
        MetaKeys.SPACE: SpaceKeys.RAS,
        MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),
    }


def _laid_out(values: np.ndarray, dtype: type[np.generic]) -> np.ndarray:
    """``values`` [x, y, z] as ``dtype`` in C order, HU clipped to what CT stores.

    Files keep x fastest.  A row of slices at a time stays within the processor's cache, which makes
    this several times faster than the copy that MONAI would make otherwise.
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


def _stored(values: np.ndarray, modality: Modality) -> np.ndarray:
    """``values`` [x, y, z] as a cache keeps them: int16 HU, or thousandths of the scan's range."""
    if modality is CT:
        return _laid_out(values, np.int16)
    check_unitless(values)
    return _laid_out(thousandths(values), np.int16)


class SeriesReader(ImageReader):
    """A DICOM series as int16 ``[x, y, z]`` with its RAS+ affine.

    Args:
        checked: the files come in the order of `check_series`, which need not be run again.
        starts_at: InstanceNumber of the first slice; None for series cut out of longer ones.
        modality: CT comes in HU, MR in thousandths of its own range.
    """

    def __init__(
        self, checked: bool = False, starts_at: int | None = 1, modality: Modality = CT
    ) -> None:
        self.checked, self.starts_at, self.modality = checked, starts_at, modality

    def verify_suffix(self, filename: Sequence[os.PathLike] | os.PathLike) -> bool:
        """Whether the files could be a series of DICOM slices."""
        names = [filename] if isinstance(filename, str | os.PathLike) else list(filename)
        return bool(names) and all(str(name).lower().endswith(".dcm") for name in names)

    def read(self, data: Any, **kwargs: Any) -> tuple[Path, ...]:
        """The files of the series; a folder stands for the ``.dcm`` files in it."""
        names = [data] if isinstance(data, str | os.PathLike) else list(data)
        if len(names) == 1 and Path(names[0]).is_dir():
            return tuple(dicom_files(Path(names[0])))
        return tuple(Path(name) for name in names)

    def get_data(self, img: tuple[Path, ...]) -> tuple[np.ndarray, dict[str, Any]]:
        """Decode the series.

        Raises:
            DataError: the series is not complete, or a file cannot be decoded.
        """
        with on_disk(img) as files:
            first, last, places = self._listed(files)
            values, syntaxes = decode(places)
        lossy = sorted(s.name for s in syntaxes if s.lossy)
        stored = _stored(values.transpose(2, 1, 0), self.modality)
        meta = _meta(series_affine(first, last, len(places)), stored.shape)
        if lossy or first.lossy or last.lossy:
            meta[LOSSY] = ", ".join(lossy) or "an earlier, unnamed compression"
        return stored, meta

    def _listed(self, files: tuple[Path, ...]) -> tuple[Header, Header, list[Place]]:
        """The two ends of the series, and where its slices are, in their order."""
        if self.checked:
            first, last = read_header(files[0]), read_header(files[-1])
            if first.frame is None:
                return first, last, [Place(file) for file in files]
            files = tuple(dict.fromkeys(files))
        headers = check_series(files, None if self.checked else self.starts_at)
        places = [Place(h.file, h.frame, h.slope, h.intercept) for h in headers]
        return headers[0], headers[-1], places


class _CheckedReader(NibabelReader):
    """MONAI's NIfTI reader, reading late, telling a damaged file by name, and ITK's files too."""

    def __init__(self) -> None:
        super().__init__(squeeze_non_spatial_dims=True)

    def read(self, data: Any, **kwargs: Any) -> Any:
        names = [data] if isinstance(data, str | os.PathLike) else list(data)
        return Path(names[0])

    def get_data(self, img: Any) -> tuple[np.ndarray, dict[str, Any]]:
        with on_disk([img]) as (file,):
            return self._decoded(file)

    def _decoded(self, img: Path) -> tuple[np.ndarray, dict[str, Any]]:
        if not is_nifti(img):
            values, affine = read_itk(img)
            return values, _meta(affine, values.shape)
        nifti_header(img)
        try:
            values, meta = super().get_data(super().read([img]))
        except DAMAGE as error:
            raise DataError(f"{img.name} is truncated or damaged") from error
        return values, _meta(np.asarray(meta[MetaKeys.AFFINE], float), values.shape)

    def _get_array_data(self, img: Any, filename: Any) -> np.ndarray:
        return voxels(img)


class VolumeReader(_CheckedReader):
    """A volume file as int16 ``[x, y, z]``.

    Args:
        modality: CT comes in HU, fractions rounded; MR in thousandths of its own range.
    """

    def __init__(self, modality: Modality = CT) -> None:
        super().__init__()
        self.modality = modality

    def get_data(self, img: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """Read the voxels.

        Raises:
            DataError: a CT scan has infinite values.
        """
        values, meta = super().get_data(img)
        if values.dtype.kind == "f":
            unknown = values.size - int(np.count_nonzero(np.isfinite(values)))
            infinite = int(np.count_nonzero(np.isinf(values))) if unknown else 0
            if infinite and self.modality is CT:
                raise DataError(
                    f"{Path(img).name} has {infinite} infinite values; CT in HU has none, and "
                    "NaN where nothing was measured"
                )
            if unknown:
                meta[UNKNOWN] = unknown
        return _stored(values, self.modality), meta


class LabelReader(_CheckedReader):
    """A label map as uint8 ``[x, y, z]``.

    Args:
        known: the ids that may occur besides 0.
        ids: which stored value becomes which id, others background; None keeps them as they are.
        strict: a stored value that ``ids`` does not name is an error instead.
    """

    def __init__(
        self,
        known: Collection[int],
        ids: Mapping[int, int] | None = None,
        strict: bool = False,
    ) -> None:
        super().__init__()
        self.known = {0, *known}
        self.ids = None if ids is None else dict(ids)
        self.strict = strict

    def get_data(self, img: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """Read the ids, whatever the type they are stored in.

        Raises:
            DataError: a value that is no known id.
        """
        values, meta = super().get_data(img)
        if self.ids is not None and self.strict:
            self._check(img, values, {0, *self.ids})
        if self.ids is not None:
            values = _renumbered(values, self.ids)
        marked = self._check(img, values, self.known)
        labels = np.zeros(values.shape, np.uint8)
        if marked:
            held = slice(marked[0], marked[-1] + 1)
            labels[:, :, held] = _laid_out(values[:, :, held], np.uint8)
        return labels, meta

    def _check(self, img: Path, values: np.ndarray, known: Collection[int]) -> list[int]:
        """Refuse values that are not known; returns the slices that hold any."""
        marked = [z for z in range(values.shape[2]) if values[:, :, z].any()]
        for value in _distinct(values, marked):
            if value not in known:
                raise DataError(
                    f"{img.name} holds the value {value:g}, known labels are "
                    f"{', '.join(str(v) for v in sorted(known))}"
                )
        return marked


class MasksReader(ImageReader):
    """Binary masks, a file for each label, as one uint8 label map ``[x, y, z]``.

    Where masks overlap, the later file covers the earlier one.

    Args:
        ids: of the files, in their order.
    """

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = list(ids)

    def verify_suffix(self, filename: Sequence[os.PathLike] | os.PathLike) -> bool:
        """Whether there is a file for each id."""
        return not isinstance(filename, str | os.PathLike) and len(filename) == len(self.ids)

    def read(self, data: Any, **kwargs: Any) -> tuple[Path, ...]:
        """The files of the masks."""
        return tuple(Path(name) for name in data)

    def get_data(self, img: tuple[Path, ...]) -> tuple[np.ndarray, dict[str, Any]]:
        """Read the masks and lay them over each other.

        Raises:
            DataError: a mask that is not binary, or not on the grid of the first.
        """
        reader = _CheckedReader()
        labels, first = np.empty(0, np.uint8), None
        for file, id in zip(img, self.ids, strict=True):
            values, meta = reader.get_data(file)
            affine = meta[MetaKeys.AFFINE]
            if first is None:
                labels, first = np.zeros(values.shape, np.uint8), meta
            check_geometry(labels.shape, first[MetaKeys.AFFINE], values.shape, affine)
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


def _renumbered(values: np.ndarray, ids: Mapping[int, int]) -> np.ndarray:
    """Stored values as ids, uint8; what ``ids`` does not name becomes 0."""
    renumbered = np.zeros(values.shape, np.uint8, order="F")
    for value, id in ids.items():
        renumbered[values == value] = id
    return renumbered


def _distinct(values: np.ndarray, slices: Iterable[int]) -> list[float]:
    """The distinct values besides 0 in some slices, ascending."""
    found: set[float] = set()
    for z in slices:
        marked = values[:, :, z].ravel(order="K")
        found.update(np.unique(marked[marked != 0]).tolist())
    return sorted(found)
