"""The whole road on the two real scans: train shortly, write 200, read back with SimpleITK.

Two patients prove that the road is passable, not that the model generalises: the masks are
compared with the scans it was trained on.  Training starts from the shipped phantom weights.
"""

import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from prepare import pancreas_ct, unpack
from results import Claim, asked, report

from medaug.cli.demonstration import SHIPPED
from medaug.data.cache.prepare import SliceCache
from medaug.evaluation.metrics.mask_shapes import MaskSummary, real_masks, summary
from medaug.synthesis.generator import Generator
from medaug.synthesis.synthesize import synthesize
from medaug.training.workflow import train

N = 200
IMAGES = 60_000
SOURCE = (
    "Roth et al. 2016, Data From Pancreas-CT (Version 2), The Cancer Imaging Archive, "
    "doi 10.7937/K9/TCIA.2016.tNB1kqBU, CC BY 3.0; the slices shown are synthetic."
)
WISHES: dict[str, Any] = {
    "data": {
        "size": 64,
        "fov_mm": 360,
        "min_label_pixels": 10,
        "augment": {"rotate": 0.1, "scale": 0.1, "shift": 0.04, "elastic": 0.02},
    },
    "model": {"phases": [0.35, 0.65]},
    "train": {"batch": 32, "snapshot_every": 10_000, "ema_half_life": 3000},
}


def read_back(folder: Path, label: int) -> tuple[MaskSummary, int]:
    """The masks as another library reads them, and how many pairs are out of register."""
    pairs, apart, pixel = [], 0, 0.0
    for path in sorted((folder / "labelsTr").glob("*.nii.gz")):
        mask = sitk.ReadImage(str(path))
        name = path.name.replace(".nii.gz", "_0000.nii.gz")
        image = sitk.ReadImage(str(folder / "imagesTr" / name))
        same = (
            image.GetSize() == mask.GetSize()
            and np.allclose(image.GetSpacing(), mask.GetSpacing())
            and np.allclose(image.GetOrigin(), mask.GetOrigin())
            and np.allclose(image.GetDirection(), mask.GetDirection())
        )
        apart += not same
        pixel = mask.GetSpacing()[0] * mask.GetSpacing()[1]
        pairs.append((sitk.GetArrayFromImage(image)[0], sitk.GetArrayFromImage(mask)[0]))
    return summary(pairs, label, pixel), apart


def main() -> int:
    """Measure and report."""
    how = asked()
    data = pancreas_ct("real")
    work = how.work / "real"
    shutil.rmtree(work, ignore_errors=True)
    _, both = unpack(data, work / "scans")
    images = 1200 if how.quick else IMAGES
    wishes = {**WISHES, "train": {**WISHES["train"], "images": images}}
    _, trained = train(
        "pancreas", wishes, root=both, cache=work / "cache", run=work / "run", init=SHIPPED
    )
    generator = Generator.from_pretrained(trained.run)
    n = 16 if how.quick else N
    synthesize(generator, n, work / "synthetic")
    how.results.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(work / "synthetic" / "preview.png", how.results / "real.png")
    label = generator.labels["pancreas"]
    synthetic, apart = read_back(work / "synthetic", label)
    settings = generator.settings.data
    real = real_masks(
        SliceCache.open(work / "cache"), label, settings.window_hu, "train",
        settings.min_label_pixels,
    )  # fmt: skip
    figures = {
        "real": asdict(real),
        "synthetic": asdict(synthetic),
        "images_trained": trained.images,
        "train_seconds": trained.seconds,
        "source": SOURCE,
    }
    claims = [Claim("pairs out of register, read by SimpleITK", apart, "<=", 0)]
    note = "Picture: real.png. Compared with the two scans trained on; see the file's docstring."
    return report(how, "real", claims, figures, n=n, seed=0, note=note)


if __name__ == "__main__":
    sys.exit(main())
