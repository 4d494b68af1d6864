"""What several processes send each other in a round, and what that costs; see docs/scaling.md.

    python scripts/benchmarks/scaling.py        the table of docs/scaling.md

Bytes and messages are counted where they would leave: rounds at 64 pixels, with image and mask, are
played by one process that takes itself for one of two.  Times are arithmetic on public figures of
hardware and on assumptions; none was measured.
"""

from unittest import mock

import torch
from torch import Tensor

from medaug.core.batch import Batch, Shape
from medaug.core.config import presets, resolve
from medaug.core.registry import MODELS
from medaug.models import build
from medaug.models.base import Model
from medaug.runtime import collectives
from medaug.runtime.distributed import Ranks
from medaug.training.step import Players

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


class Counting(Ranks):
    """The first of two processes, the other of which adds nothing; sizes of what it sends."""

    def __init__(self) -> None:
        super().__init__(0, 2, torch.device("cpu"))
        self.sizes: list[int] = []
        self.gathered_bytes = self.row_bytes = 0

    def add(self, values: Tensor) -> Tensor:
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
    """By model and preset: weights, gradients and messages of a round."""
    found = {}
    for name in names or MODELS:
        for preset in presets(name):
            found[f"{name} {preset}"] = _sent(name, preset)
    return found


def _sent(name: str, preset: str) -> dict[str, int]:
    config = resolve({"model": {"name": name, "preset": preset}})
    model = build(name, config.model.arguments, SHAPE)
    collectives.share_norms(model)
    game = Players(model, 0, torch.device("cpu"), "float32")
    return max((_round(model, game, at) for at in PROGRESS), key=lambda told: whole(told, 8))


def _round(model: Model, game: Players, at: float) -> dict[str, int]:
    """Of the round at the share ``at`` of a run: bytes, and those that each row adds."""
    ranks, gradients = Counting(), 0
    for turn in model.turns(at):
        rows = LITTLE * turn.batches
        x = torch.rand(rows, SHAPE.channels, SHAPE.size, SHAPE.size) * 2 - 1
        with (
            mock.patch.object(collectives, "together", return_value=ranks),
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
    found = estimates(counted)
    lines = [
        "| model | weights, M | MB a round at 8 | at 64 | messages | ms lost at 8 | at 64 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, told in counted.items():
        cells = [name, f"{told['weights'] / 1e6:.2f}"]
        cells += [f"{whole(told, gpus) / 1e6:.2f}" for gpus in (8, 64)]
        cells.append(str(told["messages"]))
        cells += [f"{found[name][f'lost_ms_{gpus}']:.2f}" for gpus in (8, 64)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    print("\n".join(table(sent())))
