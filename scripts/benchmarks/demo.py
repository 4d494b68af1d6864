"""The demo: its time, its masks against unseen phantom patients; and how soon medaug starts.

*demo* keeps the demo's preview and report.  *phantom* holds its model against phantom patients
that no model has trained on.
"""

import json
import resource
import shutil
import subprocess
import sys
from dataclasses import asdict

from material import demo_command, phantom_cache, run_demo
from results import ROOT, Claim, Measured, Setup
from timing import clocked

from medaug.cli.demonstration import LABEL
from medaug.data.cache.prepare import CacheSettings
from medaug.evaluation.metrics.mask_shapes import MaskSummary, real_masks, synthetic_masks
from medaug.synthesis.generator import Generator

REPEATS = 5
HEAVY = ("torch", "monai", "torchio")
UNSEEN, PATIENTS, SAMPLES = 20261121, 12, 512


def demo_claims(seconds: float) -> list[Claim]:
    """The demo's time against its bound."""
    return [Claim("wall time after install", seconds, "<", 300, "s")]


def measure_demo(setup: Setup) -> Measured:
    """How long ``scripts/demo`` takes once medaug is installed."""
    folder = setup.work / "demo"
    shutil.rmtree(folder, ignore_errors=True)
    seconds = clocked(lambda: run_demo(setup))["seconds"]
    setup.results.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "synthetic" / "preview.png", setup.results / "demo.png")
    figures = {
        "demo_command": " ".join(demo_command(setup)),
        "peak_gb_of_a_process": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9,
        "report": json.loads((folder / "report.json").read_text()),
        "seconds": seconds,
    }
    return Measured(demo_claims(seconds), figures, 1, 0, "Picture: demo.png.")


def loaded() -> list[str]:
    """The top-level packages that ``import medaug`` loads."""
    code = "import sys, medaug; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE)
    return sorted({name.partition(".")[0] for name in done.stdout.decode().split()})


def startup_claims(times: list[float], packages: list[str]) -> list[Claim]:
    """The best time, and how many heavy packages were loaded."""
    heavy = len(set(HEAVY) & set(packages))
    return [
        Claim(f"medaug --help, best of {len(times)}", min(times), "<", 0.4, "s"),
        Claim(f"of {', '.join(HEAVY)} loaded by import medaug", heavy, "<=", 0),
    ]


def measure_startup(setup: Setup) -> Measured:
    """How long ``medaug --help`` takes, after one run to warm the page cache."""
    command = [ROOT / ".venv" / "bin" / "medaug", "--help"]
    times = [
        clocked(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))["seconds"]
        for _ in range(1 + (2 if setup.quick else REPEATS))
    ][1:]
    packages = loaded()
    figures = {
        "help_seconds": times,
        "heavy_packages_loaded": sorted(set(HEAVY) & set(packages)),
        "packages_loaded": len(packages),
    }
    return Measured(startup_claims(times, packages), figures, len(times), None)


def phantom_claims(real: MaskSummary, synthetic: MaskSummary) -> list[Claim]:
    """HU, area and place of the synthetic masks against those of the unseen patients."""
    off = abs(synthetic.hu_median - real.hu_median)
    area = 100 * abs(synthetic.area_mm2_median / real.area_mm2_median - 1)
    return [
        Claim("median HU in the mask, difference", off, "<=", 25, "HU"),
        Claim("median mask area, difference", area, "<=", 25, "%"),
        Claim("masks non-empty and inside the body", 100 * synthetic.sound, ">=", 95, "%"),
    ]


def measure_phantom(setup: Setup) -> Measured:
    """The demo's masks against those of new phantom patients."""
    run_demo(setup)  # finds it done where the row demo has run
    generator = Generator.from_pretrained(setup.work / "demo" / "run")
    n, patients = (64, 2) if setup.quick else (SAMPLES, PATIENTS)
    label, data = generator.labels[LABEL], generator.settings.data
    synthetic = synthetic_masks(generator.generate(n, uncertainty=0), label)
    settings = CacheSettings(size=data.size, fov_mm=data.fov_mm, center=data.center, holdout=0)
    cache = phantom_cache(setup.work, patients, UNSEEN, settings)
    # without a holdout all patients are in the part "train"; this model trained on none of them
    real = real_masks(cache, label, data.window_hu, "train", data.min_label_pixels)
    figures = {
        "real": asdict(real),
        "synthetic": asdict(synthetic),
        "images_trained": generator.images,
        "patients": patients,
        "patients_seed": UNSEEN,
        "weights": generator.fingerprint[:12],
    }
    note = "Samples of seed 0 without alternatives; the patients have a phantom seed of their own."
    return Measured(phantom_claims(real, synthetic), figures, n, 0, note)
