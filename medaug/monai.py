"""``medaug.monai``: the dictionary transforms for MONAI pipelines."""

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
]
