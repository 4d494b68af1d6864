"""The one network that every arm teaches, for equally many steps."""

import numpy as np
import torch
from monai.losses import DiceLoss
from torch import Tensor
from torch.nn import functional as F

from medaug.core.codec import CTCodec
from medaug.core.seeds import derive, generator
from medaug.data.feed.warp import field, warp
from medaug.evaluation.downstream.streams import IGNORED, Stream, item
from medaug.runtime.progress import Progress
from medaug.training.segmenter import RATE, WARP, Segmenter, shaded

WARM_UP = 20


def train_segmenter(
    stream: Stream,
    codec: CTCodec,
    *,
    steps: int,
    batch: int,
    seed: int,
    standard: bool,
    device: str | torch.device = "cpu",
    bar: Progress | None = None,
) -> Segmenter:
    """A segmenter after ``steps`` steps on a stream; the same for the same arguments on the CPU.

    Weights, positions and warps depend on ``seed`` alone, so two arms differ in their slices only.

    Args:
        stream: where the slices come from.
        codec: window and labels.
        steps: optimiser steps.
        batch: slices a step.
        seed: random seed of weights, order and noise.
        standard: whether slices are warped, elastically too, and changed in contrast, brightness
            and noise; never flipped, since left and right differ.
        device: where it trains and stays.
        bar: told of every step.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "student"))
        network = Segmenter(codec).to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-4)
    for step in range(steps):
        pairs = [item(stream, seed, step * batch + k) for k in range(batch)]
        x, target, known = planes(network.codec, pairs, device)
        if standard:
            draws = generator(seed, "standard", step)
            sides = (x.shape[-2], x.shape[-1])
            x, target, known = warped(x, target, known, field(batch, sides, draws, **WARP))
            x = shaded(x, draws)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / WARM_UP) * (1 - step / steps)
        loss = loss_of(network(x), target, known)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if bar is not None:
            bar.advance()
    return network.eval().requires_grad_(False)


def planes(
    codec: CTCodec, pairs: list[tuple[np.ndarray, np.ndarray]], device: str | torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Slices (b, 1, y, x) in [-1, 1], channels of labels (b, y, x), and what is known (b, y, x)."""
    images, ids = (torch.from_numpy(np.stack(part)).to(device) for part in zip(*pairs, strict=True))
    target = torch.zeros(ids.shape, dtype=torch.long, device=ids.device)
    for channel, number in enumerate(codec.labels.values(), 1):
        target[ids == number] = channel
    return CTCodec(codec.window_hu, {}).encode(images, None), target, ids != IGNORED


def warped(x: Tensor, target: Tensor, known: Tensor, grid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All three through one field; what comes in from outside is air without a label."""
    count = int(target.max()) + 1
    hot = F.one_hot(target, count)[..., 1:].permute(0, 3, 1, 2)
    parts = torch.cat([x, 2.0 * hot - 1, 2.0 * (~known[:, None]) - 1], 1)
    parts = warp(parts, grid)
    target = torch.zeros_like(target)
    if count > 1:
        inside, channel = parts[:, 1:-1].max(1)
        target = torch.where(inside > 0, channel + 1, 0)
    return parts[:, :1], target, parts[:, -1] <= 0


def loss_of(logits: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Soft Dice of the labels over the batch plus cross-entropy, where ``known``.

    Args:
        logits: (b, c, y, x), background first.
        target: channels (b, y, x).
        known: bool (b, y, x).
    """
    counts = known[:, None].to(logits.dtype)
    hot = F.one_hot(target, logits.shape[1]).permute(0, 3, 1, 2).to(logits.dtype)
    dice = DiceLoss(include_background=False, batch=True)(logits.softmax(1) * counts, hot * counts)
    entropy = F.cross_entropy(logits, target, reduction="none")
    return dice + (entropy * known).sum() / known.sum().clamp(min=1)
