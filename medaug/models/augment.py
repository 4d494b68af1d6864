"""Differentiable augmentation of what a discriminator sees (Zhao et al. 2020, DiffAugment).

Real and fake images pass the same distribution of changes, so the generator is not taught them.
There are no flips, since left and right differ in a body.  Changes of grey leave masks alone.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from medaug.core.errors import ConfigError

REACH = 1 / 8
HOLE = 1 / 4


def brightness(x: Tensor, images: int) -> Tensor:
    """One offset in [-0.5, 0.5] a sample, on the ``images`` intensity channels."""
    return _on_grey(x, images, lambda grey: grey + _uniform(grey, -0.5, 0.5))


def contrast(x: Tensor, images: int) -> Tensor:
    """One factor in [0.5, 1.5] a sample around its own mean, on the intensity channels."""

    def stretch(grey: Tensor) -> Tensor:
        mean = grey.mean(tuple(range(1, grey.ndim)), keepdim=True)
        return (grey - mean) * _uniform(grey, 0.5, 1.5) + mean

    return _on_grey(x, images, stretch)


def translation(x: Tensor, images: int) -> Tensor:
    """A shift of up to an eighth of each side; what enters is -1, the background."""
    for axis in range(2, x.ndim):
        side = x.shape[axis]
        reach = int(side * REACH + 0.5)
        shift = torch.randint(-reach, reach + 1, (len(x),), device=x.device)
        source = torch.arange(side, device=x.device) + shift[:, None]
        inside = (source >= 0) & (source < side)
        shape = [len(x), *[1] * (x.ndim - 1)]
        shape[axis] = side
        moved = torch.gather(x + 1, axis, source.clamp(0, side - 1).view(shape).expand_as(x))
        x = moved * inside.view(shape) - 1
    return x


def cutout(x: Tensor, images: int) -> Tensor:
    """A box of a quarter of each side, anywhere, set to -1."""
    hole = torch.ones_like(x, dtype=torch.bool)
    for axis in range(2, x.ndim):
        side = x.shape[axis]
        half = int(side * HOLE / 2 + 0.5)
        centre = torch.randint(side, (len(x), 1), device=x.device)
        shape = [len(x), *[1] * (x.ndim - 1)]
        shape[axis] = side
        hole = hole & ((torch.arange(side, device=x.device) - centre).abs() <= half).view(shape)
    return (x + 1) * ~hole - 1


KINDS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "brightness": brightness,
    "contrast": contrast,
    "translation": translation,
    "cutout": cutout,
}


def check(kinds: Sequence[str]) -> tuple[str, ...]:
    """``kinds`` where all of them exist.

    Raises:
        ConfigError: names the first that does not.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(
                f"config model.augment: {kind!r} is not known (known: {', '.join(KINDS)})"
            )
    return tuple(kinds)


def augment(x: Tensor, kinds: Sequence[str], images: int) -> Tensor:
    """``x`` (b, c, ...) in [-1, 1] changed by each of ``kinds``, differently for each sample.

    Args:
        x: real or fake; gradients of any order flow through.
        kinds: names in ``KINDS``, applied in this order.
        images: how many of the channels are intensities; the rest are masks.
    """
    for kind in kinds:
        x = KINDS[kind](x, images)
    return x


def _uniform(x: Tensor, low: float, high: float) -> Tensor:
    draw = torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device)
    return low + (high - low) * draw


def _on_grey(x: Tensor, images: int, change: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.cat([change(x[:, :images]), x[:, images:]], 1)
