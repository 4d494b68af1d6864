"""NIfTI in the layout of nnU-Net v2: in register, HU (MR: thousandths) and mm, z = 1 for a slice.

    imagesTr/syn_000000_0000.nii.gz             (x, y, z) int16 HU or uint8 grey levels
    labelsTr/syn_000000.nii.gz                  (x, y, z) uint8 label ids
    uncertainty/syn_000000_std.nii.gz           (x, y, z) float32, the image's unit
    uncertainty/syn_000000_entropy.nii.gz       (x, y, z) float32 bits
    uncertainty/syn_000000_samples.nii.gz       (x, y, z, K) alternative images
    uncertainty/syn_000000_masks.nii.gz         (x, y, z, K) alternative label maps

Every file carries the same affine as qform and sform.  The first 352 bytes come from nibabel and
are kept per shape and type, since making them anew costs twice what compressing the data does.
"""

import json
import zlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from medaug.core.errors import DataError, reason
from medaug.core.types import Affine, Sample
from medaug.data.formats.limits import STEEPEST, check_header, gunzip
from medaug.synthesis.writers import inside

SUFFIX = ".nii.gz"
_DAMAGED = (
    ImageFileError,
    HeaderDataError,
    WrapStructError,
    ArithmeticError,
    MemoryError,
    TypeError,
)
DESCRIPTION = "synthetic, made by medaug; not a patient"
SCANNER = 1
CHANNELS = {"ct": "CT", "mr": "MR", "image": "grey"}


class Nifti:
    """Compressed NIfTI files and the ``dataset.json`` that nnU-Net v2 asks for."""

    def files(self, sample: Sample, case: str, level: int) -> dict[str, tuple[str, bytes]]:
        """See ``Writer.files``."""
        arrays: dict[str, tuple[str, npt.NDArray[Any]]] = {
            "image": (f"imagesTr/{case}_0000", sample.image)
        }
        if sample.label is not None:
            arrays["label"] = (f"labelsTr/{case}", sample.label)
        if len(sample.alternatives):
            arrays["std"] = (f"uncertainty/{case}_std", sample.std)
            if sample.entropy is not None:
                arrays["entropy"] = (f"uncertainty/{case}_entropy", sample.entropy)
            arrays["samples"] = (f"uncertainty/{case}_samples", sample.alternatives)
            if sample.alternative_labels is not None:
                arrays["masks"] = (f"uncertainty/{case}_masks", sample.alternative_labels)
        return {
            role: (
                name + SUFFIX,
                encode(array if sample.slices else array[..., None, :, :], sample.affine, level),
            )
            for role, (name, array) in arrays.items()
        }

    def read(self, folder: Path, row: Mapping[str, str]) -> Sample:
        """See ``Writer.read``."""
        image, affine = read(inside(folder, row["image"]))
        label = read(inside(folder, row["label"]))[0] if row["label"] else None
        std = read(inside(folder, row["std"]))[0] if row["std"] else np.zeros_like(image)
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
        """See ``Writer.about``."""
        content = {
            "channel_names": {"0": CHANNELS[kind]},
            "labels": {"background": 0, **labels},
            "numTraining": count,
            "file_ending": SUFFIX,
            "description": DESCRIPTION,
        }
        return {"dataset.json": (json.dumps(content, indent=2) + "\n").encode()}


def encode(array: npt.NDArray[Any], affine: Affine, level: int) -> bytes:
    """A case [z, y, x], or alternatives [k, z, y, x], as compressed NIfTI (x, y, z[, k]).

    NIfTI stores x fastest and k slowest, which is the order of the array as it is.
    """
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    header = _header(array.shape[::-1], little.dtype.str, np.asarray(affine, np.float64).tobytes())
    return zlib.compress(header + little.tobytes(), level, wbits=31)


@lru_cache(maxsize=64)
def _header(shape: tuple[int, ...], dtype: str, affine: bytes) -> bytes:
    matrix = np.frombuffer(affine, np.float64).reshape(4, 4)
    header = nib.Nifti1Header(endianness="<")
    header.set_data_dtype(np.dtype(dtype))
    header.set_data_shape(shape)
    header.set_qform(matrix, code=SCANNER)
    header.set_sform(matrix, code=SCANNER)
    header.set_xyzt_units("mm")
    header["descrip"] = DESCRIPTION.encode()
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["vox_offset"] = 352
    no_extension = bytes(4)
    return bytes(header.binaryblock) + no_extension


def read(path: Path) -> tuple[npt.NDArray[Any], Affine]:
    """A file as an array [z, y, x], or [y, x] if one slice thick, and its affine (RAS+ mm).

    The file is read and decompressed once: nibabel's own loading opens it three times, to sniff.

    Raises:
        DataError: no such file, or not one that can be read.
    """
    try:
        raw = path.read_bytes()
        wanted = check_header(path.name, gunzip(raw, 352), len(raw) * STEEPEST)
        image = nib.Nifti1Image.from_bytes(gunzip(raw, max(wanted, 352) + 1))
        array = np.asarray(image.dataobj)
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file, though the manifest lists it") from error
    except (OSError, EOFError, ValueError, zlib.error, *_DAMAGED) as error:
        raise DataError(f"{path}: not a readable NIfTI file ({reason(error)})") from error
    array = array[:, :, 0] if array.shape[2:] == (1,) else array
    return np.ascontiguousarray(array.T), np.asarray(image.affine)
