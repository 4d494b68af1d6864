"""Stacks by their rows and their neighbours."""

import csv
from pathlib import Path

import numpy as np

STACK = 20
"""More than the 16 slices that are decoded at once."""


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def between(images: np.ndarray) -> float:
    """Mean absolute difference of neighbours."""
    return float(np.abs(np.diff(images.astype(float), axis=0)).mean())
