"""A folder of images by any tool, with masks or without, as synthetic slices of a report.

With masks the layouts are those of `medaug.data.sources.collections`.  Without, the images are
those of
``imagesTr``, of ``images``, or of the folder itself.  An image may be a slice or a volume, in any
orientation; HU are taken as they are, and so are the thousandths of MR.  Labels go by the names in
``dataset.json``; where there is none, by the ids of the cache.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import SpatialImage

from medaug.core.errors import DataError, reason
from medaug.core.geometry import spacing
from medaug.core.modality import CT, MR
from medaug.core.types import Case, LabelFiles
from medaug.data.formats.readers import read_labels
from medaug.data.formats.volumes import (
    DAMAGE,
    is_nifti,
    open_nifti,
    read_itk,
    stem,
    volumes,
    voxels,
)
from medaug.data.sources import collections
from medaug.data.sources.collections.described import described
from medaug.evaluation.slices.evidence import SliceSet
from medaug.evaluation.slices.synthetic import Frame, Gathering, Synthetic

LEAST_MR = 300
"""The brightest pixel of MR slices in thousandths is brighter than this; 8-bit levels are not."""

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


def open_foreign(folder: Path, known: Mapping[str, int]) -> Synthetic:
    """The NIfTI images in ``folder``.

    Args:
        folder: the images, and their masks where there are some.
        known: name to id of the cache's labels, which masks without ``dataset.json`` go by.

    Raises:
        DataError: none there, pictures without HU, or an image or mask that cannot be used.
    """
    cases, labels, said = _cases(folder)
    if labels and not (folder / "dataset.json").is_file():
        names = {id: name for name, id in known.items()}
        labels = {
            names.get(id, name) if name == f"label_{id}" else name: id
            for name, id in labels.items()
        }
    digest = hashlib.sha256()
    for case in cases:
        for path in (*case.image, *(case.label.files if case.label else ())):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    digest.update(repr(sorted(labels.items())).encode())
    masks = "with masks" if labels else "without masks"
    return Synthetic(
        what=f"{len(cases)} images {masks} by another tool",
        fingerprint=digest.hexdigest(),
        facts={"images": len(cases), "masks": bool(labels)},
        window_hu=None,
        labels=labels,
        least=None,
        modality=said,
        load=partial(_load, folder, cases, labels),
    )


def _cases(folder: Path) -> tuple[list[Case], Mapping[str, int], str | None]:
    """The images with their masks, the labels of the masks, and the modality if one is said."""
    if not folder.is_dir():
        what = "a file, not a folder" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {what}")
    about = folder / "dataset.json"
    said = described(about).modality if about.is_file() else None
    source = collections.labelled(folder)
    if source is not None:
        cases, problems = source.cases()
        if problems:
            raise DataError(f"{folder}: {len(problems)} cases cannot be used; first {problems[0]}")
        bare = [case.id for case in cases if case.label is None]
        if bare:
            raise DataError(
                f"{folder}: {len(bare)} of {len(cases)} images have no mask, such as {bare[0]}; "
                "give all a mask, or name a folder of the images alone"
            )
        return cases, source.labels, said
    places = [place for place in (folder / "imagesTr", folder / "images", folder) if place.is_dir()]
    for place in places:
        found = volumes(place)
        if found:
            return [Case(stem(path), (path,)) for path in found], {}, said
    files = [p for place in places for p in place.iterdir() if p.is_file()]
    pictures = [p for p in files if p.suffix.lower() in PICTURES]
    if pictures:
        raise DataError(
            f"{folder}: holds pictures such as {pictures[0].name}, whose grey levels are no HU; "
            "convert them to NIfTI in HU"
        )
    raise DataError(
        f"{folder}: no NIfTI image in it (looked for *.nii and *.nii.gz in imagesTr, images and "
        "the folder itself)"
    )


def _load(
    folder: Path, cases: Sequence[Case], labels: Mapping[str, int], frame: Frame, scratch: Path
) -> SliceSet:
    kept, lowest, highest, step = Gathering(frame, labels, bool(labels)), np.inf, -np.inf, None
    for case in cases:
        image, (x_mm, y_mm, z_mm) = _read(case.image[0])
        frame.check(case.image[0], image.shape, (x_mm, y_mm))
        lowest, highest = min(lowest, float(image.min())), max(highest, float(image.max()))
        step = z_mm if len(image) > 1 else step
        kept.add(case.id, image, None if case.label is None else _mask(case.label, labels))
    if frame.modality is CT and lowest >= 0:
        raise DataError(
            f"{folder}: no value below 0 in any of its images, so these are not HU, in which fat "
            "and air are negative; write the images in HU"
        )
    if frame.modality is MR and (lowest < MR.limits[0] or not LEAST_MR < highest <= MR.limits[1]):
        raise DataError(
            f"{folder}: the values of its images run from {lowest:g} to {highest:g}, and those of "
            f"{frame.cache} are thousandths of each scan's range, 0 to about 1000; write the "
            "images so"
        )
    return kept.done(folder, step)


def _read(path: Path) -> tuple[npt.NDArray[Any], tuple[float, float, float]]:
    """An image as (z, y, x) in RAS+ order, and its spacing along x, y, z."""
    try:
        if is_nifti(path):
            packed = open_nifti(path)
            image = SpatialImage(voxels(packed), packed.affine)
        else:
            image = SpatialImage(*read_itk(path))
        image = nibabel.as_closest_canonical(image)
        values = np.asarray(image.dataobj)
    except DAMAGE as error:
        raise DataError(f"{path}: not a readable image file ({reason(error)})") from error
    trailing = [n for n in values.shape[3:] if n != 1]
    if values.ndim < 2 or trailing:
        raise DataError(f"{path}: a slice or a volume is wanted, got the shape {values.shape}")
    if not np.isfinite(values).all():
        raise DataError(f"{path}: holds values that are not finite")
    volume = values.reshape(*values.shape[:2], -1)
    return np.ascontiguousarray(volume.T), spacing(np.asarray(image.affine))


def _mask(marks: LabelFiles, labels: Mapping[str, int]) -> npt.NDArray[np.uint8]:
    """A label map as (z, y, x) in RAS+ order; its grid was checked to be its image's."""
    try:
        values, affine = read_labels(marks, labels.values())
    except DataError as error:
        raise DataError(f"{marks.files[0]}: {error}") from error
    turned = nibabel.as_closest_canonical(SpatialImage(values, affine))
    return np.ascontiguousarray(np.asarray(turned.dataobj, np.uint8).T)
