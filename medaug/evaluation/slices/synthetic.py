"""Describe the synthetic slices of a report before they are read, and put them together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medaug.core.errors import CacheError, DataError
from medaug.core.modality import CT, Modality, modality_of
from medaug.core.types import HU, LabelMap
from medaug.data.cache.prepare import SliceCache
from medaug.evaluation.slices.evidence import SliceSet

PIXEL_SHARE = 0.01
"""Pixels whose sides differ by a larger share are of different sizes."""


@dataclass(frozen=True)
class Frame:
    """What synthetic slices must have in common with the real ones.

    Attributes:
        cache: where the real ones are.
        size: pixels a side.
        pixel_mm: side of a pixel.
        step_mm: from slice to slice.
        window_hu: HU outside it are clipped.
        names: label name to id, of the labels that count.
        least: pixels of those labels that a slice of a stack must show to count; a synthetic slice
            that stands alone always does.
        modality: of the real ones.
    """

    cache: Path
    size: int
    pixel_mm: float
    step_mm: float
    window_hu: tuple[float, float]
    names: Mapping[str, int]
    least: int
    modality: Modality = CT

    @classmethod
    def of(
        cls,
        cache: SliceCache,
        window_hu: tuple[float, float],
        labels: Sequence[str] | None,
        least: int,
    ) -> "Frame":
        """Take the frame of a cache's slices.

        Raises:
            CacheError: pictures, no patient held out or in training, or an unknown label.
        """
        if cache.kind != "ct":
            raise CacheError(
                f"{cache.path}: holds pictures; the report is about slices of CT or MR"
            )
        for split, how in (("train", "for training"), ("heldout", "held out")):
            if not cache.split[split]:
                raise CacheError(
                    f"{cache.path}: no patient is {how}, and the report needs both sides; prepare "
                    "the scans with a share of the patients held out (medaug prepare DATA "
                    "--cache NEW --holdout 0.3)"
                )
        for name in labels or ():
            if name not in cache.labels:
                known = ", ".join(cache.labels) or "none"
                raise CacheError(f"{cache.path}: has no label {name!r} (there: {known})")
        x_mm, _, z_mm = next(iter(cache.cases.values())).spacing_mm
        side = next(iter(cache.cases.values())).image.shape[-1]
        names = {k: v for k, v in cache.labels.items() if labels is None or k in labels}
        return cls(
            cache.path, side, x_mm, z_mm, window_hu, names, least if names else 0,
            modality_of(cache.modality),
        )  # fmt: skip

    def check(self, where: str | Path, shape: Sequence[int], pixel_mm: Sequence[float]) -> None:
        """Refuse slices (y, x) of another size, or of pixels (x, y) of another size.

        Raises:
            DataError: naming the command that makes a cache of the same kind.
        """
        same = tuple(shape[-2:]) == (self.size, self.size)
        fits = all(abs(side / self.pixel_mm - 1) <= PIXEL_SHARE for side in pixel_mm)
        if same and fits:
            return
        height, width = shape[-2:]
        x_mm, y_mm = pixel_mm
        sizes = (
            f"{where}: slices of {width} x {height} pixels of {x_mm:.4g} x {y_mm:.4g} mm, and those"
            f" of {self.cache} have {self.size} x {self.size} of {self.pixel_mm:.4g} mm; "
        )
        if height == width and abs(x_mm / y_mm - 1) <= PIXEL_SHARE:
            raise DataError(
                f"{sizes}cut the real scans alike: medaug prepare DATA --cache NEW --size {width} "
                f"--fov {width * x_mm:.6g}"
            )
        raise DataError(f"{sizes}resample them to square slices of that kind first")


@dataclass(frozen=True)
class Synthetic:
    """Synthetic slices that were found but not read yet.

    Attributes:
        what: where they come from, in words.
        fingerprint: of their content, whatever folder they are in.
        facts: plain values for the report.
        window_hu: the window they were made in, or None where it is unknown.
        labels: name to id of their masks' labels; empty where there are no masks.
        least: label pixels that a slice of their training had to show, or None where it is unknown.
        modality: ``CT``, ``MR``, or None where it is unknown.
        load: reads or draws them in a frame; the folder is for what may be kept meanwhile.
    """

    what: str
    fingerprint: str
    facts: Mapping[str, Any]
    window_hu: tuple[float, float] | None
    labels: Mapping[str, int]
    least: int | None
    modality: str | None
    load: Callable[[Frame, Path], SliceSet] = field(repr=False)


class Gathering:
    """Puts slices together case by case, in a frame.

    Args:
        frame: of the real slices.
        labels: name to id in the masks that come; ids become those of the frame, by name.
        masks: whether there are masks at all.
    """

    def __init__(self, frame: Frame, labels: Mapping[str, int], masks: bool) -> None:
        self.frame = frame
        shared = {k: v for k, v in labels.items() if k in frame.names}
        self.names = {name: frame.names[name] for name in shared} if masks else {}
        self.table = np.zeros(256, np.uint8)
        for name, number in shared.items():
            self.table[number] = frame.names[name]
        self.images: list[HU] = []
        self.labels: list[LabelMap] = []
        self.stds: list[npt.NDArray[np.float32]] = []
        self.entropies: list[npt.NDArray[np.float32]] = []
        self.cases: list[str] = []
        self.heights: list[int] = []

    def add(
        self,
        case: str,
        image: npt.NDArray[Any],
        label: npt.NDArray[Any] | None,
        std: npt.NDArray[Any] | None = None,
        entropy: npt.NDArray[Any] | None = None,
    ) -> None:
        """Add a case, a slice (y, x) or a stack (z, y, x), which the caller has checked."""
        stack = image.reshape(-1, *image.shape[-2:])
        low, high = self.frame.window_hu
        marks = None
        if self.names and label is not None:
            marks = self.table[label.reshape(stack.shape)]
        for z, values in enumerate(stack):
            if len(stack) > 1 and marks is not None and (marks[z] > 0).sum() < self.frame.least:
                continue
            self.images.append(np.rint(np.clip(values, low, high)).astype(np.int16))
            self.cases.append(case)
            self.heights.append(z)
            if marks is not None:
                self.labels.append(marks[z])
            for whole, kept in ((std, self.stds), (entropy, self.entropies)):
                if whole is not None:
                    kept.append(whole.reshape(stack.shape)[z].astype(np.float32))

    def done(self, where: str | Path, step_mm: float | None = None) -> SliceSet:
        """Return all slices that were added.

        Raises:
            DataError: nothing, or no slice that shows a label.
        """
        n = len(self.images)
        if not n:
            shown = f" that shows {' or '.join(self.names)}" if self.names else ""
            raise DataError(f"{where}: no synthetic slice in it{shown}")

        def whole(kept: list[Any]) -> Any:
            return np.stack(kept) if len(kept) == n else None

        return SliceSet(
            np.stack(self.images),
            whole(self.labels) if self.names else None,
            self.cases,
            np.array(self.heights),
            self.frame.pixel_mm,
            step_mm or self.frame.step_mm,
            self.names,
            whole(self.stds),
            whole(self.entropies),
            self.frame.modality,
        )
