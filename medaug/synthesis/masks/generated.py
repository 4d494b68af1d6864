"""Layouts drawn by a run that was trained on masks alone."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from medaug.core.errors import ConfigError
from medaug.core.seeds import derive
from medaug.core.types import Sample
from medaug.synthesis.masks.deformed import deform, derive_name


class Drawer(Protocol):
    """What is needed of a generator of masks."""

    fingerprint: str
    masks: str
    drawn: dict[str, int]
    size: int
    block_size: int

    def block(self, number: int, seed: int = 0, uncertainty: int = 8) -> list[Sample]: ...


class GeneratedMasks:
    """The layout maps of a generator of masks.

    Args:
        generator: of a run with ``data.masks`` alone.
        wanted: name to id of what the layouts must hold.
        size: pixels a side that they must have.
        strength: of a random deformation on top; 0 for none.

    Raises:
        ConfigError: the run draws something else, or a strength out of range.
    """

    def __init__(
        self, generator: Drawer, wanted: dict[str, int], size: int, strength: float = 0.0
    ) -> None:
        if not 0 <= strength <= 4:
            raise ConfigError(f"mask_strength must be 0 to 4, got {strength:g}")
        if generator.masks != "alone":
            raise ConfigError(
                f"masks: a run of masks alone is wanted (data.masks alone), this one has "
                f"data.masks {generator.masks}"
            )
        if generator.drawn != wanted or generator.size != size:
            raise ConfigError(
                f"masks: the run draws {generator.drawn} at {generator.size} pixels, wanted are "
                f"{wanted} at {size}"
            )
        self.generator, self.strength = generator, strength
        self.fingerprint = derive_name(generator.fingerprint, strength)

    @property
    def how(self) -> str:
        """See ``Layouts.how``."""
        return f"a layout drawn by the run of masks {self.generator.fingerprint[:12]}"

    def maps(self, seed: int, indices: Sequence[int], attempt: int = 0) -> Tensor:
        """See ``Layouts.maps``."""
        size = self.generator.block_size
        family = derive(seed, "layouts", attempt) if attempt else seed
        blocks = {
            number: self.generator.block(number, family, 0)
            for number in sorted({index // size for index in indices})
        }
        labels = [blocks[index // size][index % size].label for index in indices]
        found = torch.from_numpy(np.stack([label for label in labels if label is not None]))
        if not self.strength:
            return found
        return deform(found, seed, indices, f"layout {attempt}", self.strength)
