"""A segmentation network fed by MONAI from files, with synthetic pairs and a classical rival.

    python examples/monai_training.py              # under a minute on two cores

The slices are written once into one folder in nnU-Net's layout: real training slices (here phantom
patients, drawn by a program) and synthetic ones beside them (here from the phantom weights that
ship with medaug). Training reads the real ones; `RandSynthesisd` replaces some of them by a
synthetic pair from the folder, and `RandCopyPasted` pastes another real patient's pancreas.
A folder serves any number of loader workers, since no model runs in them.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from monai.data import CacheDataset, DataLoader, Dataset
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    RandGaussianNoised,
    ScaleIntensityRanged,
    SqueezeDimd,
)
from monai.utils import set_determinism

from medaug import Generator
from medaug.cli.demonstration import SHIPPED
from medaug.data.cache.prepare import CacheSettings, prepare
from medaug.data.sources.phantom.source import Phantom
from medaug.monai import RandCopyPasted, RandSynthesisd
from medaug.synthesis.synthesize import synthesize

KEYS = ["image", "label"]


def write_slices(folder: Path, scratch: Path) -> None:
    """Phantom patients to real slices, and 32 synthetic ones beside them, as NIfTI files."""
    people = Phantom(scratch / "people", 4, shape=(120, 120, 24), spacing_mm=(3.2, 3.2, 8))
    prepare(people, scratch / "cache", CacheSettings(size=64, fov_mm=360))
    generator = Generator.from_pretrained(SHIPPED)
    report = synthesize(generator, 32, folder, uncertainty=0, with_real=scratch / "cache")
    print(f"{report.real} real and {report.total} synthetic slices")


def real_slices(folder: Path) -> CacheDataset:
    """The real cases of the folder, loaded, channel first."""
    labels = sorted((folder / "labelsTr").glob("real_*.nii.gz"))
    files = [
        {
            "image": folder / "imagesTr" / label.name.replace(".nii.gz", "_0000.nii.gz"),
            "label": label,
        }
        for label in labels
    ]
    load = Compose([LoadImaged(KEYS), EnsureChannelFirstd(KEYS)])
    return CacheDataset(files, load, progress=False)


def forever(loader: DataLoader) -> Iterator[dict]:
    """Its batches, epoch after epoch."""
    while True:
        yield from loader


def main() -> None:
    """Train for a few batches and print the loss and what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--out", type=Path, help="keep the slices in this folder")
    arguments = parser.parse_args()
    set_determinism(0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.out or Path(scratch) / "slices"
        write_slices(folder, Path(scratch))
        real = real_slices(folder)
        transform = Compose(
            [
                RandSynthesisd(KEYS, folder, prob=0.5),
                RandCopyPasted(KEYS, real, prob=0.3),
                ScaleIntensityRanged("image", -160, 240, -1, 1, clip=True),  # HU end here
                SqueezeDimd(KEYS, dim=-1),
                RandGaussianNoised("image", prob=0.5, std=0.05),
            ]
        )
        loader = DataLoader(Dataset(real, transform), batch_size=8, shuffle=True, num_workers=2)
        network = UNet(2, 1, 2, channels=(16, 32, 64), strides=(2, 2))
        loss = DiceCELoss(to_onehot_y=True, softmax=True)
        optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
        synthetic = seen = 0
        for number, batch in zip(range(1, arguments.batches + 1), forever(loader), strict=False):
            value = loss(network(batch["image"].as_tensor()), batch["label"].as_tensor())
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            names = [Path(str(name)).name for name in batch["image"].meta["filename_or_obj"]]
            synthetic += sum(name.startswith("syn_") for name in names)
            seen += len(names)
            print(f"batch {number}: loss {value.item():.3f}")
        print(f"{synthetic} of {seen} slices seen were synthetic")


if __name__ == "__main__":
    main()
