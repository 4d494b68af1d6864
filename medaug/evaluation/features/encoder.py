"""Train an encoder on the real training slices, as a feature space of what these scans vary in.

It is that of a small autoencoder (Hinton and Salakhutdinov 2006) of slices averaged to 64 x 64
pixels.  It needs no masks and no download; it knows the anatomy of this collection and no other.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medaug.core.errors import ConfigError, WeightsError
from medaug.core.seeds import derive, generator
from medaug.core.types import HU
from medaug.data.feed.warp import field, warp
from medaug.evaluation.features.extractor import blocks, sha, windowed
from medaug.runtime.progress import Progress
from medaug.training.checkpoint import digest, read_tensors, write_tensors

IMAGES = 8000
"""Slices seen while it trains: some ten seconds of one core."""

SIDE, DIM, BATCH, RATE = 64, 64, 16, 2e-3
WARP = {"rotate": 0.1, "scale": 0.1, "shift": 0.03, "elastic": 0.01}
VERSION = 1


class Autoencoder(nn.Module):
    """Slices (b, 1, 64, 64) in [-1, 1] to codes (b, 64) and back."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 4, 2, 1),
            nn.SiLU(),
            nn.Conv2d(16, 32, 4, 2, 1),
            nn.SiLU(),
            nn.Conv2d(32, 32, 4, 2, 1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(32 * 64, DIM),
        )
        self.decoder = nn.Sequential(
            nn.Linear(DIM, 32 * 64),
            nn.Unflatten(1, (32, 8, 8)),
            nn.SiLU(),
            nn.ConvTranspose2d(32, 32, 4, 2, 1),
            nn.SiLU(),
            nn.ConvTranspose2d(32, 16, 4, 2, 1),
            nn.SiLU(),
            nn.ConvTranspose2d(16, 1, 4, 2, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


class Encoder:
    """Codes of 64 numbers, each standardised by the training slices.

    Args:
        network: trained on the real training slices.
        window_hu: (low, high), mapped to -1 and 1.
        mean: of each number over the training slices, (64,).
        deviation: standard deviation of each number over the training slices, (64,).
    """

    name = "encoder"

    def __init__(
        self, network: Autoencoder, window_hu: tuple[float, float], mean: Tensor, deviation: Tensor
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.window_hu, self.mean, self.deviation = window_hu, mean, deviation
        self.version = f"{VERSION}.{digest(self.tensors(), str(window_hu))[:12]}"

    def tensors(self) -> dict[str, Tensor]:
        """Weights and standardisation."""
        return {**self.network.state_dict(), "mean": self.mean, "deviation": self.deviation}

    @torch.inference_mode()
    def __call__(self, images: HU) -> Tensor:
        codes = _codes(self.network, images, self.window_hu)
        return ((codes - self.mean) / self.deviation).clone()


@torch.inference_mode()
def _codes(network: Autoencoder, images: HU, window_hu: tuple[float, float]) -> Tensor:
    return torch.cat([network.encoder(_seen(part, window_hu)) for part in blocks(images)])


def _seen(images: HU, window_hu: tuple[float, float]) -> Tensor:
    return F.adaptive_avg_pool2d(windowed(images, window_hu) * 2 - 1, (SIDE, SIDE))


def train_encoder(
    images: HU,
    window_hu: tuple[float, float],
    *,
    count: int = IMAGES,
    seed: int = 0,
    bar: Progress | None = None,
) -> Encoder:
    """Train an encoder on ``count`` slices; the same for the same arguments on the CPU.

    Args:
        images: real training slices in HU (n, y, x).
        window_hu: (low, high), mapped to -1 and 1.
        count: slices seen, in batches of 16 drawn with small warps.
        seed: of weights, order and warps.
        bar: progress, advanced with every batch.

    Raises:
        ConfigError: fewer than two slices, or a count below 1.
    """
    if len(images) < 2 or count < 1:
        raise ConfigError(
            f"an encoder needs 2 training slices and more and a count from 1, "
            f"got {len(images)} and {count}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "encoder"))
        network = Autoencoder().train()
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-4)
    steps = -(-count // BATCH)
    for step in range(steps):
        draws = generator(seed, "encoder", step)
        chosen = torch.randint(len(images), (BATCH,), generator=draws)
        x = _seen(images[chosen.numpy()], window_hu)
        x = warp(x, field(BATCH, (SIDE, SIDE), draws, **WARP))
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 20) * (1 - step / steps)
        loss = F.mse_loss(network(x), x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if bar is not None:
            bar.advance(min(BATCH, count - step * BATCH))
    codes = _codes(network.eval(), images, window_hu)
    return Encoder(network, window_hu, codes.mean(0), codes.std(0).clamp_min(1e-6))


def encoder_of(
    images: HU,
    window_hu: tuple[float, float],
    folder: Path | None = None,
    *,
    count: int = IMAGES,
    seed: int = 0,
    bar: Progress | None = None,
) -> Encoder:
    """Train an encoder, or read the one trained before from ``folder``.

    Args:
        images: real training slices in HU (n, y, x).
        window_hu: (low, high), mapped to -1 and 1.
        folder: where it is kept, under a fingerprint of the other arguments; None keeps nothing.
        count: slices seen in training.
        seed: of weights, order and warps.
        bar: progress, advanced with every batch.

    Raises:
        ConfigError: fewer than two slices, or a count below 1.
        OutputError: the folder cannot be written to.
    """
    if folder is None:
        return train_encoder(images, window_hu, count=count, seed=seed, bar=bar)
    facts = {
        "encoder": VERSION,
        "slices": sha(np.asarray(images)),
        "window_hu": [float(edge) for edge in window_hu],
        "count": count,
        "seed": seed,
    }
    path = Path(folder) / f"encoder-{_fingerprint(facts)}.safetensors"
    if path.exists():
        try:
            return _restored(path, window_hu)
        except WeightsError:
            path.unlink()
    encoder = train_encoder(images, window_hu, count=count, seed=seed, bar=bar)
    write_tensors(path, encoder.tensors(), facts)
    return encoder


def _fingerprint(facts: Mapping[str, object]) -> str:
    return digest({}, str(sorted(facts.items())))[:16]


def _restored(path: Path, window_hu: tuple[float, float]) -> Encoder:
    tensors, _, _ = read_tensors(path)
    mean, deviation = tensors.pop("mean"), tensors.pop("deviation")
    network = Autoencoder()
    network.load_state_dict(tensors)
    return Encoder(network, window_hu, mean, deviation)
