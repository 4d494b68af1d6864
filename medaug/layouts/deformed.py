"""Real layouts under smooth random deformation, so that shapes are new and anatomy is not."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from medaug.data.warp import field, warp_ids
from medaug.errors import ConfigError
from medaug.seeds import derive, generator

AMOUNTS = {"rotate": 0.08, "scale": 0.08, "shift": 0.03, "elastic": 0.025}
"""At strength 1: radians, shares, and for the elastic field half fields of view on a 6 x 6 grid,
so that 400 mm move by 5 mm (one standard deviation) and bend over some 70 mm."""
NUDGE = 0.5
"""The strength, beside a layout's own, of the alternatives to it."""


class Deformed:
    """Layout maps of real slices, each deformed on its own.

    Slices take turns in an order that the seed decides.

    Args:
        maps: layout maps (n, h, w), uint8.
        strength: 0 leaves them as they are; see ``AMOUNTS``.

    Raises:
        ConfigError: a strength out of range.
    """

    def __init__(self, maps: Tensor, strength: float = 1.0) -> None:
        if not 0 <= strength <= 4:
            raise ConfigError(f"mask_strength must be 0 to 4, got {strength:g}")
        self.real, self.strength = maps, strength
        content = hashlib.sha256(maps.numpy().tobytes())
        self.fingerprint = derive_name(content.hexdigest(), strength)

    @property
    def how(self) -> str:
        """See ``Layouts.how``."""
        return f"a real layout deformed at strength {self.strength:g}"

    def maps(self, seed: int, indices: Sequence[int], attempt: int = 0) -> Tensor:
        """See ``Layouts.maps``."""
        found = torch.stack([self.real[self._slice(seed, i, attempt)] for i in indices])
        if not self.strength:
            return found
        return deform(found, seed, indices, f"layout {attempt}", self.strength)

    def _slice(self, seed: int, index: int, attempt: int) -> int:
        place, count = index, len(self.real)
        if attempt:
            place = derive(seed, "layout again", index, attempt) % count
        epoch, rank = divmod(place, count)
        order = torch.randperm(count, generator=generator(seed, "layout order", epoch))
        return int(order[rank])


def derive_name(content: str, strength: float) -> str:
    """A fingerprint of maps at a strength."""
    return hashlib.sha256(f"{content} {strength:g}".encode()).hexdigest()


def deform(
    maps: Tensor, seed: int, indices: Sequence[int], purpose: str, strength: float
) -> Tensor:
    """Each map of ``maps`` (n, h, w) through a smooth field of its own, never interpolated."""
    amounts = {name: strength * amount for name, amount in AMOUNTS.items()}
    sides = (maps.shape[-2], maps.shape[-1])
    grids = [field(1, sides, generator(seed, purpose, index), **amounts) for index in indices]
    return warp_ids(maps, torch.cat(grids))
