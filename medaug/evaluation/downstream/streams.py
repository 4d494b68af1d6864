"""Streams of labelled slices: what an arm teaches, slice by slice.

A stream is a function of a random generator.  Who owns the generator addresses it by seed and
position, so that item k is the same whatever was drawn before.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from medaug.core.errors import DataError
from medaug.core.seeds import derive
from medaug.core.types import HU, LabelMap
from medaug.transforms.scan import Scan

IGNORED = 255
"""Label id of pixels that no loss looks at."""

Pair = tuple[HU, LabelMap]
Stream = Callable[[np.random.Generator], Pair]
Mix = Callable[[Scan, Scan, np.random.Generator], Scan]


@dataclass(frozen=True)
class Pool:
    """Labelled slices.

    Attributes:
        images: HU int16 (n, y, x).
        labels: label ids uint8 (n, y, x), ``IGNORED`` where there is nothing to learn.
        owners: the patient, or the sample, that each is of.
    """

    images: HU
    labels: LabelMap
    owners: Sequence[str]

    def __post_init__(self) -> None:
        if not len(self.images):
            raise DataError("a pool of training slices is empty")

    def __len__(self) -> int:
        return len(self.images)


def item(stream: Stream, seed: int, position: int) -> Pair:
    """The slice at ``position`` of a stream."""
    return stream(np.random.default_rng(derive(seed, "item", position)))


def plain(pool: Pool) -> Stream:
    """The slices of a pool, each as likely as another."""

    def draw(rng: np.random.Generator) -> Pair:
        k = rng.integers(len(pool))
        return pool.images[k], pool.labels[k]

    return draw


def mixed(usual: Stream, other: Stream, ratio: float) -> Stream:
    """``other`` with the probability ``ratio``, else ``usual``."""

    def draw(rng: np.random.Generator) -> Pair:
        return other(rng) if rng.random() < ratio else usual(rng)

    return draw


def changed(pool: Pool, mix: Mix, probability: float, pixel_mm: float) -> Stream:
    """The slices of a pool, some changed by ``mix`` with a slice of another patient.

    Where the pool has one patient, it is another of his slices.
    """
    owners = np.array(pool.owners)
    several = len(set(pool.owners)) > 1

    def scan(k: int) -> Scan:
        return Scan(pool.images[k][None], pool.labels[k], (pixel_mm, pixel_mm))

    def draw(rng: np.random.Generator) -> Pair:
        k = int(rng.integers(len(pool)))
        if rng.random() >= probability:
            return pool.images[k], pool.labels[k]
        others = np.flatnonzero(owners != owners[k]) if several else np.arange(len(pool))
        made = mix(scan(k), scan(int(rng.choice(others))), rng)
        assert made.label is not None
        return made.image[0].astype(np.int16), made.label

    return draw
