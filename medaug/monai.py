"""``medaug.monai``: a reader and the dictionary transforms for MONAI pipelines."""

from medaug.data.formats.monai_reader import ScanReader
from medaug.transforms.monai import (
    RandCarveMixd,
    RandCopyPasted,
    RandCutMixd,
    RandLabelContrastd,
    RandSynthesisd,
)

__all__ = [
    "RandCarveMixd",
    "RandCopyPasted",
    "RandCutMixd",
    "RandLabelContrastd",
    "RandSynthesisd",
    "ScanReader",
]
