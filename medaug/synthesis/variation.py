"""Real cases drawn anew: alternatives of a slice through the encoder, images for given masks.

The slices of a volume are drawn one by one along a path of codes that is smooth in z.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medaug.core.codec import CTCodec
from medaug.core.errors import ConfigError
from medaug.core.modality import modality_of
from medaug.core.seeds import generator as address
from medaug.data.feed.condition import Asked
from medaug.data.feed.tissues import layout
from medaug.synthesis.trained import BLOCK, Trained


def vary(
    generator: Trained,
    images: npt.NDArray[Any],
    labels: npt.NDArray[np.uint8] | None,
    strength: float,
    seed: int,
    index: int,
    smooth: float,
    condition: Asked | None,
) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8] | None]:
    """See ``Generator.vary``."""
    generator.need_encoder()
    if not 0 < strength <= 1:
        raise ConfigError(f"strength must be above 0 and at most 1, got {strength:g}")
    generator.check_slices(images, labels)
    model: Any = generator.model
    maps = _maps(generator, labels, images) if generator.masks == "layout" else None
    cond = _told(generator, len(images), maps, seed, index, condition)
    drawn = []
    for part in parts(len(images)):
        told = None if cond is None else cond[part]
        x = generator.encoded(images[part], None if labels is None else labels[part])
        with generator.casting():
            mu, _ = model.encode(x, told)
        fresh = path(len(images), mu.shape[1:], seed, index, smooth)[part].to(x.device)
        with generator.casting():
            codes = model.near_posterior(x, fresh, told, strength).float()
        given = None if maps is None else maps[part]
        drawn.append(generator.stored(generator.model.decode(codes, told), given))
    return whole(drawn)


def redraw(
    generator: Trained,
    labels: npt.NDArray[np.uint8],
    seed: int,
    index: int,
    smooth: float,
    images: npt.NDArray[Any] | None,
    condition: Asked | None,
) -> npt.NDArray[Any]:
    """See ``Generator.redraw``."""
    if generator.masks != "layout":
        raise ConfigError(
            f"redraw needs a run that is given its masks (data.masks layout), this one has "
            f"data.masks {generator.masks}"
        )
    generator.check_slices(labels if images is None else images, labels)
    maps = _maps(generator, labels, images)
    cond = _told(generator, len(labels), maps, seed, index, condition)
    noise = path(len(labels), generator.model.noise_shape, seed, index, smooth)
    drawn = []
    for part in parts(len(labels)):
        told = None if cond is None else cond[part]
        codes = generator.prior(noise[part].to(generator.device), told)
        drawn.append(generator.stored(generator.model.decode(codes, told), maps[part]))
    return whole(drawn)[0]


def path(
    n: int, shape: tuple[int, ...], seed: int, index: int, smooth: float, purpose: str = "vary"
) -> Tensor:
    """Standard normal noise (n, *shape) of consecutive slices, correlated over some of them.

    Args:
        n: how many slices.
        shape: of one slice's noise.
        seed: random seed.
        index: number of the sample.
        smooth: deviation of the Gaussian that the noise is averaged with along the slices; 0 draws
            each slice on its own.
        purpose: of the draw, part of its address.
    """
    if smooth < 0:
        raise ConfigError(f"smooth must not be negative, got {smooth:g}")
    draws = torch.stack([torch.randn(shape, generator=address(seed, purpose, index, k))
                         for k in range(n)])  # fmt: skip
    if not smooth:
        return draws
    z = torch.arange(n).float()
    weights = torch.exp(-0.5 * ((z[:, None] - z) / smooth).square())
    weights = weights / weights.square().sum(1, keepdim=True).sqrt()
    return torch.tensordot(weights, draws, 1)


def parts(n: int) -> list[slice]:
    """``n`` slices in blocks that are decoded at once."""
    return [slice(start, start + BLOCK) for start in range(0, n, BLOCK)]


def _told(
    generator: Trained,
    n: int,
    maps: Tensor | None,
    seed: int,
    index: int,
    condition: Asked | None,
) -> Tensor | None:
    values = generator.condition.of(seed, index, generator.condition.fix(condition or {}))
    return generator.rows([values] * n, maps)


def _maps(
    generator: Trained, labels: npt.NDArray[np.uint8] | None, images: npt.NDArray[Any] | None
) -> Tensor:
    codec = generator.codec
    assert isinstance(codec, CTCodec)
    if images is not None:
        ids = list(codec.labels.values())
        return torch.from_numpy(
            layout(images, labels, ids, bool(codec.tissues), modality_of(codec.modality))
        )
    if labels is None:
        raise ConfigError("labels are needed: this run is given its masks")
    if codec.tissues and not np.isin(labels, list(codec.tissues.values())).any():
        raise ConfigError(
            "images are needed, whose tissues fill the layout, or labels that hold tissues too "
            f"(ids {', '.join(map(str, codec.tissues.values()))} for {', '.join(codec.tissues)})"
        )
    return torch.from_numpy(np.array(labels))


def whole(
    drawn: list[tuple[npt.NDArray[Any], npt.NDArray[np.uint8] | None]],
) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8] | None]:
    """Images and label maps of blocks, put together."""
    images, labels = zip(*drawn, strict=True)
    kept = [label for label in labels if label is not None]
    return np.concatenate(images), np.concatenate(kept) if kept else None
