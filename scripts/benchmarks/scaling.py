"""What several processes send each other in a round, and what that costs; see docs/scaling.md.

    python scripts/benchmarks/scaling.py        the table of docs/scaling.md

Bytes are counted from the gradients and batch norms of the models themselves, at 64 pixels with
image and mask.  Times are arithmetic on public figures of hardware; none was measured.
"""

from typing import Any

import torch
from torch import nn

from medaug import across
from medaug.config import resolve
from medaug.models import build
from medaug.models.base import Model
from medaug.registry import MODELS
from medaug.rounds import Game
from medaug.tensors import Batch, Shape

SHAPE = Shape(2, 1, 64)
PRESETS = ("author", "modern")
PROGRESS = (0.0, 0.6, 0.9)

NVLINK_BYTES = 300e9
"""Bus bandwidth of an all-reduce within a node, bytes/s: a third below NVLink 4's 450 GB/s each way
(NVIDIA H100 data sheet: 900 GB/s in all)."""
NETWORK_BYTES = 40e9
"""The same between nodes, per GPU: one 400 Gbit/s adapter (ConnectX-7 data sheet) at 80 %."""
LATENCY_S = {8: 20e-6, 64: 60e-6}
"""A small NCCL all-reduce within a node, and over eight; assumed."""
AGREE_S = {8: 0.1e-3, 64: 0.5e-3}
"""Asking all hosts whether one was told to stop, once a round over gloo; assumed."""


def sent(names: list[str] | None = None) -> dict[str, dict[str, int]]:
    """By model and preset: weights, gradients and messages of a round."""
    found = {}
    for name in names or [name for name in MODELS if "." not in name]:
        for preset in PRESETS:
            found[f"{name} {preset}"] = _sent(name, preset)
    return found


def _sent(name: str, preset: str) -> dict[str, int]:
    config = resolve({"model": {"name": name, "preset": preset}})
    model = build(name, config.model.arguments, SHAPE)
    across.share_norms(model)
    game = Game(model, 0, torch.device("cpu"), "float32")
    norms: list[int] = []

    def counted(module: nn.Module, given: Any, drawn: Any) -> None:
        if module.training:
            norms.append(2 * 8 * module.num_features)  # two moments in float64

    for module in model.modules():
        if isinstance(module, across.SharedNorm):
            module.register_forward_hook(counted)
    return max((_round(model, game, at, norms) for at in PROGRESS), key=lambda told: told["bytes"])


def _round(model: Model, game: Game, at: float, norms: list[int]) -> dict[str, int]:
    """Of the round at the share ``at`` of a run; a batch norm's moments go there and back."""
    norms.clear()
    gradients = messages = 0
    for turn in model.turns(at):
        shape = (2 * turn.batches, SHAPE.channels, SHAPE.size, SHAPE.size)
        moves = turn.play(Batch(torch.rand(shape) * 2 - 1))
        pieces = [p for player in moves for p in game.parameters[player]]
        gradients += sum(piece.nbytes for piece in pieces)
        messages += len(list(across.buckets(pieces)))
    return {
        "weights": sum(p.numel() for p in model.parameters()),
        "gradients": gradients,
        "bytes": gradients + 2 * sum(norms),
        "messages": messages + 2 * len(norms),
    }


def estimates(
    bytes_sent: dict[str, dict[str, int]], step_s: float = 20e-3
) -> dict[str, dict[str, float]]:
    """Efficiency at 8 and 64 GPUs, each taking ``step_s`` for a round of its own rows."""
    found = {}
    for name, told in bytes_sent.items():
        found[name] = {}
        for gpus in (8, 64):
            speed = NVLINK_BYTES if gpus == 8 else NETWORK_BYTES
            travel = 2 * told["bytes"] * (gpus - 1) / gpus / speed
            lost = travel + told["messages"] * LATENCY_S[gpus] + AGREE_S[gpus]
            found[name][f"efficiency_{gpus}"] = step_s / (step_s + lost)
            found[name][f"lost_ms_{gpus}"] = 1e3 * lost
    return found


def table(counted: dict[str, dict[str, int]]) -> list[str]:
    """Lines of Markdown."""
    found = estimates(counted)
    lines = [
        "| model | weights, M | bytes a round, MB | messages | lost at 8, ms | at 64, ms |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, told in counted.items():
        size, count = told["bytes"] / 1e6, told["messages"]
        lost = " | ".join(f"{found[name][f'lost_ms_{gpus}']:.2f}" for gpus in (8, 64))
        lines.append(f"| {name} | {told['weights'] / 1e6:.2f} | {size:.2f} | {count} | {lost} |")
    return lines


if __name__ == "__main__":
    print("\n".join(table(sent())))
