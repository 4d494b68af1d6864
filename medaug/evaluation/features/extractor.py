"""Define feature spaces: named, versioned functions from slices to rows of numbers."""

import hashlib
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from medaug.core.types import HU

BLOCK = 64
"""Slices worked on at once, so that memory does not grow with their number."""


class Extractor(Protocol):
    """A feature space.

    Attributes:
        name: in the names of figures.
        version: changes with everything that changes a feature.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def __call__(self, images: HU) -> Tensor:
        """Features float32 (n, d) of slices (n, y, x); each row depends on its slice alone."""
        ...


def called(extractor: Extractor) -> str:
    """Name and version in one word, as in ``Figure.extractor``."""
    return f"{extractor.name}-{extractor.version}"


def blocks(images: HU, size: int = BLOCK) -> Iterator[HU]:
    """The slices, ``size`` at a time."""
    for start in range(0, len(images), size):
        yield images[start : start + size]


def windowed(images: HU, window_hu: tuple[float, float]) -> Tensor:
    """HU (n, y, x) as float32 (n, 1, y, x), 0 at the foot of the window and 1 at its top."""
    low, high = window_hu
    x = torch.from_numpy(np.ascontiguousarray(images)).float()
    return ((x - low) / (high - low)).clamp(0, 1)[:, None]


def sha(images: HU) -> str:
    """sha256 of the slices: their type, shape and bytes."""
    whole = np.ascontiguousarray(images)
    found = hashlib.sha256(f"{whole.dtype} {whole.shape}".encode())
    found.update(whole.reshape(-1).view(np.uint8).data)
    return found.hexdigest()
