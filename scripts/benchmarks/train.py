"""Training speed against bare loops of the same networks, losses and batch (see ``bare.py``).

On medaug's side it is the rounds of the loop that ``fit`` would run: feed, warps, guards, account,
average.  Snapshots are left out.  Blocks of both sides take turns, so that a machine that slows
down slows both; the figure is the median of their ratios.
"""

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import torch
from bare import loop
from material import PATIENTS, SEED, phantom_cache
from results import Claim, asked, report

import medaug.training.loop
from medaug.core.config import resolve
from medaug.data.cache.prepare import SliceCache
from medaug.models import build

BATCH = 32
PAIRS = 7
BLOCK_SECONDS = 2.5

GAMES: dict[str, dict[str, Any]] = {
    "vaegan modern, autoencode": {"phases": [1, 1]},
    "vaegan modern, sharpen": {"phases": [0, 1]},
    "vaegan modern, prior": {"phases": [0, 0]},
    "vaegan author": {"name": "vaegan"},
    "wgan_gp modern": {"name": "wgan_gp"},
    "wgan_gp author": {"name": "wgan_gp", "preset": "author"},
}


class Rounds(medaug.training.loop._Trainer):
    """What ``fit`` sets up, handed over where it would begin to work."""

    def work(self) -> "Rounds":
        """Hand over."""
        self.model.train()
        return self


def set_up(
    cache: SliceCache, model: dict[str, Any], run: Path, device: str = "auto", **train: Any
) -> Rounds:
    """The very trainer that ``fit`` would let work, in a new run."""
    shutil.rmtree(run, ignore_errors=True)
    wishes = {
        "data": {"name": "phantom", "size": cache.settings.size},
        "model": model,
        "train": {"images": 10**9, "batch": BATCH, **train},
    }
    with mock.patch.object(medaug.training.loop, "_Trainer", Rounds):
        trainer: Any = medaug.training.loop.fit(resolve(wishes), cache, run, device=device)
    return trainer


def bare_twin(trainer: Rounds) -> Callable[[], int]:
    """The bare loop of the same game from the same weights, on the first batch of the feed."""
    settings = trainer.config.model
    twin = build(settings.name, settings.arguments, trainer.feed.shape).to(trainer.feed.device)
    twin.load_state_dict(trainer.model.state_dict())
    if trainer.game.precision == "bfloat16":
        medaug.training.loop.channels_last(twin)
    turn = twin.turns(0.0)[0]
    x = trainer.feed.batch(0, trainer.config.train.batch * turn.batches).x
    bare = loop(twin.train(), x, trainer.game.precision)

    def round() -> int:
        bare.step()
        return bare.images

    return round


def speed(round: Callable[[], int], seconds: float) -> float:
    """Images per second over a block of at least ``seconds``."""
    images, started = 0, time.perf_counter()
    while True:
        images += round()
        if time.perf_counter() - started >= seconds:
            break
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return images / (time.perf_counter() - started)


def measure(trainer: Rounds, pairs: int, seconds: float) -> dict[str, Any]:
    """Speeds of both sides, block by block in turns."""
    bare = bare_twin(trainer)

    def ours() -> float:
        told = speed(trainer.round, seconds)
        trainer.tell(told)  # the account is closed now and then
        return told

    for side in (trainer.round, bare):  # the first rounds choose kernels and fill allocators
        speed(side, seconds)
    medaug_speeds, bare_speeds = [], []
    for number in range(pairs):  # ABBA...
        sides = [
            lambda: medaug_speeds.append(ours()),
            lambda: bare_speeds.append(speed(bare, seconds)),
        ]
        for side in sides if number % 2 == 0 else reversed(sides):
            side()
    return {
        "precision": trainer.game.precision,
        "medaug_images_per_s": medaug_speeds,
        "bare_images_per_s": bare_speeds,
    }


def ratio(told: dict[str, Any]) -> float:
    """The median over pairs of blocks of medaug's speed over the bare loop's."""
    sides = zip(told["medaug_images_per_s"], told["bare_images_per_s"], strict=True)
    return median(ours / bare for ours, bare in sides)


def claims(figures: dict[str, dict[str, Any]]) -> list[Claim]:
    """Each game's ratio against the bound."""
    return [
        Claim(f"speed over a bare loop, {name}", ratio(told), ">=", 0.9, "x")
        for name, told in figures.items()
    ]


def main() -> int:
    """Measure and report."""
    how = asked()
    cache = phantom_cache(how.work)
    pairs, seconds = (3, 0.5) if how.quick else (PAIRS, BLOCK_SECONDS)
    figures = {
        name: measure(set_up(cache, model, how.work / "train"), pairs, seconds)
        for name, model in GAMES.items()
    }
    note = (
        f"64 pixels, image and mask, batch {BATCH}, {PATIENTS} phantom patients; {pairs} pairs of "
        f"blocks of {seconds:g} s, in turns."
    )
    return report(how, "train", claims(figures), figures, n=pairs, seed=SEED, note=note)


if __name__ == "__main__":
    sys.exit(main())
