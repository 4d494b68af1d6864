"""From the files of a case to its slices, checked and canonical: one MONAI pipeline.

    LoadImaged -> EnsureChannelFirstd -> CheckHUd -> CheckPaird -> Canonicald
        -> Judged -> InPlaned

Volumes stay int16 and uint8 from file to slice; a 512 x 512 x 240 scan takes well under 1.5 GB.
"""

import logging
import warnings
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import ImageReader, MetaTensor
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    MapTransform,
)

from medaug.core import geometry
from medaug.core.errors import ConfigError, DataError, MedaugError
from medaug.core.modality import CT, Modality, check_hu
from medaug.core.types import HU, Affine, Case, LabelMap
from medaug.data.checks import battery, reduce
from medaug.data.checks.likeness import likeness
from medaug.data.formats.canonical import Canonicald
from medaug.data.formats.grids import check_pair
from medaug.data.formats.labels import reader_of
from medaug.data.formats.readers import LOSSY, UNKNOWN, SeriesReader, VolumeReader
from medaug.data.formats.volumes import suffix

Center = Callable[[np.ndarray, np.ndarray, Affine, Modality], tuple[float, float]]
CENTERS: dict[str, Center] = {
    "body": lambda image, label, affine, seen: geometry.body_center(image, affine, seen),
    "image": lambda image, label, affine, seen: (
        (image.shape[0] - 1) / 2,
        (image.shape[1] - 1) / 2,
    ),
    "label": lambda image, label, affine, seen: (
        geometry.label_center(label) or geometry.body_center(image, affine, seen)
    ),
}


def _array(volume: MetaTensor) -> np.ndarray:
    """The voxels ``[x, y, z]`` of a single-channel volume, not copied."""
    return volume.as_tensor()[0].numpy()


def _affine(volume: MetaTensor) -> Affine:
    return np.asarray(volume.affine, dtype=np.float64)


class CheckHUd(MapTransform):
    """Refuses CT that is plainly not in HU; passes the others unchanged.

    Raises:
        DataError: neither air nor fat is in it.
    """

    def __init__(self, image: Hashable = "image") -> None:
        super().__init__([image])

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check the image."""
        check_hu(_array(data[self.keys[0]]))
        return dict(data)


class CheckPaird(MapTransform):
    """Refuses an image and a label that do not belong together; passes the others unchanged.

    Raises:
        DataError: other shape or other affine.
    """

    def __init__(self, image: Hashable = "image", label: Hashable = "label") -> None:
        super().__init__([image, label])

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check the pair."""
        image, label = (data[key] for key in self.keys)
        check_pair(tuple(image.shape[1:]), _affine(image), tuple(label.shape[1:]), _affine(label))
        return dict(data)


class EmptyLabeld(MapTransform):
    """Adds a label of zeros on the grid of the image, for scans that have none."""

    def __init__(self, image: Hashable = "image", label: Hashable = "label") -> None:
        super().__init__([image])
        self.label = label

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add it."""
        image = data[self.keys[0]]
        empty = torch.zeros(image.shape, dtype=torch.uint8)
        return {**data, self.label: MetaTensor(empty, affine=image.affine)}


class Judged(MapTransform):
    """Refuses a RAS scan that does not pass the battery of `medaug.data.checks`.

    The others gain ``findings``, what is doubtful about them, and ``likeness``, by which the same
    scan is known under another name.

    Args:
        case: the scan's id.
        labeled: whether the label says anything.
        modality: of the image.

    Raises:
        DataError: the reason of every check that refuses the scan.
    """

    def __init__(
        self,
        case: str,
        labeled: bool,
        image: Hashable = "image",
        label: Hashable = "label",
        modality: Modality = CT,
    ) -> None:
        super().__init__([image, label])
        self.case, self.labeled, self.modality = case, labeled, modality

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Judge the scan."""
        image, label = (data[key] for key in self.keys)
        pixels, affine = _array(image), _affine(image)
        reduced = reduce(pixels, affine, self.modality)
        marks = _array(label) if self.labeled else None
        told = _lossy(image), _unknown(image)
        findings = battery(self.case, pixels, marks, affine, reduced, self.modality, *told)
        refused = [finding.reason for finding in findings if finding.verdict == "refused"]
        if refused:
            raise DataError("; also, ".join(refused))
        doubtful = [finding for finding in findings if finding.verdict == "doubtful"]
        return {**data, "findings": doubtful, "likeness": likeness(reduced)}


class InPlaned(MapTransform):
    """Image and label of a RAS volume on one in-plane window, the affine kept true.

    The result is a volume (1, x, y, z) still; z is untouched.

    Args:
        size: pixels along each side.
        fov_mm: length of each side.
        center: ``body``, ``image``, or ``label`` (the body's where a scan has no label).
        modality: of the image.
    """

    def __init__(
        self,
        size: int,
        fov_mm: float,
        center: str,
        image: Hashable = "image",
        label: Hashable = "label",
        modality: Modality = CT,
    ) -> None:
        super().__init__([image, label])
        if center not in CENTERS:
            raise ConfigError(f"center {center!r} is not known (known: {', '.join(CENTERS)})")
        self.size, self.fov_mm, self.center = size, fov_mm, CENTERS[center]
        self.modality = modality

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resample the pair."""
        result = dict(data)
        image, label = (data[key] for key in self.keys)
        affine, pixels, marks = _affine(image), _array(image), _array(label)
        where = self.center(pixels, marks, affine, self.modality)
        window = (affine, where, self.fov_mm, self.size)
        placed = torch.from_numpy(geometry.window_affine(*window))
        for key, resampled in (
            (self.keys[0], geometry.resample_image(pixels, *window, self.modality)),
            (self.keys[1], geometry.resample_labels(marks, *window)),
        ):
            volume = torch.from_numpy(resampled.transpose(2, 1, 0))[None]
            result[key] = MetaTensor(volume, affine=placed)
        return result


def _load(key: str, reader: ImageReader) -> LoadImaged:
    """``LoadImaged`` with ``reader``, without its complaints about readers nobody asked for."""
    plugin = logging.getLogger("monai.data.nvimgcodec_pydicom_plugin")
    level = plugin.level
    plugin.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
            return LoadImaged(key, reader=reader, dtype=None)
    finally:
        plugin.setLevel(level)


def loading(
    case: Case, labels: Mapping[str, int], modality: Modality = CT
) -> list[Callable[..., Any]]:
    """The transforms from `as_item` of ``case`` to its RAS image and label on one grid.

    DICOM files must come in slice order, checked, as sources list them.
    """
    reader: ImageReader = VolumeReader(modality)
    if not suffix(case.image[0]):
        reader = SeriesReader(checked=True, modality=modality)
    load = [_load("image", reader)]
    if case.label is None:
        paired = [EnsureChannelFirstd("image", channel_dim="no_channel"), EmptyLabeld()]
    else:
        load.append(_load("label", reader_of(case.label, labels.values())))
        first = EnsureChannelFirstd(["image", "label"], channel_dim="no_channel")
        paired = [first, CheckPaird()]
    if modality is CT:
        paired.insert(1, CheckHUd())
    return [*load, *paired, Canonicald(["image", "label"])]


def pipeline(
    case: Case,
    labels: Mapping[str, int],
    size: int,
    fov_mm: float,
    center: str,
    modality: Modality = CT,
) -> Compose:
    """The transforms from `as_item` of ``case`` to its resampled image and label."""
    judged = Judged(case.id, case.label is not None, modality=modality)
    placed = InPlaned(size, fov_mm, center, modality=modality)
    return Compose([*loading(case, labels, modality), judged, placed])


class Loaded(NamedTuple):
    """A scan in memory.

    Attributes:
        image: stored values ``[x, y, z]`` in RAS order.
        labels: label ids on the same grid, or None.
        affine: of the grid.
        lossy: the lossy compression that the files' headers tell of, or nothing.
        unknown: how many voxels were no number and are background.
    """

    image: HU
    labels: LabelMap | None
    affine: Affine
    lossy: str
    unknown: int


def load(case: Case, labels: Mapping[str, int], modality: Modality = CT) -> Loaded:
    """A case as it is stored.

    Nothing is judged.

    Raises:
        DataError: a file cannot be read, or image and label are not on one grid.
    """
    try:
        data = Compose(loading(case, labels, modality))(as_item(case))
    except RuntimeError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, MedaugError):
            cause = cause.__cause__
        if cause is None:
            raise
        raise cause from None
    marks = None if case.label is None else _array(data["label"])
    image = data["image"]
    return Loaded(_array(image), marks, _affine(image), _lossy(image), _unknown(image))


def _lossy(image: Any) -> str:
    """The lossy compression that the headers of a loaded image tell of, or nothing."""
    return str(image.meta.get(LOSSY, ""))


def _unknown(image: Any) -> int:
    """How many voxels of a loaded image are no number."""
    return int(image.meta.get(UNKNOWN, 0))


def as_item(case: Case) -> dict[str, Any]:
    """``case`` as the dictionary that MONAI transforms take."""
    item: dict[str, Any] = {"id": case.id, "image": [str(f) for f in case.image]}
    return item if case.label is None else {**item, "label": [str(f) for f in case.label.files]}
