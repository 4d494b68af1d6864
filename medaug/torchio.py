"""``medaug.torchio``: the transforms for torchio pipelines."""

from medaug.transforms.torchio import RandomSynthesis, Synthesis
from medaug.transforms.torchio_rivals import (
    CarveMix,
    CopyPaste,
    CutMix,
    LabelContrast,
    RandomCarveMix,
    RandomCopyPaste,
    RandomCutMix,
    RandomLabelContrast,
)

__all__ = [
    "CarveMix",
    "CopyPaste",
    "CutMix",
    "LabelContrast",
    "RandomCarveMix",
    "RandomCopyPaste",
    "RandomCutMix",
    "RandomLabelContrast",
    "RandomSynthesis",
    "Synthesis",
]
