"""``medaug.monai``: the dictionary transforms for MONAI pipelines."""

from medaug.transforms.monai import RandSynthesisd
from medaug.transforms.monai_rivals import (
    RandCarveMixd,
    RandCopyPasted,
    RandCutMixd,
    RandLabelContrastd,
)

__all__ = [
    "RandCarveMixd",
    "RandCopyPasted",
    "RandCutMixd",
    "RandLabelContrastd",
    "RandSynthesisd",
]
