"""From the files of a case to its slices: read, checked, turned to RAS order and resampled.

Volumes stay int16 and uint8 from file to slice; a 512 x 512 x 240 scan takes well under 1.5 GB.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from medaug.core import geometry
from medaug.core.errors import ConfigError, DataError
from medaug.core.modality import CT, Modality, check_hu
from medaug.core.types import HU, Affine, Case, LabelMap
from medaug.data.checks import Finding, battery, reduce
from medaug.data.checks.likeness import Likeness, likeness
from medaug.data.formats.grids import check_pair, to_ras
from medaug.data.formats.readers import read_labels, read_series, read_volume
from medaug.data.formats.volumes import suffix

Center = Callable[[np.ndarray, np.ndarray, Affine, Modality], tuple[float, float]]
CENTERS: dict[str, Center] = {
    "body": lambda image, label, affine, modality: geometry.body_center(image, affine, modality),
    "image": lambda image, label, affine, modality: (
        (image.shape[0] - 1) / 2,
        (image.shape[1] - 1) / 2,
    ),
    "label": lambda image, label, affine, modality: (
        geometry.label_center(label) or geometry.body_center(image, affine, modality)
    ),
}
"""What a slice may be centred on, with the place (x, y) in voxels.

The arguments are image and label ids ``[x, y, z]``, their affine and the modality.
"""


class Loaded(NamedTuple):
    """A scan in memory.

    Attributes:
        image: stored values ``[x, y, z]`` in RAS order.
        labels: label ids on the same grid, or None.
        affine: of the grid.
        lossy: the lossy compressions that its headers name; empty without any.
        unknown: how many voxels are no finite number and were taken as background.
    """

    image: HU
    labels: LabelMap | None
    affine: Affine
    lossy: str
    unknown: int


class Cut(NamedTuple):
    """The slices of one scan.

    Attributes:
        image: stored values ``[z, y, x]``.
        labels: label ids on the same grid, or None.
        affine: maps (x, y, z) of the grid to RAS+ mm.
        doubtful: what is doubtful about the scan.
        likeness: by which the same scan is recognised under another name.
    """

    image: HU
    labels: LabelMap | None
    affine: Affine
    doubtful: list[Finding]
    likeness: Likeness


def load(case: Case, labels: Mapping[str, int], modality: Modality = CT) -> Loaded:
    """Read a case and turn it to RAS order, without the checks of `medaug.data.checks`.

    Args:
        case: DICOM files must come in slice order, checked, as sources list them.
        labels: name to id of what its label map may hold.
        modality: of the image.

    Raises:
        DataError: a file cannot be read, CT is plainly not in HU, or image and label are not on
            one grid.
    """
    if suffix(case.image[0]):
        image = read_volume(case.image[0], modality)
    else:
        image = read_series(case.image, checked=True, modality=modality)
    label = None if case.label is None else read_labels(case.label, labels.values())
    if modality is CT:
        check_hu(image.voxels)
    marks = None
    if label is not None:
        check_pair(image.voxels.shape, image.affine, label[0].shape, label[1])
        marks, _ = to_ras(*label)
    voxels, affine = to_ras(image.voxels, image.affine)
    return Loaded(voxels, marks, affine, image.lossy, image.unknown)


def cut(
    case: Case,
    labels: Mapping[str, int],
    size: int,
    fov_mm: float,
    center: str,
    modality: Modality = CT,
) -> Cut:
    """Read, check and resample a case: each slice on one window, z untouched.

    Args:
        case: DICOM files must come in slice order, checked, as sources list them.
        labels: name to id of what its label map may hold.
        size: pixels along each side of a slice.
        fov_mm: length of each side.
        center: ``body``, ``image``, or ``label`` (the body's where a scan has no label).
        modality: of the image.

    Raises:
        ConfigError: another center.
        DataError: a file cannot be read, or a check of `medaug.data.checks` refuses the scan; then
            with the reason of every check that does.
    """
    if center not in CENTERS:
        raise ConfigError(f"center {center!r} is not known (known: {', '.join(CENTERS)})")
    image, marks, affine, lossy, unknown = load(case, labels, modality)

    # Is the scan sound?
    reduced = reduce(image, affine, modality)
    findings = battery(case.id, image, marks, affine, reduced, modality, lossy, unknown)
    refused = [finding.reason for finding in findings if finding.verdict == "refused"]
    if refused:
        raise DataError("; also, ".join(refused))
    doubtful = [finding for finding in findings if finding.verdict == "doubtful"]

    # Its slices on the window.
    known = np.zeros(image.shape, np.uint8) if marks is None else marks
    window = (affine, CENTERS[center](image, known, affine, modality), fov_mm, size)
    return Cut(
        image=geometry.resample_image(image, *window, modality),
        labels=None if marks is None else geometry.resample_labels(marks, *window),
        affine=geometry.window_affine(*window),
        doubtful=doubtful,
        likeness=likeness(reduced),
    )
