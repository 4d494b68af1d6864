"""Real layouts under smooth random deformation, so that shapes are new and anatomy is not."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from medaug.core.errors import ConfigError
from medaug.core.seeds import derive, generator
from medaug.data.feed.warp import field, warp_ids

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
        stretches: how many consecutive maps are of slices that lie on each other, and how many mm
            apart; all maps, in their order.  Empty where that is not known.

    Raises:
        ConfigError: a strength out of range.
    """

    def __init__(
        self, maps: Tensor, strength: float = 1.0, stretches: Sequence[tuple[int, float]] = ()
    ) -> None:
        if not 0 <= strength <= 4:
            raise ConfigError(f"mask_strength must be 0 to 4, got {strength:g}")
        self.real, self.strength, self.stretches = maps, strength, tuple(stretches)
        content = hashlib.sha256(maps.numpy().tobytes())
        self.fingerprint = derive_name(content.hexdigest(), strength)

    @property
    def how(self) -> str:
        """See ``Layouts.how``."""
        return f"a real layout deformed at strength {self.strength:g}"

    def maps(self, seed: int, indices: Sequence[int], attempt: int = 0) -> Tensor:
        """See ``Layouts.maps``."""
        count = len(self.real)
        found = torch.stack([self.real[_turn(seed, i, attempt, count)] for i in indices])
        if not self.strength:
            return found
        return deform(found, seed, indices, f"layout {attempt}", self.strength)

    def starts(self, slices: int, step_mm: float) -> list[tuple[int, float]]:
        """Maps above which real slices go on for a whole stack, with the distance of theirs.

        Raises:
            ConfigError: there is none.
        """
        found, first = [], 0
        for count, apart in self.stretches:
            needed = round((slices - 1) * step_mm / apart)
            found += [(first + k, apart) for k in range(count - needed)]
            first += count
        if not found:
            longest = max(((n - 1) * apart for n, apart in self.stretches), default=0.0)
            raise ConfigError(
                f"stack: {slices} slices {step_mm:g} mm apart extend {(slices - 1) * step_mm:g} "
                f"mm, and the longest stretch of real masks {longest:g} mm; ask for fewer slices"
            )
        return found

    def stack(self, seed: int, index: int, slices: int, step_mm: float, attempt: int = 0) -> Tensor:
        """Layout maps (slices, h, w) of stack ``index``, from one scan under one deformation.

        Where the scan's slices are not ``step_mm`` apart, the nearest ones are taken.

        Raises:
            ConfigError: no scan extends far enough.
        """
        starts = self.starts(slices, step_mm)
        first, apart = starts[_turn(seed, index, attempt, len(starts))]
        above = [round(k * step_mm / apart) for k in range(slices)]
        found = self.real[[first + k for k in above]]
        if not self.strength:
            return found
        return deform(found, seed, [index] * slices, f"stack layout {attempt}", self.strength)


def _turn(seed: int, index: int, attempt: int, count: int) -> int:
    """Which of ``count`` sample ``index`` gets: they take turns in an order the seed decides."""
    place = derive(seed, "layout again", index, attempt) % count if attempt else index
    epoch, rank = divmod(place, count)
    order = torch.randperm(count, generator=generator(seed, "layout order", epoch))
    return int(order[rank])


def derive_name(content: str, strength: float) -> str:
    """A fingerprint of maps at a strength."""
    return hashlib.sha256(f"{content} {strength:g}".encode()).hexdigest()


def deform(
    maps: Tensor, seed: int, indices: Sequence[int], purpose: str, strength: float
) -> Tensor:
    """Each map of ``maps`` (n, h, w) through the smooth field of its index."""
    amounts = {name: strength * amount for name, amount in AMOUNTS.items()}
    sides = (maps.shape[-2], maps.shape[-1])
    grids = [field(1, sides, generator(seed, purpose, index), **amounts) for index in indices]
    known = maps.unique()
    return warp_ids(maps, torch.cat(grids), known[known > 0])
