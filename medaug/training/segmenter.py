"""Segment CT slices by a small U-Net, and train it on slices with label maps.

Ronneberger et al. 2015 with residual units (MONAI's form), normalised over all channels of a slice,
so that no slice depends on the others of its batch and the levels of HU are kept.  Its input is HU
through a codec's window, its output one channel for each of the codec's labels and the background.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from torch import Tensor, nn
from torch.nn import functional as F

from medaug.core.codec import CTCodec, from_dict
from medaug.core.errors import ConfigError, WeightsError
from medaug.core.seeds import derive, generator
from medaug.core.types import LabelMap
from medaug.data.feed.feed import Feed
from medaug.data.feed.warp import field, warp
from medaug.runtime.progress import Progress
from medaug.training.checkpoint import read_tensors, write_tensors

IMAGES = 6000
"""Slices of a training: under a minute at 64 x 64 pixels, two at 128 x 128, on one core."""

BATCH = 8
RATE = 1e-2
"""Largest learning rate."""
CHANNELS = (16, 32, 64, 128)
STRIDE = 2 ** (len(CHANNELS) - 1)
"""Factor by which the deepest layer is smaller; sides are padded to a multiple of it."""

WARP = {"rotate": 0.15, "scale": 0.15, "shift": 0.05, "elastic": 0.02}
GAIN, OFFSET, NOISE = 0.1, 0.05, 0.05
"""Largest relative change of contrast, change of brightness, and standard deviation of noise, where
the window is -1 to 1."""


class Segmenter(nn.Module):
    """Map slices (b, 1, y, x) in [-1, 1] to logits (b, 1 + labels, y, x), background first.

    Args:
        codec: the window of its input and the labels of its output, in channel order.

    Raises:
        ConfigError: the codec has no labels.
    """

    def __init__(self, codec: CTCodec) -> None:
        super().__init__()
        if not codec.labels:
            raise ConfigError("a segmenter needs labels, and this codec has none")
        self.codec = CTCodec(codec.window_hu, codec.labels, modality=codec.modality)
        self.window = CTCodec(codec.window_hu, {})
        self.network = UNet(
            spatial_dims=2,
            in_channels=1,
            out_channels=1 + len(codec.labels),
            channels=CHANNELS,
            strides=(2,) * (len(CHANNELS) - 1),
            num_res_units=2,
            norm=("group", {"num_groups": 1}),
        )
        self.ids = np.array([0, *codec.labels.values()], np.uint8)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        x = F.pad(x, (0, -w % STRIDE, 0, -h % STRIDE), value=-1)
        return self.network(x)[..., :h, :w]

    @torch.inference_mode()
    def probabilities(self, images: npt.NDArray[Any], batch: int = 1) -> Tensor:
        """Return probabilities (n, 1 + labels, y, x), float32.

        Args:
            images: HU (n, y, x).
            batch: slices at a time; 1 by default, since convolutions round differently at another
                batch size.
        """
        self.eval()
        device = next(self.parameters()).device
        parts = []
        for part in torch.from_numpy(np.array(images)).split(batch):
            parts.append(self(self.window.encode(part.to(device), None)).softmax(1).cpu())
        return torch.cat(parts)

    def predict(self, images: npt.NDArray[Any], batch: int = 1) -> LabelMap:
        """Return label ids (n, y, x).

        Args:
            images: HU (n, y, x).
            batch: slices at a time; the last digits of probabilities depend on it.
        """
        return self.named(self.probabilities(images, batch))

    def named(self, probabilities: Tensor) -> LabelMap:
        """Return the likeliest label ids (n, y, x) of probabilities (n, 1 + labels, y, x)."""
        return self.ids[probabilities.argmax(1).numpy()]


def train_segmenter(
    images: npt.NDArray[Any],
    labels: LabelMap,
    codec: CTCodec,
    *,
    count: int = IMAGES,
    seed: int = 0,
    device: str | torch.device = "cpu",
    bar: Progress | None = None,
) -> Segmenter:
    """Train a segmenter; on the CPU the same arguments give the same weights.

    Args:
        images: HU (n, y, x).
        labels: their label maps (n, y, x); ids that are not in the codec are background.
        codec: window and labels.
        count: slices to train on, in batches of 8 with random warps and changes of contrast.
        seed: of weights, order and warps.
        device: where it is trained and stays.
        bar: progress of the slices, or None.

    Raises:
        ConfigError: a codec without labels, no slices, or a count below 1.
    """
    if count < 1:
        raise ConfigError(f"a segmenter must see at least 1 slice, asked for {count}")
    if not len(images) or images.shape != labels.shape:
        raise ConfigError(
            f"a segmenter needs slices with label maps alike, got {images.shape}, {labels.shape}"
        )

    # The network, the data and the optimiser.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "segmenter"))
        network = Segmenter(codec).to(device).train()
    writeable = (np.require(part, requirements=["C", "W"]) for part in (images, labels))
    stored = [torch.from_numpy(part) for part in writeable]
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-4)
    loss_of = DiceCELoss(softmax=True, to_onehot_y=True, batch=True, include_background=False)
    steps = -(-count // BATCH)

    # Each step: a random batch, warped, at a rate that rises for 20 steps and then falls to 0.
    for step in range(steps):
        draws = generator(seed, "segmenter", step)
        chosen = torch.randint(len(images), (BATCH,), generator=draws)
        x = network.codec.encode(*(part[chosen].to(device) for part in stored))
        x = warp(x, field(len(x), (x.shape[-2], x.shape[-1]), draws, **WARP))
        inside, channel = x[:, 1:].max(1)
        target = torch.where(inside > 0, channel + 1, 0)[:, None]
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 20) * (1 - step / steps)
        loss = loss_of(network(shaded(x[:, :1], draws)), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if bar is not None:
            bar.advance(min(BATCH, count - step * BATCH))
    return network.eval().requires_grad_(False)


def train_on(
    feed: Feed, *, count: int = IMAGES, seed: int = 0, device: str | torch.device = "cpu"
) -> Segmenter:
    """Train a segmenter on the labelled slices of a feed, through its codec's window.

    Args:
        feed: its labelled slices, unwarped, are the training data.
        count: slices to train on.
        seed: of weights, order and warps.
        device: where it is trained and stays.

    Raises:
        ConfigError: the feed has no labels.
    """
    maps = feed.label_maps
    if not isinstance(feed.codec, CTCodec) or maps is None:
        raise ConfigError(f"{feed.cache.path}: a segmenter needs scans with label maps")
    images, labels = (
        stack[feed.labeled.to(stack.device)].cpu().numpy() for stack in (feed.images, maps)
    )
    return train_segmenter(images, labels, feed.codec, count=count, seed=seed, device=device)


def shaded(x: Tensor, draws: torch.Generator) -> Tensor:
    """Change contrast, brightness and noise of each slice (b, 1, y, x) at random, a little."""
    b = len(x)
    gain, offset = (torch.rand(2, b, 1, 1, 1, generator=draws) * 2 - 1).to(x.device)
    noise = torch.rand(b, 1, 1, 1, generator=draws) * torch.randn(x.shape, generator=draws)
    return (x * (1 + GAIN * gain) + OFFSET * offset + NOISE * noise.to(x.device)).clamp(-1, 1)


def dice(a: LabelMap, b: LabelMap, ids: Sequence[int]) -> npt.NDArray[np.float64]:
    """Return the Dice coefficient 2 |A and B| / (|A| + |B|) of each label in each pair, (n, ids).

    It is NaN where neither map shows the label.

    Args:
        a: label maps (n, y, x).
        b: label maps of the same slices.
        ids: label ids.
    """
    found = []
    for number in ids:
        mine, yours = a == number, b == number
        total = (mine.sum((1, 2)) + yours.sum((1, 2))).astype(float)
        both = 2.0 * (mine & yours).sum((1, 2))
        found.append(np.divide(both, total, out=np.full(len(a), np.nan), where=total > 0))
    return np.stack(found, 1) if found else np.empty((len(a), 0))


def save(path: Path, network: Segmenter, facts: Mapping[str, Any]) -> None:
    """Write a segmenter to ``path`` with ``facts`` about it, JSON values."""
    header = {"segmenter": network.codec.to_dict(), "facts": dict(facts)}
    write_tensors(path, network.state_dict(), header)


def load(path: Path, device: str | torch.device = "cpu") -> tuple[Segmenter, dict[str, Any]]:
    """Return the segmenter and the facts that ``save`` wrote.

    Raises:
        WeightsError: no such file, not ours, or no segmenter.
    """
    tensors, header, _ = read_tensors(path)
    if "segmenter" not in header:
        raise WeightsError(f"{path}: holds no segmenter")
    return restore(tensors, header["segmenter"]).to(device), header["facts"]


def restore(tensors: Mapping[str, Tensor], codec: Mapping[str, Any]) -> Segmenter:
    """Return a segmenter from its weights and its codec as a dictionary."""
    known = from_dict(codec)
    if not isinstance(known, CTCodec):
        raise WeightsError("a segmenter of scans is wanted, and this codec is of pictures")
    network = Segmenter(known)
    network.load_state_dict(dict(tensors))
    return network.eval().requires_grad_(False)
