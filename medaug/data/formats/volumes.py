"""Read volume files of any known suffix as ``[x, y, z]`` with a RAS+ affine.

nibabel reads NIfTI; SimpleITK reads NRRD and MetaImage, in LPS+, which becomes RAS+ here.
"""

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from medaug.core.errors import DataError
from medaug.core.types import Affine
from medaug.data.formats.archives import on_disk
from medaug.data.formats.limits import PARSER_ERRORS, check_beside, check_nifti, check_voxels

NIFTI = (".nii.gz", ".nii")
SUFFIXES = (*NIFTI, ".nrrd", ".nhdr", ".mha", ".mhd")
DAMAGE = (*PARSER_ERRORS, HeaderDataError, ImageFileError, MemoryError, WrapStructError)
"""What nibabel raises on damaged files."""
_MOST_BEHIND = 16 * 2**20
"""Bytes behind the voxels of a packed file; more are no padding."""
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class VolumeHeader:
    """Shape (x, y, z) and RAS+ affine of a volume whose voxels are not read."""

    shape: tuple[int, int, int]
    affine: Affine


def suffix(path: Path) -> str:
    """The suffix by which ``path`` is a volume, or an empty string."""
    name = path.name.lower()
    return next((end for end in SUFFIXES if name.endswith(end)), "")


def stem(path: Path) -> str:
    """The name of ``path`` without the suffix of a volume."""
    return path.name[: len(path.name) - len(suffix(path))]


def is_nifti(path: Path) -> bool:
    """Whether the name is that of a NIfTI file."""
    return suffix(path) in NIFTI


def volumes(folder: Path) -> list[Path]:
    """List the volume files right in ``folder``, hidden ones left out, in name order."""
    if not folder.is_dir():
        return []
    return sorted(
        p for p in folder.iterdir() if suffix(p) and not p.name.startswith(".") and not p.is_dir()
    )


def volume_header(file: Path) -> VolumeHeader:
    """Read the geometry of ``file``.

    Raises:
        DataError: not a volume file, or not three-dimensional with one value a voxel.
    """
    if is_nifti(file):
        image = nifti_header(file)
        x, y, z = (int(n) for n in image.shape[:3])
        return VolumeHeader((x, y, z), np.asarray(image.affine, float))
    reader = _itk_reader(file)
    size, affine = reader.GetSize(), _itk_affine(reader)
    _check_finite(file, affine)
    return VolumeHeader((size[0], size[1], size[2]), affine)


def nifti_header(file: Path) -> nibabel.Nifti1Image:
    """Open ``file`` as a three-dimensional NIfTI image, without reading its voxels.

    Raises:
        DataError: the file is not NIfTI, or not a volume.
    """
    try:
        with on_disk([file]) as (local,):
            image = open_nifti(local)
    except DataError:
        raise
    except DAMAGE as error:
        if isinstance(error, FileNotFoundError):
            raise DataError(f"{file.name} is not there") from error
        raise DataError(f"{file.name} is not a NIfTI file") from error
    shape = tuple(int(n) for n in image.shape)
    if len(shape) < 3 or any(n != 1 for n in shape[3:]) or 0 in shape:
        raise DataError(f"{file.name} has shape {shape}; a volume has three axes")
    _check_finite(file, image.affine)
    return image


def open_nifti(file: Path) -> nibabel.Nifti1Image:
    """Open ``file``, on disk, as a NIfTI image of any shape, without reading its voxels.

    Raises:
        DataError: it announces more than it can hold, or than a scan can have.
        OSError: it is not there, or cannot be read.
        ImageFileError: not NIfTI.
    """
    check_nifti(file)
    try:
        return nibabel.load(file)
    except OSError:
        raise
    except Exception as error:  # a malformed header can make a parser raise anything
        raise ImageFileError(str(error)) from error


def voxels(image: nibabel.Nifti1Image) -> npt.NDArray[Any]:
    """Read the voxels of ``image``, as it was loaded from a file.

    A packed file is unpacked to its end, where its checksum is: nibabel stops at the last voxel,
    and so accepts damaged ones.

    Raises:
        DAMAGE: the file is truncated or damaged.
    """
    name, shape = image.get_filename(), tuple(int(n) for n in image.shape)
    if len(shape) < 2 or 0 in shape:
        raise ValueError(f"the shape {shape}")
    if not str(name).lower().endswith(".gz"):
        return np.asanyarray(image.dataobj)
    with gzip.open(name) as stream:
        values = np.asanyarray(type(image).from_stream(stream).dataobj)
        behind = 0
        while rest := stream.read(2**20):
            behind += len(rest)
            if behind > _MOST_BEHIND:
                raise ValueError("more bytes than the header announces")
    return values


def read_itk(file: Path) -> tuple[npt.NDArray[Any], Affine]:
    """Read the voxels ``[x, y, z]`` and the RAS+ affine of an NRRD or MetaImage file.

    Raises:
        DataError: not such a file, damaged, or not a volume.
    """
    reader = _itk_reader(file)
    try:
        values = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        raise DataError(f"{file.name} is truncated or damaged") from error
    return values.reshape(values.shape[-3:]).transpose(2, 1, 0), _itk_affine(reader)


def _itk_reader(file: Path) -> sitk.ImageFileReader:
    """A reader of ``file`` that has read its header."""
    if not file.is_file():
        raise DataError(f"{file.name} is not there")
    check_beside(file)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        kind = "NRRD" if suffix(file) in (".nrrd", ".nhdr") else "MetaImage"
        raise DataError(f"{file.name} is not a {kind} file") from error
    size = tuple(int(n) for n in reader.GetSize())
    if len(size) < 3 or any(n != 1 for n in size[3:]):
        raise DataError(f"{file.name} has shape {size}; a volume has three axes")
    if reader.GetNumberOfComponents() != 1:
        raise DataError(
            f"{file.name} has {reader.GetNumberOfComponents()} values a voxel; one is needed"
        )
    check_voxels(file.name, size)
    return reader


def _check_finite(file: Path, affine: Affine) -> None:
    if not np.isfinite(affine).all():
        raise DataError(f"{file.name} has an affine with values that are no finite numbers")


def _itk_affine(reader: sitk.ImageFileReader) -> Affine:
    """The RAS+ affine of a header in LPS+."""
    axes = len(reader.GetSize())
    direction = np.reshape(reader.GetDirection(), (axes, axes))[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = direction * np.asarray(reader.GetSpacing()[:3])
    affine[:3, 3] = reader.GetOrigin()[:3]
    return np.asarray(_LPS_TO_RAS @ affine)
