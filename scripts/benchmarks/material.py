"""What the rows measure on: phantom patients in a cache, and the demo's folder."""

import gzip
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
from results import ROOT, Asked

from medaug.core.seeds import derive
from medaug.data import open_source
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
from medaug.data.sources.phantom.source import Organ, Phantom, draw_organs
from medaug.runtime.files import write_bytes, write_json

PATIENTS = 8
SEED = 1
SHAPE, SPACING_MM = (160, 160, 64), (2.4, 2.4, 3.0)

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


def demo_command(asked: Asked) -> list[str]:
    """The demo in the folder that the rows share, as a command line from the project's root."""
    folder = demo_folder(asked).relative_to(ROOT)
    little = ["--scratch", "--images", "600", "-n", "16"] if asked.quick else []
    return ["scripts/demo", "--out", str(folder), *little]


def demo_folder(asked: Asked) -> Path:
    """Where `demo_command` works."""
    return asked.work / "demo"


def run_demo(asked: Asked) -> None:
    """Run the demo, or what is left of it."""
    subprocess.run(demo_command(asked), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def organ_cache(work: Path, patients: int, seed: int, settings: CacheSettings) -> SliceCache:
    """Slices of phantom patients with the labels of ``ORGANS``, written below ``work`` once.

    An nnU-Net folder of NIfTI scans, since the phantom's own layout has the pancreas alone.
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
        for path, array in (
            (folder / "scans" / "imagesTr" / f"organs_{number:03d}_0000.nii.gz", hu),
            (marked, found),
        ):
            image = nib.Nifti1Image(array, affine)
            write_bytes(path, gzip.compress(image.to_bytes(), 1, mtime=0))
    prepare(open_source(str(folder / "scans")), folder / "cache", settings)
    return SliceCache.open(folder / "cache")
