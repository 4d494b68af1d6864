"""Slices a second through a torchio pipeline with our transform, over the same one without it.

The slices are NIfTI files, as torchio reads them; the bank is a folder that ``synthesize`` wrote.
Both pipelines run in turns, each time in new workers with nothing read yet.  What is timed begins
with the first batch, so starting workers and loading libraries do not count.
"""

import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import nibabel
import torch
import torchio as tio
from material import phantom_cache
from results import Asked, Claim, asked, report
from synthesize import weights, with_few_steps

from medaug.data.cache.prepare import SliceCache
from medaug.synthesis.generator import Generator
from medaug.synthesis.synthesize import synthesize
from medaug.torchio import RandomSynthesis

BANK, SLICES, BATCH, WORKERS, REPEATS, SEED = 256, 1024, 16, 2, 7, 0
PROBABILITIES = (0.5, 1.0)


def write_slices(cache: SliceCache, folder: Path) -> list[tuple[Path, Path]]:
    """Every training slice of the cache as an image and a label file, one slice thick."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name in cache.split["train"]:
        case = cache.cases[name]
        for z in range(len(case.image)):
            pair = []
            for what, array in (("image", case.image[z]), ("label", case.label[z])):
                path = folder / f"{name}_{z:03d}_{what}.nii.gz"
                if not path.exists():
                    volume = nibabel.Nifti1Image(array.T[:, :, None].copy(), case.affine)
                    nibabel.save(volume, path)
                pair.append(path)
            files.append((pair[0], pair[1]))
    return files


def augmentation(ours: list[Any]) -> tio.Compose:
    """A usual augmentation of CT slices, with ``ours`` before it."""
    return tio.Compose(
        [
            *ours,
            tio.RandomAffine(scales=(0.9, 1.1, 0.9, 1.1, 1, 1), degrees=(0, 0, 0, 0, -10, 10)),
            tio.RandomNoise(std=(0, 10)),
            tio.Clamp(-160, 240),
            tio.RescaleIntensity((-1, 1), in_min_max=(-160, 240)),
        ]
    )


def speed(files: list[tuple[Path, Path]], ours: list[Any], count: int) -> float:
    """Slices a second, from the first batch on, of ``count`` slices in new workers."""
    listed = [files[i % len(files)] for i in range(count)]
    subjects = [tio.Subject(ct=tio.ScalarImage(a), organ=tio.LabelMap(b)) for a, b in listed]
    torch.manual_seed(SEED)
    loader = tio.SubjectsLoader(
        tio.SubjectsDataset(subjects, transform=augmentation(ours)),
        batch_size=BATCH,
        num_workers=WORKERS,
    )
    batches = iter(loader)
    next(batches)
    started, done = time.perf_counter(), 0
    for batch in batches:
        done += len(batch["ct"]["data"])
    return done / (time.perf_counter() - started)


def measure(
    files: list[tuple[Path, Path]], bank: Path, count: int, repeats: int
) -> dict[str, list[float]]:
    """Speeds by what is measured, in turns; every other turn runs backwards."""
    ways: dict[str, list[Any]] = {"without": []}
    for p in PROBABILITIES:
        ways[f"p = {p:g}"] = [RandomSynthesis(bank, p=p)]
    told: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats):
        for name in list(ways)[:: 1 if turn % 2 == 0 else -1]:
            told[name].append(speed(files, ways[name], count))
    return told


def claims(told: dict[str, list[float]]) -> list[Claim]:
    """The median of the paired ratios, for each probability of replacing."""
    return [
        Claim(
            f"slices a second over the same without, {WORKERS} workers, {name}",
            median(a / b for a, b in zip(told[name], told["without"], strict=True)),
            ">=",
            0.8,
            "x",
        )
        for name in told
        if name != "without"
    ]


def prepared(how: Asked) -> tuple[list[tuple[Path, Path]], Path]:
    """The files of the slices, and the bank."""
    files = write_slices(phantom_cache(how.work), how.work / "slices")
    few, bank = how.work / "few.safetensors", how.work / "bank"
    if not few.exists():
        with_few_steps(weights(how), few)
    synthesize(Generator.from_pretrained(few), BANK, bank, uncertainty=1)
    return files, bank


def main() -> int:
    """Measure and report."""
    how = asked()
    files, bank = prepared(how)
    count = 128 if how.quick else SLICES
    told = measure(files, bank, count, 2 if how.quick else REPEATS)
    note = (
        f"64 x 64, batch {BATCH}, {WORKERS} workers, {BANK} samples in the bank, new workers each "
        "time; affine, noise, clamp and rescaling follow. Medians of paired ratios, in turns."
    )
    return report(how, "pipeline", claims(told), told, n=count, seed=SEED, note=note)


if __name__ == "__main__":
    sys.exit(main())
