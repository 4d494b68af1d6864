"""Phantom MR: the anatomy of the CT phantom as a scanner without a unit shows it."""

import json
from pathlib import Path

import nibabel
import numpy as np

from medaug.data.sources.phantom.source import Organ, draw_organs

ORGANS = {"pancreas": Organ.PANCREAS, "liver": Organ.LIVER}
SHAPE, SPACING = (64, 64, 20), (6.0, 6.0, 9.5)


def shown(hu: np.ndarray, seed: int) -> np.ndarray:
    """Signal of HU [x, y, z]: fat bright, bone and gas dark, a gain and a bias field of its own.

    The noise is Rician (Gudbjartsson and Patz 1995), 1.5 % of the range.
    """
    rng = np.random.default_rng(seed)
    level = np.interp(
        hu, [-1000, -130, -90, -20, 40, 105, 180, 500], [0, 700, 900, 520, 330, 520, 600, 60]
    )
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in hu.shape), indexing="ij")
    field = 1 + sum(rng.uniform(-0.12, 0.12) * axis for axis in axes)
    real, imaginary = rng.normal(0, 15, (2, *hu.shape))
    return (rng.uniform(0.3, 4) * np.hypot(level * field + real, imaginary)).astype(np.float32)


def write(root: Path, ids: list[str], channel: str | None = None) -> Path:
    """Patients ``ids`` as nnU-Net lays them out; with a channel as v2, without as AMOS22."""
    labels = {name: n for n, name in enumerate(ORGANS, 1)}
    for seed, case in enumerate(ids):
        hu, organs, affine = draw_organs(seed, SHAPE, SPACING)
        marks = sum((organs == organ) * n for n, organ in enumerate(ORGANS.values(), 1))
        image = "" if channel is None else "_0000"
        for place, array in (
            (root / "imagesTr" / f"{case}{image}.nii.gz", shown(hu, seed)),
            (root / "labelsTr" / f"{case}.nii.gz", marks.astype(np.uint8)),
        ):
            place.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array, affine), place)
    if channel is None:
        names = {"0": "background", **{str(n): name for name, n in labels.items()}}
        about = {"modality": {"0": "CT"}, "labels": names}
    else:
        names = {"background": 0, **labels}
        about = {"channel_names": {"0": channel}, "labels": names, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(about))
    return root
