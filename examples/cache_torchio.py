"""A segmentation network fed by torchio from a slice cache.

    python examples/cache_torchio.py               # seconds on two cores

A function turns each slice into a torchio subject, one slice thick and where it lies in the
patient; torchio's transforms and loader do the rest. The cache holds phantom patients, drawn
by a program; with your own scans name your cache in their place:
`python examples/cache_torchio.py --cache cache/pancreas-128px-400mm`.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torchio as tio
from monai.losses import DiceCELoss
from monai.networks.nets import UNet

from medaug.data import SliceDataset
from medaug.data.cache.prepare import CacheSettings, prepare
from medaug.data.sources.phantom.source import Phantom


class AsSubject:
    """From an item of `SliceDataset` to a torchio subject, transformed."""

    def __init__(self, transform: tio.Transform) -> None:
        self.transform = transform

    def __call__(self, item: dict[str, Any]) -> tio.Subject:
        """The item [1, y, x] as volumes [1, x, y, 1]."""
        image, label = (item[key].mT[..., None] for key in ("image", "label"))
        affine = item["affine"].numpy()
        return self.transform(
            tio.Subject(
                ct=tio.ScalarImage(tensor=image, affine=affine),
                pancreas=tio.LabelMap(tensor=label, affine=affine),
                case=item["case"],
                z=item["z"],
            )
        )


def phantoms(folder: Path) -> Path:
    """A cache of three phantom patients, one held out."""
    people = Phantom(folder / "people", 3, shape=(96, 96, 32), spacing_mm=(4, 4, 6))
    prepare(people, folder / "cache", CacheSettings(size=64, fov_mm=360, holdout=0.34))
    return folder / "cache"


def forever(loader: tio.SubjectsLoader) -> Iterator[dict]:
    """Its batches, epoch after epoch."""
    while True:
        yield from loader


def train(cache: Path, batches: int) -> None:
    """Show where a slice lies, then train on the patients of training."""
    transform = tio.Compose(
        [
            tio.RandomAffine(scales=(0.9, 1.1, 0.9, 1.1, 1, 1), degrees=(0, 0, 0, 0, -10, 10)),
            tio.RandomNoise(std=(0, 10)),
            tio.Clamp(-160, 240),
            tio.RescaleIntensity((-1, 1), in_min_max=(-160, 240)),
        ]
    )
    real = SliceDataset(
        cache, labels=["pancreas"], min_label_pixels=5, transform=AsSubject(transform)
    )
    print(f"{len(real)} training slices of {', '.join(real.cases)}")
    first = real[0]
    height = first["ct"].affine[2, 3]
    print(f"the first: slice {first['z']} of {first['case']}, at {height:.1f} mm, {first['ct']}")
    loader = tio.SubjectsLoader(
        real, batch_size=8, shuffle=True, num_workers=2, persistent_workers=True
    )
    network = UNet(2, 1, 2, channels=(16, 32, 64), strides=(2, 2))
    loss = DiceCELoss(to_onehot_y=True, softmax=True)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    for number, batch in zip(range(1, batches + 1), forever(loader), strict=False):
        x, y = batch["ct"]["data"][..., 0], batch["pancreas"]["data"][..., 0]
        value = loss(network(x.float()), y)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        print(f"batch {number}: loss {value.item():.3f}")


def main() -> None:
    """Train for a few batches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--cache", type=Path, help="a cache of your own")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        train(arguments.cache or phantoms(Path(folder)), arguments.batches)


if __name__ == "__main__":
    main()
