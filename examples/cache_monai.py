"""A segmentation network fed by MONAI from a slice cache.

    python examples/cache_monai.py                 # seconds on two cores

`SliceDataset` is a dictionary data set: MONAI's transforms and loader take it as it is. The cache
holds phantom patients, drawn by a program; with your own scans name your cache in their place:
`python examples/cache_monai.py --cache cache/pancreas-128px-400mm`.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from monai.data import DataLoader
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from monai.transforms import Compose, RandAffined, RandGaussianNoised, ScaleIntensityRanged
from monai.utils import set_determinism

from medaug.data import SliceDataset
from medaug.data.cache.prepare import CacheSettings, prepare
from medaug.data.sources.phantom.source import Phantom

KEYS = ["image", "label"]
SCALE = ScaleIntensityRanged("image", -160, 240, -1, 1, clip=True)


def phantoms(folder: Path) -> Path:
    """A cache of three phantom patients, one held out."""
    people = Phantom(folder / "people", 3, shape=(96, 96, 32), spacing_mm=(4, 4, 6))
    prepare(people, folder / "cache", CacheSettings(size=64, fov_mm=360, holdout=0.34))
    return folder / "cache"


def forever(loader: DataLoader) -> Iterator[dict]:
    """Its batches, epoch after epoch."""
    while True:
        yield from loader


def train(cache: Path, batches: int) -> None:
    """Train on the patients of training, and say how the mask of those held out is met."""
    transform = Compose(
        [
            RandAffined(KEYS, prob=0.5, rotate_range=0.1, scale_range=0.1,
                        mode=("bilinear", "nearest"), padding_mode="border"),
            SCALE,
            RandGaussianNoised("image", prob=0.5, std=0.05),
        ]
    )  # fmt: skip
    real = SliceDataset(cache, labels=["pancreas"], min_label_pixels=5, transform=transform)
    print(f"{len(real)} training slices of {', '.join(real.cases)}")
    loader = DataLoader(real, batch_size=8, shuffle=True, num_workers=2, persistent_workers=True)
    network = UNet(2, 1, 2, channels=(16, 32, 64), strides=(2, 2))
    loss = DiceCELoss(to_onehot_y=True, softmax=True)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    for number, batch in zip(range(1, batches + 1), forever(loader), strict=False):
        value = loss(network(batch["image"]), batch["label"])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        print(f"batch {number}: loss {value.item():.3f}")

    heldout = SliceDataset(cache, "heldout", labels=["pancreas"], transform=SCALE)
    hit = marked = 0
    for batch in DataLoader(heldout, batch_size=8):
        with torch.no_grad():
            found = network(batch["image"]).argmax(1, keepdim=True)
        hit += int((found * batch["label"]).sum())
        marked += int((found + batch["label"]).sum())
    print(f"Dice on {', '.join(heldout.cases)}: {2 * hit / max(marked, 1):.2f}")


def main() -> None:
    """Train for a few batches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--cache", type=Path, help="a cache of your own")
    arguments = parser.parse_args()
    set_determinism(0)
    with tempfile.TemporaryDirectory() as folder:
        train(arguments.cache or phantoms(Path(folder)), arguments.batches)


if __name__ == "__main__":
    main()
