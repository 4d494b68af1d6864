"""Drawing by ``torch.compile`` against the networks as they are written.

Blocks of both are drawn in turns.  What the first block takes beyond another one is counted, once
with nothing kept from earlier runs and once, in a process of its own, with that of the first; so is
the number of samples from which on compiling has paid back, image and alternatives counted as the
command draws them by default.
"""

import os
import shutil
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from results import Asked, Claim, asked, fresh, report
from synthesize import weights

from medaug.synthesis.compile import CACHE
from medaug.synthesis.generator import Generator

ALTERNATIVES = 8
PAIRS = 5


def measure(path: str, kept: str, alternatives: int, pairs: int) -> dict[str, Any]:
    """Seconds a block of both, of the first compiled one, and their distance from float32 in HU."""
    os.environ[CACHE] = kept
    plain, compiled, exact = (Generator.from_pretrained(path, "cpu") for _ in range(3))
    exact.precision = "float32"
    started = time.perf_counter()
    compiled.compile()
    compiled.block(0, uncertainty=1)
    first = time.perf_counter() - started
    plain.block(0, uncertainty=1)
    seconds: dict[str, list[float]] = {"plain": [], "compiled": []}
    errors: dict[str, list[float]] = {"plain": [], "compiled": []}
    for number in range(pairs):
        drawn = {}
        sides = {"plain": plain, "compiled": compiled}
        for side in list(sides)[:: 1 if number % 2 == 0 else -1]:
            before = time.perf_counter()
            drawn[side] = sides[side].block(number, uncertainty=alternatives)
            seconds[side].append(time.perf_counter() - before)
        for i, wanted in enumerate(exact.block(number, uncertainty=0)):
            for side, found in drawn.items():
                errors[side].append(
                    float(np.abs(wanted.image - found[i].image.astype(float)).mean())
                )
    return {
        "first_block_seconds": first,
        "block_seconds": seconds,
        "precision": plain.precision,
        "mean_error_hu": {side: float(np.mean(found)) for side, found in errors.items()},
        "block_size": plain.block_size,
    }


def gain(told: dict[str, Any]) -> float:
    """The median of the paired ratios."""
    sides = told["block_seconds"]
    return median(a / b for a, b in zip(sides["plain"], sides["compiled"], strict=True))


def pays_back_after(told: dict[str, Any]) -> float:
    """Samples whose drawing saves what the first block took; infinite where nothing is saved."""
    plain, compiled = (median(told["block_seconds"][side]) for side in ("plain", "compiled"))
    saved = (plain - compiled) / told["block_size"]
    return told["first_block_seconds"] / saved if saved > 0 else float("inf")


def claims(cold: dict[str, Any], warm: dict[str, Any]) -> list[Claim]:
    """What the switch promises: it gains, and it pays back within the README's 5000 samples."""
    return [
        Claim("drawing, as written over compiled, time", gain(cold), ">=", 1.1, "x"),
        Claim("samples after which compiling has paid back", pays_back_after(cold), "<=", 5000),
        Claim("the same, with what is kept from a run before", pays_back_after(warm), "<=", 500),
        Claim(
            "distance from float32, compiled over as written",
            (1e-3 + cold["mean_error_hu"]["compiled"]) / (1e-3 + cold["mean_error_hu"]["plain"]),
            "<=",
            1.2,
            "x",
        ),
    ]


def both(how: Asked, path: Path, alternatives: int, pairs: int) -> list[dict[str, Any]]:
    """With nothing kept, and with what that left."""
    kept = how.work / "compiled"
    shutil.rmtree(kept, ignore_errors=True)
    told = [fresh("compiled", "measure", path, kept, alternatives, pairs) for _ in range(2)]
    shutil.rmtree(kept)
    return told


def main() -> int:
    """Measure and report."""
    how = asked()
    alternatives, pairs = (1, 2) if how.quick else (ALTERNATIVES, PAIRS)
    path = weights(how)
    cold, warm = both(how, path, alternatives, pairs)
    note = (
        f"Blocks of {cold['block_size']} samples at 64 x 64 with {alternatives} alternatives, the "
        f"shipped phantom weights, {pairs} pairs in turns; paying back counts compiling and the "
        "first block against what later ones save."
    )
    figures = {"nothing kept": cold, "kept from a run before": warm}
    return report(how, "compiled", claims(cold, warm), figures, n=pairs, seed=0, note=note)


if __name__ == "__main__":
    sys.exit(main())
