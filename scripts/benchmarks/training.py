"""Training speed: against bare loops of the same games, waiting for data, and by threads.

*train* plays the rounds of the loop that ``fit`` would run: feed, warps, guards, account, average;
snapshots are left out.  Blocks of both sides take turns, and the figure is the median of their
ratios.  *wait* is how much of its time the loop waits for data, as ``fit`` itself reports it.
*threads* holds torch's own number of threads, one for each core or what OMP_NUM_THREADS says, which
medaug leaves as it is, against others, each in a process of its own.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from loops import bare, pace
from material import PATIENTS, PHASES, SEED, cached, phantom_cache, weights
from processes import fresh
from results import Claim, Measured, Setup
from timing import clocked, in_turns, ratio

from medaug.core.config import resolve
from medaug.data.cache.prepare import SliceCache
from medaug.models import build
from medaug.synthesis.generator import Generator
from medaug.training import loop

BATCH = 32
PAIRS, BLOCK_SECONDS = 7, 2.5
GAMES: dict[str, dict[str, Any]] = {
    **{f"spatial_vaegan, {phase}": model for phase, model in PHASES.items()},
    "vaegan author": {"name": "vaegan"},
    "wgan_gp modern": {"name": "wgan_gp"},
    "wgan_gp author": {"name": "wgan_gp", "preset": "author"},
}
IMAGES = 20_000
RUNS: dict[str, dict[str, Any]] = {"as configured": {}, **PHASES}
"""The default model for CT as a whole, then each of its phases by itself."""
SIZE = 64
SECONDS, BLOCKS, TURNS = 8.0, 2, 3
OWN = "torch's own"


class Rounds:
    """A run that ``fit`` would train, set up and handed over before its first round."""

    def __init__(self, training: loop.Training) -> None:
        self.training, self.data = training, training.batches()
        self.config, self.feed, self.model = training.config, training.feed, training.model
        self.players, self.runner = training.players, training.runner

    def round(self) -> int:
        """Play one round; returns the images seen."""
        return loop.play_round(self.training, self.data)


def set_up(
    cache: SliceCache, model: dict[str, Any], run: Path, device: str = "auto", **train: Any
) -> Rounds:
    """Set up a new run as ``fit`` does."""
    shutil.rmtree(run, ignore_errors=True)
    config = {
        "data": {"name": "phantom", "size": cache.settings.size},
        "model": model,
        "train": {"images": 10**9, "batch": BATCH, **train},
    }
    with loop.set_up(resolve(config), cache, run, device) as training:
        loop.resume(training)
        return Rounds(training)


def bare_twin(trainer: Rounds) -> Callable[[], int]:
    """The bare loop of the same game from the same weights, on the first batch of the feed."""
    settings = trainer.config.model
    twin = build(settings.name, settings.arguments, trainer.feed.shape).to(trainer.feed.device)
    twin.load_state_dict(trainer.model.state_dict())
    if trainer.players.precision == "bfloat16":
        loop.channels_last(twin)
    turn = twin.turns(0.0)[0]
    x = trainer.feed.batch(0, trainer.config.train.batch * turn.batches).x
    twin_loop = bare(twin.train(), x, trainer.players.precision)

    def round() -> int:
        twin_loop.step()
        return twin_loop.images

    return round


def compared(trainer: Rounds, pairs: int, seconds: float) -> dict[str, Any]:
    """Speeds of both sides, block by block in turns."""
    twin = bare_twin(trainer)

    def ours(_: int) -> float:
        found = pace(trainer.round, seconds)
        trainer.players.loss_log.means()  # read now and then, as ``fit`` does
        return found

    for side in (trainer.round, twin):  # the first rounds choose kernels and fill allocators
        pace(side, seconds)
    speeds = in_turns({"medaug": ours, "bare": lambda _: pace(twin, seconds)}, pairs)
    return {"precision": trainer.players.precision} | {
        f"{side}_images_per_s": found for side, found in speeds.items()
    }


def train_claims(figures: dict[str, dict[str, Any]]) -> list[Claim]:
    """Each game's ratio against the bound."""
    ratios = {
        name: ratio(found["medaug_images_per_s"], found["bare_images_per_s"])
        for name, found in figures.items()
    }
    return [Claim(f"speed over a bare loop, {k}", v, ">=", 0.9, "x") for k, v in ratios.items()]


def measure_train(setup: Setup) -> Measured:
    """Training speed against bare loops."""
    cache = phantom_cache(setup.work)
    pairs, seconds = (3, 0.5) if setup.quick else (PAIRS, BLOCK_SECONDS)
    figures = {
        name: compared(set_up(cache, model, setup.work / "train"), pairs, seconds)
        for name, model in GAMES.items()
    }
    note = (
        f"64 pixels, image and mask, batch {BATCH}, {PATIENTS} phantom patients; {pairs} pairs of "
        f"blocks of {seconds:g} s, in turns."
    )
    return Measured(train_claims(figures), figures, pairs, SEED, note)


def waited(cache: SliceCache, model: dict[str, Any], images: int, run: Path) -> dict[str, float]:
    """Train in ``run`` from nothing; what the loop reports."""
    shutil.rmtree(run, ignore_errors=True)
    config = {"data": {"name": "phantom", "size": 64}, "model": model, "train": {"images": images}}
    done = loop.fit(resolve(config), cache, run)
    return {"images": done.images, "seconds": done.seconds, "waited_seconds": done.waited}


def wait_claims(figures: dict[str, dict[str, float]]) -> list[Claim]:
    """The share of each run against the bound."""
    shares = {k: 100 * run["waited_seconds"] / run["seconds"] for k, run in figures.items()}
    return [Claim(f"share of training time, {k}", v, "<", 1, "%") for k, v in shares.items()]


def measure_wait(setup: Setup) -> Measured:
    """The share of time that training waits for data."""
    cache = phantom_cache(setup.work)
    images = 640 if setup.quick else IMAGES
    figures = {
        name: waited(cache, model, images if not model else images // 3, setup.work / "wait")
        for name, model in RUNS.items()
    }
    note = f"The default CT model at 64 pixels, batch 32, on {PATIENTS} phantom patients."
    return Measured(wait_claims(figures), figures, images, SEED, note)


def by_threads(work: str, path: str, threads: int, seconds: float, blocks: int) -> dict[str, float]:
    """Training images a second in each phase, and samples drawn a second; 0: torch's own number."""
    if threads:
        torch.set_num_threads(threads)
    found = {}
    for phase, model in PHASES.items():
        trainer = set_up(cached(Path(work), SIZE), model, Path(work) / "run-threads")
        pace(trainer.round, 1.0)
        found[f"training, {phase}"] = pace(trainer.round, seconds)
    generator = Generator.from_pretrained(path, "cpu")
    generator.block(0, uncertainty=1)
    took = clocked(lambda: [generator.block(number, uncertainty=1) for number in range(blocks)])
    found["drawing"] = blocks * generator.block_size / took["seconds"]
    return {**found, "threads": torch.get_num_threads()}


def numbers(cores: int) -> dict[str, int]:
    """What is set: nothing, one thread, two for each core."""
    return {OWN: 0, "1": 1, str(2 * cores): 2 * cores}


def threads_claims(found: dict[str, list[dict[str, float]]]) -> list[Claim]:
    """torch's own number against the best of the others, by what is done."""
    claims = []
    for what in (name for name in found[OWN][0] if name != "threads"):
        speeds = {name: median(turn[what] for turn in turns) for name, turns in found.items()}
        own = speeds.pop(OWN) / max(speeds.values())
        claims.append(Claim(f"{what}: {OWN} number over the best other", own, ">=", 0.95, "x"))
    return claims


def measure_threads(setup: Setup) -> Measured:
    """Training and drawing by numbers of threads."""
    cached(setup.work, SIZE)
    path = weights(setup)
    turns, seconds, blocks = (1, 0.5, 1) if setup.quick else (TURNS, SECONDS, BLOCKS)

    def side(threads: int) -> Callable[[int], Any]:
        return lambda _: fresh("training", "by_threads", setup.work, path, threads, seconds, blocks)

    found = in_turns({k: side(n) for k, n in numbers(len(os.sched_getaffinity(0))).items()}, turns)
    note = (
        f"{SIZE} pixels, image and mask, the default CT model, batch 32, {PATIENTS} phantom "
        f"patients, blocks of {seconds:g} s, {turns} turns; drawing with one alternative."
    )
    return Measured(threads_claims(found), found, turns, SEED, note)
