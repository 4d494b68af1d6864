"""Annotated synthetic CT slices, with their uncertainty, from a handful of scans.

Names are loaded when first used: importing medaug loads neither torch, monai nor torchio.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Generator": "medaug.synthesis.generator",
    "Sample": "medaug.core.types",
    "MedaugError": "medaug.core.errors",
    "download": "medaug.data.download",
    "fit": "medaug.training.loop",
    "nnunet_splits": "medaug.synthesis.nnunet_splits",
    "open_source": "medaug.data",
    "prepare": "medaug.data.cache.prepare",
    "synthesize": "medaug.synthesis.synthesize",
}

_MODULES = {"data": "medaug.data", "monai": "medaug.monai", "torchio": "medaug.torchio"}

__all__ = [
    "Generator",
    "MedaugError",
    "Sample",
    "__version__",
    "data",
    "download",
    "fit",
    "monai",
    "nnunet_splits",
    "open_source",
    "prepare",
    "synthesize",
    "torchio",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name in _MODULES:
        return import_module(_MODULES[name])
    raise AttributeError(f"module 'medaug' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
