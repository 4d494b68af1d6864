"""Images for masks that you drew yourself, and three answers to how sure such an image is.

    python examples/own_masks.py --out own_masks   # under a minute on two cores

A run in layout mode is given its masks. It learns from eight phantom patients, drawn by a program,
in some 20 seconds: enough to follow a mask, too little for sharp pictures. Then it draws images for
four shapes of pancreas that no patient of its training has, given as a user would give them: as
NIfTI files. The same from the command line:

    medaug train --data SCANS --run RUN --set data.masks=layout --set train.keep_snapshots=4
    medaug synthesize -n 16 --out drawn --run RUN --masks masks --uncertainty-source mask

Drawn from Python, as here, nothing is filtered. The command filters unless `--no-filter` is given:
it refuses what is unlike real slices, and that can be the very shapes you want.
"""

import argparse
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np

from medaug import Generator
from medaug.data.sources.phantom import source as phantom
from medaug.runtime.pictures import grid
from medaug.synthesis.synthesize import synthesize
from medaug.training.workflow import train

BRIEF = {
    "data": {"size": 64, "fov_mm": 360, "masks": "layout"},
    "model": {"width": 16, "prior": "gaussian", "kl_weight": 0.02, "phases": [0.8, 1.0]},
    "train": {"images": 4000, "batch": 16, "snapshot_every": 500, "keep_snapshots": 4},
}
"""For a real run leave `model` and `train` to their defaults, but for `keep_snapshots`."""


def draw_masks(folder: Path) -> None:
    """Four shapes as label maps: 120 x 120 pixels of 3 mm, 1 is the pancreas, x to the Right."""
    folder.mkdir(parents=True, exist_ok=True)
    x, y = np.meshgrid(np.linspace(-178.5, 178.5, 120), np.linspace(-178.5, 178.5, 120))
    radius = np.hypot(x + 5, y - 10)
    shapes = {
        "ring": (radius > 18) & (radius < 38),
        "bulky": ((x + 10) / 60) ** 2 + ((y - 5) / 28) ** 2 < 1,
        "in_two_parts": ((np.abs(x) - 40) / 26) ** 2 + ((y - 8) / 16) ** 2 < 1,
        "winding": (np.abs(y - 12 - 18 * np.sin(x / 22)) < 11) & (np.abs(x) < 70),
    }
    affine = np.array([[3, 0, 0, -178.5], [0, 3, 0, -178.5], [0, 0, 5, 0], [0, 0, 0, 1.0]])
    for name, shape in shapes.items():
        label = shape.T[:, :, None].astype(np.uint8)  # (x, y, z)
        nib.save(nib.Nifti1Image(label, affine), folder / f"{name}.nii.gz")


def main() -> None:
    """Draw masks, train, draw images for them, and show where the alternatives disagree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("own_masks"))
    out = parser.parse_args().out
    masks = out / "masks"
    draw_masks(masks)
    with tempfile.TemporaryDirectory() as folder:
        people, cache, run = (Path(folder) / name for name in ("people", "cache", "run"))
        phantom.write(people, patients=8, seed=3, shape=(120, 120, 24), spacing_mm=(3.2, 3.2, 8))
        train(str(people), BRIEF, cache=cache, run=run)
        print("briefly trained: images follow their masks, blurred, and not always in the right HU")

        # The masks hold the pancreas alone: all around it comes from real slices that suit them.
        generator = Generator.from_pretrained(run, masks=masks)
        print("std in HU and vote entropy in bits, means over the body of four samples:")
        pictures, outlines = [], []
        for source in ("latent", "network", "mask"):
            samples = list(generator.generate(4, uncertainty=8, source=source))
            std = np.mean([sample.std[sample.image > -135].mean() for sample in samples])
            entropy = np.mean([sample.entropy[sample.image > -135].mean() for sample in samples])
            print(f"  {source:8} std {std:5.1f}  entropy {entropy:.4f}")
            for sample in samples:
                pictures += [sample.image, *sample.alternatives[:3]]
                outlines += [sample.label, *sample.alternative_labels[:3]]
        grid(np.stack(pictures), np.stack(outlines), out / "sources.png", across=8)
        for file, sample in zip(sorted(masks.glob("*.nii.gz")), samples, strict=True):
            inside, near = sample.image[sample.label == 1], sample.image[sample.image > -30]
            name = file.name.removesuffix(".nii.gz")
            print(
                f"  {name:13} {np.median(inside):4.0f} HU inside, soft tissue {np.median(near):.0f}"
            )

        # As a data set: 16 samples, each mask deformed a little in four ways.
        bent = Generator.from_pretrained(run, masks=masks, mask_strength=0.5)
        print(synthesize(bent, 16, out / "drawn", uncertainty=4, source="mask"))
    print(f"look at {out / 'sources.png'}: two rows each: latent, network, mask")


if __name__ == "__main__":
    main()
