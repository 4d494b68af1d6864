"""A tour in pictures, as cells for a notebook or as a script: what is drawn, how sure, how varied.

    python examples/pictures.py          # writes PNGs to ./pictures, under a minute on two cores

It needs matplotlib, and uses the phantom weights that ship with medaug; no patient was scanned for
any of it. With a run of your own put its folder in the place of SHIPPED, and your cache in the
place of the phantom's.
"""

# %% The model
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from medaug import Generator
from medaug.cli.demonstration import SHIPPED
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
from medaug.data.sources.phantom.source import Phantom

OUT = Path("pictures")
OUT.mkdir(exist_ok=True)
generator = Generator.from_pretrained(SHIPPED)


def show(axis, image, label=None, title="", **style):
    """One slice [y, x] as radiologists look at it: anterior up, the patient's right on the left."""
    style = {"cmap": "gray", "vmin": -160, "vmax": 240, **style}
    drawn = axis.imshow(image, origin="lower", **style)
    if label is not None and label.any():
        axis.contour(label > 0, [0.5], colors="gold", linewidths=1)
    axis.invert_xaxis()
    axis.set_axis_off()
    axis.set_title(title, fontsize=9)
    return drawn


# %% Samples: image and mask from one draw; sample i depends on the weights, the seed and i alone
samples = list(generator.generate(8, seed=0, uncertainty=8))
figure, axes = plt.subplots(2, 4, figsize=(10, 5.4), layout="constrained")
for axis, sample in zip(axes.flat, samples, strict=True):
    area = (sample.label > 0).sum() * np.prod(np.diag(sample.affine)[:2]) / 100
    show(axis, sample.image, sample.label, f"sample {sample.index}, pancreas {area:.0f} cm²")
figure.savefig(OUT / "samples.png", dpi=110)

# %% Alternatives: what else could stand in the place of one sample
sample = max(samples, key=lambda sample: (sample.label > 0).sum())
figure, axes = plt.subplots(3, 3, figsize=(7.5, 8), layout="constrained")
show(axes.flat[0], sample.image, sample.label, f"sample {sample.index}")
pairs = zip(sample.alternatives, sample.alternative_labels, strict=True)
for number, (axis, (image, label)) in enumerate(zip(axes.flat[1:], pairs, strict=True), 1):
    show(axis, image, label, f"alternative {number}")
figure.savefig(OUT / "alternatives.png", dpi=110)

# %% Uncertainty: where the alternatives disagree, in HU and in votes on the mask
figure, axes = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
show(axes[0], sample.image, sample.label, f"sample {sample.index}")
spread = show(axes[1], sample.std, title="standard deviation", cmap="magma", vmin=0, vmax=None)
votes = show(axes[2], sample.entropy, title="entropy of votes", cmap="magma", vmin=0, vmax=1)
figure.colorbar(spread, ax=axes[1], label="HU")
figure.colorbar(votes, ax=axes[2], label="bits")
figure.savefig(OUT / "uncertainty.png", dpi=110)
print(f"std: {sample.std.mean():.1f} HU on average, entropy: up to {sample.entropy.max():.2f} bits")

# %% A real slice: here of a phantom patient, cut from a scan as training does it
with tempfile.TemporaryDirectory() as folder:
    cache = Path(folder) / "cache"
    people = Phantom(Path(folder) / "people", 1, seed=3, shape=(120, 120, 32), spacing_mm=(3, 3, 6))
    settings = generator.settings.data
    prepare(people, cache, CacheSettings(size=settings.size, fov_mm=settings.fov_mm, holdout=0))
    (patient,) = SliceCache.open(cache).cases.values()
    z = np.argmax(patient.label_pixels["pancreas"])
    image, label = np.array(patient.image[z : z + 1]), np.array(patient.label[z : z + 1])

# %% Varied: through the encoder, with growing strength
strengths = (0.1, 0.3, 0.5, 0.7, 1.0)
figure, axes = plt.subplots(3, 6, figsize=(13, 6.8), layout="constrained")
for number, row in enumerate(axes):
    show(row[0], image[0], label[0], "the real slice")
    for axis, strength in zip(row[1:], strengths, strict=True):
        varied, mask = generator.vary(image, label, strength, index=number)
        show(axis, varied[0], mask[0], f"strength {strength}, draw {number}")
        if not number:
            apart = np.abs(np.clip(image, -160, 240) - varied.astype(float))[image > -135].mean()
            print(f"strength {strength}: {apart:.0f} HU from the real slice")
figure.savefig(OUT / "varied.png", dpi=110)
print("pictures in", OUT)
