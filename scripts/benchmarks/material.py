"""What the rows measure on: phantom patients, weights, the folder of the demo, two real scans."""

import gzip
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from results import ROOT, Setup

from medaug.cli.demonstration import SHIPPED
from medaug.core.config import resolve
from medaug.core.seeds import derive
from medaug.data import open_source
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
from medaug.data.sources.phantom.source import Organ, Phantom, draw_organs
from medaug.runtime.files import write_bytes, write_json
from medaug.training.checkpoint import read_tensors, write_tensors
from medaug.training.loop import fit
from medaug.training.run import weights_path

PATIENTS = 8
SEED = 1
SHAPE, SPACING_MM = (160, 160, 64), (2.4, 2.4, 3.0)
PHASES: dict[str, dict[str, Any]] = {
    "autoencode": {"phases": [1, 1]},
    "sharpen": {"phases": [0, 1]},
    "prior": {"phases": [0, 0]},
}
"""Settings of the default CT model that leave it one phase of training."""
FEW_STEPS = 2
SOURCE = (
    "Roth et al. 2016, Data From Pancreas-CT (Version 2), The Cancer Imaging Archive, "
    "doi 10.7937/K9/TCIA.2016.tNB1kqBU, CC BY 3.0"
)
"""Where the real scans come from."""
CASE = "PANCREAS_0001"

ORGANS = {
    "pancreas": [Organ.PANCREAS],
    "liver": [Organ.LIVER],
    "spleen": [Organ.SPLEEN],
    "kidneys": [Organ.RIGHT_KIDNEY, Organ.LEFT_KIDNEY],
    "aorta": [Organ.AORTA],
}
"""Labels of ``organ_cache``, by name, and what they cover."""


def phantom_cache(
    work: Path, patients: int = PATIENTS, seed: int = SEED, settings: CacheSettings | None = None
) -> SliceCache:
    """Slices of ``patients`` phantoms, written below ``work`` the first time."""
    folder, settings = work / f"phantom-{patients}-{seed}", settings or CacheSettings(size=64)
    cache = folder / f"cache-{settings.size}-{settings.holdout}"
    prepare(Phantom(folder / "people", patients, seed), cache, settings)
    return SliceCache.open(cache)


def cached(work: Path, size: int) -> SliceCache:
    """Phantom slices of ``size``, opened where they lie, so that no reader of scans is needed."""
    there = work / f"phantom-{PATIENTS}-{SEED}" / f"cache-{size}-{CacheSettings(size=size).holdout}"
    if there.exists():
        return SliceCache.open(there)
    return phantom_cache(work, settings=CacheSettings(size=size))


def organ_cache(work: Path, patients: int, seed: int) -> SliceCache:
    """Slices of 64 pixels of phantom patients, all under "train", written below ``work`` once.

    They have the labels of ``ORGANS``: an nnU-Net folder of NIfTI scans, since the phantom's own
    layout has the pancreas alone.
    """
    folder = work / f"organs-{patients}-{seed}"
    labels = {"background": 0, **{name: n for n, name in enumerate(ORGANS, 1)}}
    write_json(folder / "scans" / "dataset.json", {"labels": labels})
    for number in range(1, patients + 1):
        marked = folder / "scans" / "labelsTr" / f"organs_{number:03d}.nii.gz"
        if marked.exists():
            continue
        hu, organs, affine = draw_organs(derive(seed, "organs", number), SHAPE, SPACING_MM)
        found = np.zeros_like(organs)
        for label, members in enumerate(ORGANS.values(), 1):
            found[np.isin(organs, members)] = label
        scan = folder / "scans" / "imagesTr" / f"organs_{number:03d}_0000.nii.gz"
        for path, array in ((scan, hu), (marked, found)):
            image = nib.Nifti1Image(array, affine)
            write_bytes(path, gzip.compress(image.to_bytes(), 1, mtime=0))
    settings = CacheSettings(size=64, holdout=0)
    prepare(open_source(str(folder / "scans")), folder / "cache", settings)
    return SliceCache.open(folder / "cache")


def weights(setup: Setup) -> Path:
    """The shipped phantom weights; a moment's training where there are none."""
    if SHIPPED.exists():
        return SHIPPED
    config = {"data": {"name": "phantom", "size": 64}, "train": {"images": 640}}
    return weights_path(fit(resolve(config), phantom_cache(setup.work), setup.work / "brief").run)


def with_few_steps(path: Path, target: Path) -> Path:
    """The same networks with fewer steps from noise to a code: quicker, and of the same size."""
    tensors, header, _ = read_tensors(path)
    header["config"]["model"]["prior"]["steps"] = FEW_STEPS
    write_tensors(target, tensors, header)
    return target


def demo_command(setup: Setup) -> list[str]:
    """The demo in the folder that the rows share, as a command line from the project's root."""
    folder = (setup.work / "demo").relative_to(ROOT)
    little = ["--scratch", "--images", "600", "-n", "16"] if setup.quick else []
    return ["scripts/demo", "--out", str(folder), *little]


def run_demo(setup: Setup) -> None:
    """Run the demo, or what is left of it."""
    subprocess.run(demo_command(setup), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def pancreas_ct(row: str) -> Path:
    """The two real scans, packed; the ``row`` ends where there are none."""
    data = os.environ.get("MEDAUG_TEST_DATA")
    if not data:
        print(f"{row}: set MEDAUG_TEST_DATA to a folder that holds pancreas-ct/", file=sys.stderr)
        sys.exit(2)
    return Path(data) / "pancreas-ct"


def unpack(data: Path, root: Path) -> tuple[Path, Path]:
    """Both real scans below ``root``: a folder with one of them, and one with both."""
    one, both = root / "one", root / "both"
    for archive in sorted(data.glob("*.tar.xz")):
        with tarfile.open(archive) as packed:
            packed.extractall(both / archive.name.partition(".")[0], filter="data")
    for archive in data.glob("*.zip"):
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(both / "labels")
    one.mkdir()
    (one / CASE).symlink_to(next(both.rglob(CASE)), target_is_directory=True)
    (one / "label0001.nii.gz").symlink_to(next(both.rglob("label0001.nii.gz")))
    return one, both


def real_cache(work: Path, settings: CacheSettings) -> SliceCache | None:
    """Slices of the two real scans, cut again in ``work``; None without MEDAUG_TEST_DATA."""
    if not (data := os.environ.get("MEDAUG_TEST_DATA")):
        return None
    shutil.rmtree(work, ignore_errors=True)
    _, both = unpack(Path(data) / "pancreas-ct", work / "scans")
    prepare(open_source("pancreas", both), work / "cache", settings)
    return SliceCache.open(work / "cache")
