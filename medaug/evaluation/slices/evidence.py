"""Hold the slices of a report as plain arrays: synthetic, training and held-out ones."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from medaug.core.errors import CacheError
from medaug.core.modality import CT, Modality, modality_of
from medaug.core.types import HU, LabelMap
from medaug.data.cache.prepare import SliceCache
from medaug.data.feed.tissues import body

ABOVE_AIR = 25
"""How far the body lies above the darkest pixel of a set whose air is not at its usual HU."""


@dataclass(frozen=True)
class SliceSet:
    """Slices of one kind, clipped to one window.

    Attributes:
        images: int16 (n, y, x) in the unit of the modality.
        labels: label ids uint8 (n, y, x), or None where there are no masks.
        cases: the scan, or the synthetic case, that each slice is of.
        heights: the place of each slice in its case, counted in slices.
        pixel_mm: side of a pixel.
        step_mm: from slice to slice within a case.
        names: label name to id.
        std: float32 (n, y, x), the spread of each synthetic slice's alternatives, or None.
        entropy: bits float32 (n, y, x), of the alternatives' label votes, or None.
        modality: of the images.
    """

    images: HU
    labels: LabelMap | None
    cases: Sequence[str]
    heights: npt.NDArray[np.int64]
    pixel_mm: float
    step_mm: float
    names: Mapping[str, int]
    std: npt.NDArray[np.float32] | None = None
    entropy: npt.NDArray[np.float32] | None = None
    modality: Modality = CT

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def bodies(self) -> npt.NDArray[np.bool_]:
        """The body in each slice (n, y, x): above -135 HU, or 25 above the darkest pixel of all.

        Of MR, above 25 thousandths.
        """
        floor = max(float(self.modality.body_in_slice), float(self.images.min()) + ABOVE_AIR)
        return np.stack([body(image, floor) for image in self.images])

    def pick(self, index: npt.NDArray[Any]) -> "SliceSet":
        """The slices at ``index``, whole numbers or a mask."""
        index = np.arange(len(self))[index]
        parts: dict[str, Any] = {}
        for name in ("images", "labels", "heights", "std", "entropy"):
            whole = getattr(self, name)
            parts[name] = None if whole is None else whole[index]
        return replace(self, cases=[self.cases[i] for i in index], **parts)

    def distinct(self) -> "SliceSet":
        """The slices without those that are another one's image and mask, pixel by pixel."""
        seen: dict[bytes, int] = {}
        for i, image in enumerate(self.images):
            marks = b"" if self.labels is None else self.labels[i].tobytes()
            seen.setdefault(hashlib.sha256(image.tobytes() + marks).digest(), i)
        return self if len(seen) == len(self) else self.pick(np.array(sorted(seen.values())))

    def some(self, n: int, seed: int) -> "SliceSet":
        """At most ``n`` of them, in their order; the same for the same arguments."""
        if n >= len(self):
            return self
        order = np.random.default_rng(seed).permutation(len(self))[:n]
        return self.pick(np.sort(order))


@dataclass(frozen=True)
class Evidence:
    """The three sets of slices that the figures compare.

    Attributes:
        synthetic: the slices that are evaluated.
        train: real slices that the generator has seen, or could have.
        heldout: real slices of patients that it cannot have seen.
        window_hu: what all three are clipped to.
        seed: of all random draws in the evaluation.
    """

    synthetic: SliceSet
    train: SliceSet
    heldout: SliceSet
    window_hu: tuple[float, float]
    seed: int = 0

    @property
    def modality(self) -> Modality:
        """Of all three."""
        return self.heldout.modality


def real_slices(
    cache: SliceCache,
    split: str,
    window_hu: tuple[float, float],
    labels: Sequence[str] | None = None,
    least: int = 1,
) -> SliceSet:
    """Read the slices of a split that show the given labels.

    Args:
        cache: real slices.
        split: ``train`` or ``heldout``.
        window_hu: HU outside it are clipped.
        labels: names of the labels kept, None for all of the cache; the others become background.
        least: pixels of those labels that a slice must show; 0 takes every slice.

    Raises:
        CacheError: the cache holds pictures, or the split no such slice.
    """
    if cache.kind != "ct":
        raise CacheError(f"{cache.path}: holds pictures; the report is about slices of CT or MR")
    names = {k: v for k, v in cache.labels.items() if labels is None or k in labels}
    images, marks, cases, heights, spacing = [], [], [], [], None
    for case_id in cache.split[split]:
        case = cache.cases[case_id]
        if case.label is None and least:
            continue
        spacing = spacing or case.spacing_mm
        for z, image in enumerate(case.image):
            mark = (
                np.zeros(image.shape, np.uint8) if case.label is None else np.array(case.label[z])
            )
            mark[~np.isin(mark, list(names.values()))] = 0
            if (mark > 0).sum() < least:
                continue
            images.append(np.clip(image, *window_hu).astype(np.int16))
            marks.append(mark)
            cases.append(case_id)
            heights.append(z)
    if spacing is None or not images:
        raise CacheError(
            f"{cache.path}: no {split} slice shows {' or '.join(names) or 'anything'}; prepare it "
            "with patients held out (medaug prepare --holdout 0.2)"
        )
    return SliceSet(
        np.stack(images),
        np.stack(marks) if names else None,
        cases,
        np.array(heights),
        spacing[0],
        spacing[2],
        names,
        modality=modality_of(cache.modality),
    )
