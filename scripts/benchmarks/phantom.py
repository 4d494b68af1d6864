"""The demo's model against phantom patients that nobody has trained on."""

import sys
from dataclasses import asdict

from material import demo_folder, phantom_cache, run_demo
from results import Asked, Claim, asked, report

from medaug.cli.demonstration import LABEL
from medaug.data.cache.prepare import CacheSettings
from medaug.evaluation.metrics.mask_shapes import MaskSummary, real_masks, synthetic_masks
from medaug.synthesis.generator import Generator

UNSEEN = 20261121
PATIENTS = 12
SAMPLES = 512


def unseen(asked: Asked, generator: Generator) -> MaskSummary:
    """What new phantom patients look like where the generator looks."""
    data = generator.settings.data
    settings = CacheSettings(size=data.size, fov_mm=data.fov_mm, center=data.center, holdout=0)
    cache = phantom_cache(asked.work, 2 if asked.quick else PATIENTS, UNSEEN, settings)
    label = generator.labels[LABEL]
    # with nobody held out, all patients stand under train; this model trained on none of them
    return real_masks(cache, label, data.window_hu, "train", data.min_label_pixels)


def claims(real: MaskSummary, synthetic: MaskSummary) -> list[Claim]:
    """HU, area and place of the synthetic masks against those of the unseen patients."""
    off = abs(synthetic.hu_median - real.hu_median)
    area = 100 * abs(synthetic.area_mm2_median / real.area_mm2_median - 1)
    return [
        Claim("median HU in the mask, difference", off, "<=", 25, "HU"),
        Claim("median mask area, difference", area, "<=", 25, "%"),
        Claim("masks non-empty and inside the body", 100 * synthetic.sound, ">=", 95, "%"),
    ]


def main() -> int:
    """Measure and report."""
    how = asked()
    run_demo(how)  # finds it done where the row demo has run
    generator = Generator.from_pretrained(demo_folder(how) / "run")
    n = 64 if how.quick else SAMPLES
    synthetic = synthetic_masks(generator.generate(n, uncertainty=0), generator.labels[LABEL])
    real = unseen(how, generator)
    figures = {
        "real": asdict(real),
        "synthetic": asdict(synthetic),
        "images_trained": generator.images,
        "patients": 2 if how.quick else PATIENTS,
        "patients_seed": UNSEEN,
        "weights": generator.fingerprint[:12],
    }
    note = "Samples of seed 0 without alternatives; the patients have a phantom seed of their own."
    return report(how, "phantom", claims(real, synthetic), figures, n=n, seed=0, note=note)


if __name__ == "__main__":
    sys.exit(main())
