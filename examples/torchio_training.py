"""A segmentation network fed by torchio, with synthetic slices in the place of some real ones.

    python examples/torchio_training.py            # under a minute on two cores

The "real" slices are phantom patients, drawn by a program; the synthetic ones come from the phantom
weights that ship with medaug. With your own scans put your cache and your run in their place.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
import torchio as tio
from monai.losses import DiceCELoss
from monai.networks.nets import UNet

from medaug.cli.demonstration import SHIPPED
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
from medaug.data.sources.phantom.source import Phantom
from medaug.torchio import RandomSynthesis


def subjects(cache: SliceCache) -> list[tio.Subject]:
    """One torchio subject a training slice that shows the pancreas, one slice thick."""
    made = []
    for name in cache.split["train"]:
        case = cache.cases[name]
        for z in (case.label_pixels["pancreas"] >= 5).nonzero()[0]:
            image = torch.tensor(case.image[z].T.copy())[None, ..., None].float()
            label = torch.tensor(case.label[z].T.copy())[None, ..., None]
            affine = case.affine.copy()
            affine[:3, 3] += z * affine[:3, 2]
            made.append(
                tio.Subject(
                    ct=tio.ScalarImage(tensor=image, affine=affine),
                    pancreas=tio.LabelMap(tensor=label, affine=affine),
                )
            )
    return made


def forever(loader: tio.SubjectsLoader) -> Iterator[dict]:
    """Its batches, epoch after epoch."""
    while True:
        yield from loader


def main() -> None:
    """Show what a history keeps, then train for a few batches and print the loss."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--weights", type=Path, default=SHIPPED)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        people = Phantom(Path(folder) / "people", 3, shape=(120, 120, 24), spacing_mm=(3.2, 3.2, 8))
        prepare(people, cache, CacheSettings(size=64, fov_mm=360))
        real = subjects(SliceCache.open(cache))
    print(f"{len(real)} real slices")

    transform = tio.Compose(
        [
            RandomSynthesis(arguments.weights, p=0.5, pool=32),
            tio.Clamp(-160, 240),  # synthesis sees HU, so what rescales them comes after it
            tio.RescaleIntensity((-1, 1), in_min_max=(-160, 240)),
        ]
    )
    data = tio.SubjectsDataset(real, transform=transform)

    seen = [data[0] for _ in range(8)]
    histories = [subject.get_applied_transforms() for subject in seen]
    synthetic = [steps[0].name == "Synthesis" for steps in histories]
    print(f"the first slice, eight times: {sum(synthetic)} times a synthetic pair")
    one = seen[synthetic.index(True)]
    print("history:", ", ".join(step.name for step in one.get_applied_transforms()))
    again = one.get_composed_history()(real[0])
    print("replayed, the same:", torch.equal(one["ct"].data, again["ct"].data))

    loader = tio.SubjectsLoader(data, batch_size=8, shuffle=True, num_workers=2)
    network = UNet(2, 1, 2, channels=(16, 32, 64), strides=(2, 2))
    loss = DiceCELoss(to_onehot_y=True, softmax=True)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    for number, batch in zip(range(1, arguments.batches + 1), forever(loader), strict=False):
        x, y = batch["ct"]["data"][..., 0], batch["pancreas"]["data"][..., 0]
        value = loss(network(x.float()), y)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        print(f"batch {number}: loss {value.item():.3f}")


if __name__ == "__main__":
    main()
