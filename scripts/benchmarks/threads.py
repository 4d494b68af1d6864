"""Training and drawing by threads: torch's own number of them against others.

``medaug`` leaves the number to torch, which takes one for each core, or what OMP_NUM_THREADS says.
Each number runs in a process of its own, and the numbers take turns.
"""

import os
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from material import PATIENTS, SEED, cached
from results import Claim, asked, fresh, report
from synthesize import weights
from train import set_up, speed

from medaug.synthesis.generator import Generator

SIZE = 64
SECONDS, BLOCKS, TURNS = 8.0, 2, 3
PHASES: dict[str, Any] = {"autoencode": [1, 1], "sharpen": [0, 1], "prior": [0, 0]}
OWN = "torch's own"


def measure(work: str, path: str, threads: int, seconds: float, blocks: int) -> dict[str, float]:
    """Training images a second in each phase, and samples drawn a second; 0: torch's own number."""
    if threads:
        torch.set_num_threads(threads)
    told = {}
    for phase, phases in PHASES.items():
        trainer = set_up(cached(Path(work), SIZE), {"phases": phases}, Path(work) / "run-threads")
        speed(trainer.round, 1.0)
        told[f"training, {phase}"] = speed(trainer.round, seconds)
    generator = Generator.from_pretrained(path, "cpu")
    generator.block(0, uncertainty=1)
    started = time.perf_counter()
    for number in range(blocks):
        generator.block(number, uncertainty=1)
    told["drawing"] = blocks * generator.block_size / (time.perf_counter() - started)
    return {**told, "threads": torch.get_num_threads()}


def numbers(cores: int) -> dict[str, int]:
    """What is set: nothing, one thread, two for each core."""
    return {OWN: 0, "1": 1, str(2 * cores): 2 * cores}


def claims(told: dict[str, list[dict[str, float]]]) -> list[Claim]:
    """torch's own number against the best of the others, by what is done."""
    found = []
    for what in (name for name in told[OWN][0] if name != "threads"):
        speeds = {name: median(turn[what] for turn in turns) for name, turns in told.items()}
        best = max(value for name, value in speeds.items() if name != OWN)
        found.append(
            Claim(f"{what}: {OWN} number over the best other", speeds[OWN] / best, ">=", 0.95, "x")
        )
    return found


def main() -> int:
    """Measure and report."""
    how = asked()
    cached(how.work, SIZE)
    path = weights(how)
    turns, seconds, blocks = (1, 0.5, 1) if how.quick else (TURNS, SECONDS, BLOCKS)
    asked_for = numbers(len(os.sched_getaffinity(0)))
    told: dict[str, list[dict[str, float]]] = {name: [] for name in asked_for}
    for turn in range(turns):
        for name in list(asked_for)[:: 1 if turn % 2 == 0 else -1]:
            number = asked_for[name]
            done = fresh("threads", "measure", how.work, path, number, seconds, blocks)
            told[name].append(done)
    note = (
        f"{SIZE} pixels, image and mask, the default CT model, batch 32, {PATIENTS} phantom "
        f"patients, blocks of {seconds:g} s, {turns} turns; drawing with one alternative."
    )
    return report(how, "threads", claims(told), told, n=turns, seed=SEED, note=note)


if __name__ == "__main__":
    sys.exit(main())
