"""Run the demo on phantom patients: cache, training, synthesis, a comparison with real slices.

Training starts from the small phantom weights that ship with the package, made by ``scripts/
weights`` on other phantom patients, and continues on the demo's own; ``scratch`` starts from noise.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import medaug
from medaug.core.config import merge
from medaug.core.text import tell
from medaug.data.cache.prepare import SliceCache
from medaug.data.sources.phantom.source import Phantom
from medaug.evaluation.metrics.mask_shapes import MaskSummary, real_masks, synthetic_masks
from medaug.runtime.files import write_json
from medaug.synthesis.filter.choose import filter_for_run
from medaug.synthesis.filter.settings import FilterConfig
from medaug.synthesis.generator import Generator
from medaug.synthesis.synthesize import synthesize
from medaug.training.loop import TrainReport
from medaug.training.workflow import train

SHIPPED = Path(medaug.__file__).parent / "weights" / "phantom.safetensors"
LABEL = "pancreas"
PATIENTS = 20

SETTINGS: dict[str, Any] = {
    "data": {"size": 64, "fov_mm": 360, "min_label_pixels": 10, "augment": {"shift": 0.04}},
    "model": {"phases": [0.16, 0.32], "lr": 3e-4},
    "train": {"images": 50000, "batch": 32, "snapshot_every": 10000, "ema_half_life": 2000},
}
"""Sized for about three minutes of training on two cores with bfloat16."""

FILTER = FilterConfig(segmenter_images=1500)
"""A segmenter learns the one label of a phantom from fewer images than the default."""


@dataclass(frozen=True)
class DemoReport:
    """What the demo made, and how its model's draws compare with held-out phantom patients.

    The figures are of all draws; ``refused`` counts by reason those that the filter kept back.
    """

    out: Path
    run: Path
    preview: Path
    samples: int
    images: int
    real: MaskSummary
    synthetic: MaskSummary
    refused: dict[str, int]

    def __str__(self) -> str:
        rows = [
            ("median HU inside the mask", "hu_median", ".0f"),
            ("median mask area, mm2", "area_mm2_median", ".0f"),
            ("masks not empty and inside the body", "sound", ".1%"),
        ]
        lines = [f"{'':38}{'held out':>10}{'synthetic':>11}"]
        lines += [
            f"{name:38}{getattr(self.real, key):>10{form}}{getattr(self.synthetic, key):>11{form}}"
            for name, key, form in rows
        ]
        if self.refused:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.refused.items())
            lines += ["", f"refused by the filter and drawn again: {reasons}"]
        lines += ["", f"{self.samples} synthetic slices in {self.out}", f"look at {self.preview}"]
        return "\n".join(lines)


def run_demo(
    out: Path,
    *,
    n: int = 64,
    images: int | None = None,
    scratch: bool = False,
    device: str = "auto",
) -> DemoReport:
    """Make annotated synthetic slices of phantoms in ``out``; called again it resumes.

    Args:
        out: the folder for everything: phantom, cache, run and slices.
        n: how many slices to synthesise.
        images: training images; None for 50,000.
        scratch: start from noise instead of the shipped phantom weights.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        MedaugError: anything the user can correct.
    """
    start = "phantom weights that ship with medaug, made on other phantom patients."
    tell(
        "The patients of this demo are drawn by a program; nobody was scanned."
        + ("" if scratch else f" Training starts from {start}")
    )
    # train on phantoms
    trained: TrainReport
    _, trained = train(
        "phantom",
        SETTINGS if images is None else merge(SETTINGS, {"train": {"images": images}}),
        source=Phantom(out / "phantom", PATIENTS),
        cache=out / "cache",
        run=out / "run",
        device=device,
        init=None if scratch else SHIPPED,
    )
    # write slices, filtered unless the run was cut short: its draws would all be refused
    generator = Generator.from_pretrained(trained.run, device)
    folder = out / "synthetic"
    settings = generator.settings.data
    chosen = None
    if not scratch and images is None:
        chosen = filter_for_run(
            trained.run, generator.kind, generator.masks, settings, FILTER, device=device
        )
    made = synthesize(generator, n, folder, filter=chosen)
    # compare the masks with those of held-out patients
    label = generator.labels[LABEL]
    opened = SliceCache.open(out / "cache")
    real = real_masks(opened, label, settings.window_hu, "heldout", settings.min_label_pixels)
    synthetic = synthetic_masks(generator.generate(n, uncertainty=0), label)
    write_json(out / "report.json", {"real": vars(real), "synthetic": vars(synthetic)})
    preview = folder / "preview.png"
    return DemoReport(
        folder, trained.run, preview, n, trained.images, real, synthetic, made.refused
    )
