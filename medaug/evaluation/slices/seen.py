"""Find the slices that a generator has or may have seen, among which copies are sought.

Figures compare like with like: slices that show the requested labels.  A copy may be of any slice,
so it is sought among all slices of every training scan, with a label or without, and of the scans
without labels that joined the training.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medaug.core.errors import ConfigError
from medaug.core.types import HU
from medaug.data.cache.duplicates import identity, twins
from medaug.data.cache.store import CachedCase, SliceCache
from medaug.evaluation.slices.evidence import SliceSet
from medaug.training.run import read_facts, trained_on


@dataclass(frozen=True)
class Seen:
    """Slices in one order, read when they are used.

    Attributes:
        stacks: slices (z, y, x) in the unit of the modality, perhaps mapped from the disk.
        cases: the scan that each slice is of.
        heights: the place of each slice in its scan.
        window_hu: what they are clipped to.
        unknown: what else the generator may have seen, one sentence each.
    """

    stacks: Sequence[npt.NDArray[np.int16]]
    cases: Sequence[str]
    heights: npt.NDArray[np.int64]
    window_hu: tuple[float, float]
    unknown: Sequence[str] = ()

    @classmethod
    def of(cls, part: SliceSet, window_hu: tuple[float, float]) -> "Seen":
        """The slices of a set and no others."""
        return cls([part.images], part.cases, part.heights, window_hu)

    def __len__(self) -> int:
        return len(self.cases)

    def parts(self) -> Iterator[HU]:
        """Stack by stack, clipped."""
        return map(self._clipped, self.stacks)

    def image(self, index: int) -> HU:
        """One slice (y, x), clipped."""
        ends = np.cumsum([len(stack) for stack in self.stacks])
        place = int(np.searchsorted(ends, index, side="right"))
        return self._clipped(self.stacks[place][index - int(ends[place])])

    def _clipped(self, values: npt.NDArray[np.int16]) -> HU:
        return np.clip(values, *self.window_hu).astype(np.int16)


@dataclass(frozen=True)
class Exposure:
    """The scans that a generator was trained on, as far as that is known.

    Attributes:
        cases: of the cache it is compared with, of the cache it was trained on where that is
            another one, and of its scans without labels; none of them twice.
        unknown: what else it may have seen, one sentence each.
    """

    cases: Sequence[CachedCase]
    unknown: Sequence[str]

    def slices(self, window_hu: tuple[float, float]) -> Seen:
        """All slices of those scans."""
        stacks = [case.image for case in self.cases]
        return Seen(
            stacks,
            [case.id for case in self.cases for _ in case.image],
            np.concatenate([np.arange(len(stack)) for stack in stacks]),
            window_hu,
            self.unknown,
        )


def exposure(cache: SliceCache, run: Path | None) -> Exposure:
    """Find what ``run`` has seen or, without one, a generator trained on ``cache``.

    Raises:
        ConfigError: the run was trained on a scan that ``cache`` holds out.
    """
    if run is None:
        return Exposure(_distinct(_training(cache)), [])
    more, unknown = _of_run(cache, run)
    heldout = {name: identity(cache.cases[name]) for name in cache.split["heldout"]}
    trained = {f"{n} {case.id}": identity(case) for n, case in enumerate(more)}
    leaked = sorted(name for name, one in twins(heldout, (), trained).items() if one in trained)
    if leaked:
        raise ConfigError(
            f"{cache.path}: holds out {len(leaked)} scans that {run} was trained on, such as "
            f"{leaked[0]}, so its figures would flatter; hold it against the cache it was trained "
            "on, or against patients it has not seen"
        )
    size = next(iter(cache.cases.values())).image.shape[1:]
    fits = [case for case in more if case.image.shape[1:] == size]
    if len(fits) < len(more):
        unknown = [
            *unknown,
            f"Copies are not sought among {len(more) - len(fits)} scans of the training that are "
            "cut to another size than those of this cache.",
        ]
    return Exposure(_distinct([*_training(cache), *fits]), unknown)


def _training(cache: SliceCache) -> list[CachedCase]:
    return [cache.cases[name] for name in cache.split["train"]]


def _distinct(cases: Sequence[CachedCase]) -> list[CachedCase]:
    """The first of those with the same slices."""
    return list({case.image_sha256: case for case in reversed(cases)}.values())[::-1]


def _of_run(cache: SliceCache, run: Path) -> tuple[list[CachedCase], list[str]]:
    """The training scans of a run that are not in ``cache``'s training, and what is not known."""
    if not (run / "run.json").is_file():
        return [], [
            "A weight file does not say what it was trained on: copies are sought among the "
            "training scans of this cache alone."
        ]
    facts, found, unknown = read_facts(run), [], []
    own = trained_on(run)
    if own is None and facts.get("cache") != cache.fingerprint:
        unknown.append(
            "The cache that the run was trained on is not there any more: copies of its scans "
            "that this cache lacks cannot be found, nor whether it saw those held out here."
        )
    elif own is not None and own.fingerprint != cache.fingerprint:
        found += _training(own)
    bare = trained_on(run, "unlabeled")
    if bare is not None:
        there = {case.image_sha256 for case in (own or cache).cases.values()}
        found += [case for case in bare.cases.values() if case.image_sha256 not in there]
    elif facts.get("_unlabeled"):
        unknown.append(
            "The scans without labels that joined the training are not there any more: copies of "
            "them cannot be found."
        )
    return found, unknown
