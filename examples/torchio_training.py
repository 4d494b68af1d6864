"""A segmentation network fed by torchio, with synthetic slices in the place of some real ones.

    python examples/torchio_training.py            # under a minute on a CPU

The "real" slices are three phantom patients; the synthetic ones come from the phantom weights that
ship with medaug. With your own scans put your cache and your run in their place.
"""

import argparse
import tempfile
from pathlib import Path

import torch
import torchio as tio
from monai.losses import DiceCELoss
from monai.networks.nets import UNet

from medaug.data.cache import CacheSettings, SliceCache, prepare
from medaug.data.phantom import Phantom
from medaug.demo import SHIPPED
from medaug.torchio import RandomSynthesis


def subjects(cache: SliceCache) -> list[tio.Subject]:
    """One torchio subject a training slice that shows the pancreas, one slice thick."""
    made = []
    for name in cache.split["train"]:
        case = cache.cases[name]
        for z in (case.label_pixels["pancreas"] > 4).nonzero()[0]:
            image = torch.tensor(case.image[z].T.copy())[None, ..., None].float()
            label = torch.tensor(case.label[z].T.copy())[None, ..., None]
            made.append(
                tio.Subject(
                    ct=tio.ScalarImage(tensor=image, affine=case.affine),
                    pancreas=tio.LabelMap(tensor=label, affine=case.affine),
                )
            )
    return made


def main() -> None:
    """Train for a few batches and print the loss."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--weights", type=Path, default=SHIPPED)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        prepare(Phantom(Path(folder) / "people", patients=3), cache, CacheSettings(size=64))
        transform = tio.Compose(
            [
                RandomSynthesis(arguments.weights, p=0.5, pool=32),
                tio.Clamp(-160, 240),
                tio.RescaleIntensity((-1, 1), in_min_max=(-160, 240)),
            ]
        )
        data = tio.SubjectsDataset(subjects(SliceCache.open(cache)), transform=transform)
        loader = tio.SubjectsLoader(data, batch_size=8, shuffle=True, num_workers=2)
        network = UNet(2, 1, 2, channels=(16, 32, 64), strides=(2, 2))
        loss = DiceCELoss(to_onehot_y=True, softmax=True)
        optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
        done = 0
        while done < arguments.batches:
            for batch in loader:
                x, y = batch["ct"]["data"][..., 0], batch["pancreas"]["data"][..., 0]
                value = loss(network(x.float()), y)
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                done += 1
                print(f"batch {done}: loss {value.item():.3f}")
                if done == arguments.batches:
                    break


if __name__ == "__main__":
    main()
