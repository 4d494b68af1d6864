"""How much of its time the training loop waits for data, as ``fit`` itself reports it."""

import shutil
import sys
from pathlib import Path
from typing import Any

from material import PATIENTS, SEED, phantom_cache
from results import Claim, asked, report

from medaug.core.config import resolve
from medaug.data.cache.prepare import SliceCache
from medaug.training.loop import fit

IMAGES = 20_000

RUNS: dict[str, dict[str, Any]] = {
    "as configured": {},
    "autoencode": {"phases": [1, 1]},
    "sharpen": {"phases": [0, 1]},
    "prior": {"phases": [0, 0]},
}
"""The default model for CT as a whole, then each of its phases by itself."""


def measure(cache: SliceCache, model: dict[str, Any], images: int, run: Path) -> dict[str, float]:
    """Train anew in ``run``; what the loop reports."""
    shutil.rmtree(run, ignore_errors=True)
    wishes = {"data": {"name": "phantom", "size": 64}, "model": model, "train": {"images": images}}
    done = fit(resolve(wishes), cache, run)
    return {"images": done.images, "seconds": done.seconds, "waited_seconds": done.waited}


def claims(figures: dict[str, dict[str, float]]) -> list[Claim]:
    """The share of each run against the bound."""
    return [
        Claim(
            f"share of training time, {name}",
            100 * told["waited_seconds"] / told["seconds"],
            "<",
            1,
            "%",
        )
        for name, told in figures.items()
    ]


def main() -> int:
    """Measure and report."""
    how = asked()
    cache = phantom_cache(how.work)
    images = 640 if how.quick else IMAGES
    figures = {
        name: measure(cache, model, images if not model else images // 3, how.work / "wait")
        for name, model in RUNS.items()
    }
    note = f"The default CT model at 64 pixels, batch 32, on {PATIENTS} phantom patients."
    return report(how, "wait", claims(figures), figures, n=images, seed=SEED, note=note)


if __name__ == "__main__":
    sys.exit(main())
