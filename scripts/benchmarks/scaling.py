"""Two gloo processes against one on the same batches, and what scaling out costs.

    python scripts/benchmarks/scaling.py        the table of docs/scaling.md

1. *Trace*: 200 rounds of ``fit`` on phantom slices, by one process and by two that share each
   batch and, after every round, hash all that the next round depends on.  In the first round, from
   the same weights, every term and gradient of two must be that of one; later, games with an
   adversary magnify what rounding did, as they do for one process whose first weights differ by
   one part in 10^7, which is measured too.
2. *Bytes* and messages are counted where they would leave: rounds at 64 pixels, with image and
   mask, are played by one process that takes itself for one of two.
3. *Estimate*: efficiency at 8 and 64 GPUs from those bytes, by arithmetic on public figures of
   hardware and on assumptions; none was measured.
"""

import os
import shutil
import time
from functools import partial
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import torch
from material import PATIENTS, SEED, phantom_cache
from processes import launch
from results import Claim, Measured, Setup, markdown
from torch import Tensor

from medaug.core.batch import Batch, Shape
from medaug.core.config import presets, resolve
from medaug.core.registry import MODELS
from medaug.data.cache.prepare import SliceCache
from medaug.models import build
from medaug.models.base import Model
from medaug.runtime import collectives
from medaug.runtime.distributed import Ranks
from medaug.training.checkpoint import pack
from medaug.training.loop import play_round, resume, set_up
from medaug.training.step import Players

BATCH = 16
ROUNDS = 200
GAMES: dict[str, dict[str, Any]] = {
    "vae modern": {"name": "vae", "width": 16},
    "vaegan author": {"name": "vaegan", "width": 16},
    "spatial_vaegan modern": {"width": 16},
    "wgan_gp modern": {"name": "wgan_gp", "width": 16},
}
NUDGE = 1e-7
ALIKE = 1e-4
"""How far two may be from one in the first round: of seven digits, small sums take some."""

SHAPE = Shape(2, 1, 64)
PROGRESS = (0.0, 0.6, 0.9)
LITTLE = 2
"""Rows of the batches that are played."""
ROWS = 64
"""Of each GPU in a batch; codes that all need of all (WAE) grow with them and with the GPUs."""

NVLINK_BYTES = 300e9
"""Bus bandwidth of an all-reduce within a node, bytes/s: two thirds, assumed, of the 450 GB/s each
way of NVLink 4 (NVIDIA H100 data sheet: 900 GB/s in all)."""
NETWORK_BYTES = 40e9
"""The same between nodes, per GPU: 80 %, assumed, of 400 Gbit/s (ConnectX-7 data sheet)."""
LATENCY_S = {8: 20e-6, 64: 60e-6}
"""A small NCCL all-reduce within a node, and over eight; assumed."""
AGREE_S = {8: 0.1e-3, 64: 0.5e-3}
"""Asking all hosts whether one was told to stop, once a round over gloo; assumed."""


def played(
    cache: Path, model: dict[str, Any], run: Path, rounds: int, nudge: float, out: Path
) -> int:
    """Train for ``rounds``; the terms, hashes and seconds of each go to a file."""
    found: dict[str, list[Any]] = {"terms": [], "same": [], "seconds": []}
    opened = SliceCache.open(cache)
    config = {
        "data": {"name": "phantom", "size": opened.settings.size},
        "model": model,
        "train": {"images": BATCH * rounds * 8, "batch": BATCH, "precision": "float32"},
    }
    with set_up(resolve(config), opened, run, "cpu") as training:
        resume(training)
        ranks, players, data = training.ranks, training.players, training.batches()
        if nudge:
            for parameter in training.model.parameters():
                parameter.data *= 1 + nudge
        for _ in range(rounds):
            started = time.perf_counter()
            play_round(training, data)
            found["seconds"].append(time.perf_counter() - started)
            found["terms"].append(players.loss_log.means())
            mine = int(sha256(pack(players.tensors())).hexdigest()[:15], 16)
            found["same"].append(ranks.all_max(mine) == -ranks.all_max(-mine))
    torch.save(found, out.with_suffix(f".{os.environ['RANK']}"))
    return 0


def deviation(one: list[dict[str, float]], other: list[dict[str, float]]) -> list[float]:
    """The largest relative difference of any term, round by round."""
    return [
        max(abs(mine[key] - theirs[key]) / (abs(mine[key]) + 1e-2) for key in mine)
        for mine, theirs in zip(one, other, strict=True)
    ]


def trace(cache: Path, name: str, work: Path, rounds: int) -> dict[str, Any]:
    """One game alone, by two, and alone from nudged weights."""
    found = {}
    for how, world, nudge in (("one", 1, 0.0), ("two", 2, 0.0), ("nudged", 1, NUDGE)):
        run, out = work / f"ranks-{how}", work / f"ranks-{how}.found"
        shutil.rmtree(run, ignore_errors=True)
        if any(launch(partial(played, cache, GAMES[name], run, rounds, nudge, out), world)):
            raise RuntimeError("a process of the benchmark failed; see above")
        found[how] = [torch.load(out.with_suffix(f".{rank}")) for rank in range(world)]
    one, two, nudged = found["one"][0], found["two"][0], found["nudged"][0]
    apart, rounding = (deviation(one["terms"], each["terms"]) for each in (two, nudged))
    return {
        "rounds": rounds,
        "same_bits": sum(two["same"]) / rounds,
        "same_terms": two["terms"] == found["two"][1]["terms"],
        "apart_first": apart[0],
        "apart_first_20": max(apart[:20]),
        "apart_median": median(apart),
        "apart_max": max(apart),
        "rounding_median": median(rounding),
        "rounding_max": max(rounding),
        "seconds_one": median(one["seconds"]),
        "seconds_two": median(two["seconds"]),
    }


def claims(figures: dict[str, dict[str, Any]]) -> list[Claim]:
    """Each game against its bounds."""
    found = []
    for name, told in figures.items():
        same = told["same_bits"] if told["same_terms"] else 0.0
        found.append(Claim(f"rounds after which two hold the same bits, {name}", same, ">=", 1))
        what = f"two apart from one in the first round, terms and gradients, {name}"
        found.append(Claim(what, told["apart_first"], "<=", ALIKE))
    return found


def measure_ranks(setup: Setup) -> Measured:
    """Two processes against one, and what scaling out is estimated to cost."""
    torch.set_num_threads(1)
    cache = phantom_cache(setup.work).path
    rounds = 20 if setup.quick else ROUNDS
    bytes_sent = sent(["vaegan", "vae"] if setup.quick else None)
    traces = {name: trace(cache, name, setup.work, rounds) for name in GAMES}
    figures = {"trace": traces, "bytes_a_round": bytes_sent, "estimate": estimates(bytes_sent)}
    note = (
        f"64 pixels, batch {BATCH}, {PATIENTS} phantom patients, {rounds} rounds, one thread a "
        f"process; rounding is a run whose first weights are {NUDGE:g} larger. Nothing was "
        "measured on a GPU: the estimate takes the constants in docs/scaling.md."
    )
    return Measured(claims(traces), figures, rounds, SEED, note)


class Counting(Ranks):
    """The first of two processes, the other of which adds nothing; sizes of what it sends."""

    def __init__(self) -> None:
        super().__init__(0, 2, torch.device("cpu"))
        self.sizes: list[int] = []
        self.gathered_bytes = self.row_bytes = 0

    def all_sum(self, values: Tensor) -> Tensor:
        self.sizes.append(values.nbytes)
        return values

    def gathered(self, values: Tensor) -> Tensor:
        """`collectives.all_gather`; its messages, and those of gradients, grow with the rows."""
        size = values.nbytes * (1 + values.requires_grad)
        self.gathered_bytes += self.world * size
        self.row_bytes += size // LITTLE
        return GATHERED(values)


GATHERED = collectives.all_gather


def sent(names: list[str] | None = None) -> dict[str, dict[str, int]]:
    """By model and preset: weights, gradients and messages of the round that sends most."""
    found = {}
    for name in names or MODELS:
        for preset in presets(name):
            config = resolve({"model": {"name": name, "preset": preset}})
            model = build(name, config.model.arguments, SHAPE)
            collectives.share_norms(model)
            game = Players(model, 0, torch.device("cpu"), "float32")
            rounds = [_round(model, game, at) for at in PROGRESS]
            found[f"{name} {preset}"] = max(rounds, key=lambda each: whole(each, 8))
    return found


def _round(model: Model, game: Players, at: float) -> dict[str, int]:
    """Of the round at the share ``at`` of a run: bytes, and those that each row adds."""
    ranks, gradients = Counting(), 0
    for turn in model.turns(at):
        rows = LITTLE * turn.batches
        x = torch.rand(rows, SHAPE.channels, SHAPE.size, SHAPE.size) * 2 - 1
        with (
            mock.patch.object(collectives, "current_ranks", return_value=ranks),
            mock.patch.object(collectives, "all_gather", ranks.gathered),
            collectives.shared_draws(rows),
        ):
            taken = game.gradients(turn.play(Batch(x)))
            collectives.average_gradients(taken)
        gradients += sum(each.nbytes for steps in taken.values() for each in steps)
    return {
        "weights": sum(p.numel() for p in model.parameters()),
        "gradients": gradients,
        "bytes": sum(ranks.sizes) - ranks.gathered_bytes,
        "row_bytes": ranks.row_bytes,
        "messages": len(ranks.sizes),
    }


def whole(told: dict[str, int], gpus: int) -> int:
    """Bytes of a round, with the rows of all GPUs."""
    return told["bytes"] + told["row_bytes"] * ROWS * gpus


def estimates(
    bytes_sent: dict[str, dict[str, int]], step_s: float = 20e-3
) -> dict[str, dict[str, float]]:
    """Efficiency at 8 and 64 GPUs, each taking ``step_s`` for a round of its own rows."""
    found = {}
    for name, told in bytes_sent.items():
        found[name] = {}
        for gpus in (8, 64):
            speed = NVLINK_BYTES if gpus == 8 else NETWORK_BYTES
            travel = 2 * whole(told, gpus) * (gpus - 1) / gpus / speed
            lost = travel + told["messages"] * LATENCY_S[gpus] + AGREE_S[gpus]
            found[name][f"efficiency_{gpus}"] = step_s / (step_s + lost)
            found[name][f"lost_ms_{gpus}"] = 1e3 * lost
    return found


def table(counted: dict[str, dict[str, int]]) -> list[str]:
    """Lines of Markdown."""
    found, rows = estimates(counted), []
    for name, sent in counted.items():
        cells = [name, f"{sent['weights'] / 1e6:.2f}"]
        cells += [f"{whole(sent, gpus) / 1e6:.2f}" for gpus in (8, 64)]
        cells.append(str(sent["messages"]))
        rows.append([*cells, *(f"{found[name][f'lost_ms_{gpus}']:.2f}" for gpus in (8, 64))])
    columns = ["model", "weights, M", "MB a round at 8", "at 64", "messages"]
    return markdown([*columns, "ms lost at 8", "at 64"], rows)


if __name__ == "__main__":
    print("\n".join(table(sent())))
