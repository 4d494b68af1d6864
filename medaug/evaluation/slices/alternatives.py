"""Draw a model's alternatives of held-out slices, to be compared with these."""

from dataclasses import dataclass

import numpy as np

from medaug.core.errors import ConfigError
from medaug.core.types import HU, LabelMap
from medaug.evaluation.slices.evidence import SliceSet
from medaug.synthesis.generator import Generator
from medaug.synthesis.sampling import STRENGTH

MOST = 64
"""Held-out slices used: about a minute on one core at 64 pixels a side."""


@dataclass(frozen=True)
class Alternatives:
    """A model's alternatives of real slices that it has not seen.

    Attributes:
        images: HU int16 (n, k, y, x), k alternatives of each slice.
        labels: label ids uint8 (n, k, y, x), or None where the model draws no masks.
        real: the slices themselves, n of them.
        seed: of the draws.
        how: what the alternatives are, in words.
        masks_seen: whether the model was shown the real mask of the slice.

    Raises:
        ConfigError: shapes that do not fit each other, or fewer than two alternatives.
    """

    images: HU
    labels: LabelMap | None
    real: SliceSet
    seed: int
    how: str
    masks_seen: bool = False

    def __post_init__(self) -> None:
        n, sides = len(self.real), self.real.images.shape[1:]
        shape = self.images.shape
        if len(shape) != 4 or shape[0] != n or shape[2:] != sides or shape[1] < 2:
            raise ConfigError(
                f"alternatives of {n} slices of {sides} are wanted as (n, k, y, x) with k of 2 "
                f"and more, got {shape}"
            )
        if self.labels is not None and self.labels.shape != shape:
            raise ConfigError(
                f"alternatives: labels are wanted as {shape}, got {self.labels.shape}"
            )


def alternatives_of(
    generator: Generator,
    heldout: SliceSet,
    k: int = 8,
    seed: int = 0,
    strength: float = STRENGTH,
    most: int = MOST,
) -> Alternatives | str:
    """Draw alternatives through the encoder, or other images for the same mask.

    Args:
        generator: a run; its window should be the slices'.
        heldout: real slices of patients that it has not seen.
        k: alternatives of each, 2 and more; alternative j of the i-th slice depends on
            (weights, seed, i, j) only.
        seed: of the draws.
        strength: of ``Generator.vary``; by default that of the alternatives that come with
            synthetic samples.
        most: slices used, drawn by ``seed``.

    Returns:
        The alternatives, or a sentence that says why there are none.

    Raises:
        ConfigError: k below 2, or a strength out of range.
    """
    if k < 2:
        raise ConfigError(f"alternatives: at least 2 of each slice are needed, got {k}")
    heldout = heldout.some(most, seed)
    side = heldout.images.shape[1:]
    if side != (generator.size, generator.size):
        return f"The model draws {generator.size} pixels a side, the held-out slices have {side}."
    if generator.condition.dim:
        return (
            "The model was conditioned on "
            f"{', '.join(generator.condition.names or ('a class',))} in training, which is not "
            "known of held-out slices."
        )
    given = generator.masks == "layout"
    if given and heldout.labels is None:
        return "The model is given its masks, and the held-out slices have none."
    if hasattr(generator.model, "encode"):
        shown = None if generator.partial and not given else heldout.labels
        if generator.drawn and not generator.partial and shown is None:
            return "The model's encoder takes masks, and the held-out slices have none."
        pairs = [
            generator.vary(heldout.images, shown, strength, seed=seed, index=j) for j in range(k)
        ]
        how, seen = "draws of the code that the encoder gives the slice", shown is not None
    elif given:
        assert heldout.labels is not None
        pairs = [
            (generator.redraw(heldout.labels, seed=seed, index=j, images=heldout.images), None)
            for j in range(k)
        ]
        how, seen = "other images for the slice's own mask", True
    else:
        return "The model has no encoder, so it cannot be asked about held-out slices."
    maps = [label for _, label in pairs if label is not None]
    labels = (
        None if given or not maps or not _same(generator.labels, heldout) else np.stack(maps, 1)
    )
    return Alternatives(
        np.stack([image for image, _ in pairs], 1), labels, heldout, seed, how, seen
    )


def _same(labels: dict[str, int], heldout: SliceSet) -> bool:
    """Whether the model draws a label of the slices, by name and id."""
    shared = set(labels.items()) & set(heldout.names.items())
    return heldout.labels is not None and bool(shared)
