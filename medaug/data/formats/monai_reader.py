"""Read scans in MONAI's pipelines, with the checks that its own readers leave out."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import ImageReader
from monai.utils import MetaKeys, SpaceKeys

from medaug.data.formats.dicom_series import dicom_files
from medaug.data.formats.readers import read_series, read_volume
from medaug.data.formats.volumes import suffix


class ScanReader(ImageReader):
    """Read a CT scan for ``LoadImage`` or ``LoadImaged``: ``reader=ScanReader()``.

    A scan is a folder or list of DICOM files, or one NIfTI, NRRD or MetaImage file.  It comes as
    int16 HU ``[x, y, z]`` with its RAS+ affine; a series with a slice missing or there twice, a
    truncated file or slices of two series are refused with a `DataError` that says so.
    """

    def verify_suffix(self, filename: Sequence[os.PathLike] | os.PathLike) -> bool:
        """Whether the names could be those of a scan: every name could."""
        return True

    def read(self, data: Any, **kwargs: Any) -> tuple[Path, ...]:
        """The files of a scan; a folder stands for the DICOM files in it."""
        names = [data] if isinstance(data, str | os.PathLike) else list(data)
        if len(names) == 1 and Path(names[0]).is_dir():
            return tuple(dicom_files(Path(names[0])))
        return tuple(Path(name) for name in names)

    def get_data(self, img: tuple[Path, ...]) -> tuple[np.ndarray, dict[str, Any]]:
        """The voxels and their metadata.

        Raises:
            DataError: the scan is not complete, or a file cannot be read.
        """
        scan = read_volume(img[0]) if suffix(img[0]) else read_series(img)
        return scan.voxels, {
            MetaKeys.AFFINE: scan.affine,
            MetaKeys.ORIGINAL_AFFINE: scan.affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.array(scan.voxels.shape),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),
        }
