"""The 64 px VAE/GAN of Larsen et al. on this machine's cores: medaug against the peers' trainers.

All train the same networks from the same weights on the same slices, batch and precision.  Each
side runs in a process of its own, as its users would run it, and the sides take turns.
"""

import sys
from pathlib import Path
from statistics import median
from typing import Any

import torch
from material import PATIENTS, SEED, cached
from plain import Done, Watch
from results import Asked, Claim, asked, fresh, report
from rivals import RIVALS, SMALLER, speed_of
from torch.utils.flop_counter import FlopCounterMode
from train import set_up

from medaug.models import build

BATCH = 64
SIZE = 64
TURNS = 3
SECONDS = 20.0
LEAST = 1.5
STEPS = 6
"""What a watch takes that is over at once: five to warm up, and one."""
GAME: dict[str, Any] = {"name": "vaegan", "preset": "author"}


def measure(
    work: str, side: str, size: int, batch: int, seconds: float, game: dict[str, Any], device: str
) -> float | str:
    """Images per second of one side, in this process, or why there are none."""
    folder = Path(work)
    trainer = set_up(cached(folder, size), game, folder / f"run-{side}", device, batch=batch)
    if side == "medaug":
        watch = Watch(batch, seconds)
        try:
            while True:
                watch.step(trainer.round() // batch)
        except Done:
            return watch.speed
    slices = trainer.feed.at(torch.arange(len(trainer.feed))).x.cpu()
    settings = trainer.config.model
    torch.manual_seed(0)
    model = build(settings.name, settings.arguments, trainer.feed.shape).to(trainer.feed.device)
    return speed_of(side, settings.name, model, slices, batch, trainer.game.precision, seconds)


def compared(
    how: Asked, size: int, batch: int, game: dict[str, Any], device: str, turns: int, seconds: float
) -> dict[str, Any]:
    """Every side's speeds in ``turns`` turns, each in a fresh process."""
    name = game["name"]
    sides = ("medaug", *RIVALS[name], *SMALLER.get(name, {}))
    speeds: dict[str, Any] = {side: [] for side in sides}
    for turn in range(turns):
        for side in sides if turn % 2 == 0 else sides[::-1]:
            if isinstance(speeds[side], str):
                continue
            told = fresh("cpu", "measure", how.work, side, size, batch, seconds, game, device)
            print(f"{side}: {told if isinstance(told, str) else round(told, 1)}", flush=True)
            if isinstance(told, str):
                speeds[side] = told
            else:
                speeds[side].append(told)
    return speeds


def operations(work: str, side: str, size: int, batch: int, game: dict[str, Any]) -> float:
    """Floating-point operations an image, in 10^9, counted over six steps."""
    with FlopCounterMode(display=False) as counter:
        told = measure(work, side, size, batch, 0.0, game, "cpu")
    return 0.0 if isinstance(told, str) else counter.get_total_flops() / (STEPS * batch) / 1e9


def advantage(speeds: dict[str, Any]) -> float:
    """medaug's median speed over that of the best rival at the same game."""
    apart = {"medaug", *(side for smaller in SMALLER.values() for side in smaller)}
    rivals = [median(s) for side, s in speeds.items() if side not in apart and isinstance(s, list)]
    return median(speeds["medaug"]) / max(rivals)


def claims(speeds: dict[str, Any]) -> list[Claim]:
    """medaug's speed over that of each rival at the same game, the best of which decides."""
    ours, found = median(speeds["medaug"]), []
    for side, measured in speeds.items():
        if side in RIVALS["vaegan"] and isinstance(measured, list):
            found.append(
                Claim(f"64 px VAE/GAN over {side}", ours / median(measured), ">=", LEAST, "x")
            )
    return [Claim("64 px VAE/GAN over the best rival", advantage(speeds), ">=", LEAST, "x"), *found]


def main() -> int:
    """Measure and report."""
    how = asked()
    cached(how.work, SIZE)
    turns, seconds, batch = (1, 2.0, 8) if how.quick else (TURNS, SECONDS, BATCH)
    speeds = compared(how, SIZE, batch, GAME, "cpu", turns, seconds)
    counted = {
        side: fresh("cpu", "operations", how.work, side, SIZE, batch, GAME) for side in speeds
    }
    note = (
        f"64 pixels, image and mask, batch {batch}, {PATIENTS} phantom patients, the authors' "
        f"networks; {turns} turns of {seconds:g} s a side, each in a process of its own; images "
        "per second. medaug alone warps its slices and averages its weights. monai is given "
        "Larsen's losses; as its examples use it (monai, pixels) it plays a smaller game, see "
        "gflop_per_image."
    )
    figures = {"images_per_s": speeds, "gflop_per_image": counted}
    return report(how, "cpu", claims(speeds), figures, n=turns, seed=SEED, note=note)


if __name__ == "__main__":
    sys.exit(main())
