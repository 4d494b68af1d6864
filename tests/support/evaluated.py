"""Folders to evaluate, by other tools, and the settings to do so."""

import json
from pathlib import Path

import nibabel
import numpy as np

from medaug.data.cache.prepare import SliceCache
from medaug.evaluation.settings import resolve_evaluate
from medaug.evaluation.subject import Setting, open_setting


def settled(synthetic: Path | None, against: Path | None, run: Path | None = None) -> Setting:
    return open_setting(run, synthetic, against, 12, 0, 2, resolve_evaluate({}), "cpu")


def nifti(path: Path, array: np.ndarray, mm: tuple[float, float, float]) -> None:
    """Write [z, y, x] in RAS+ order as a tool of another axis habit would."""
    path.parent.mkdir(parents=True, exist_ok=True)
    turned = array.T[::-1, ::-1]
    nibabel.save(nibabel.Nifti1Image(turned, np.diag([-mm[0], -mm[1], mm[2], 1.0])), path)


def foreign_folder(cache: SliceCache, folder: Path) -> Path:
    """The held-out patient's scan by another tool, in nnU-Net's layout, with other label ids."""
    case = cache.cases[cache.split["heldout"][0]]
    assert case.label is not None
    label = np.where(case.label > 0, 7, 0).astype(np.uint8)
    nifti(folder / "imagesTr" / "a_0000.nii.gz", np.array(case.image), case.spacing_mm)
    nifti(folder / "labelsTr" / "a.nii.gz", label, case.spacing_mm)
    names = {"background": 0, **dict.fromkeys(cache.labels, 7)}
    (folder / "dataset.json").write_text(json.dumps({"labels": names}))
    return folder
