"""Choose the slices of one split, from a cache and from scans without labels."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from medaug.core.config import DataConfig
from medaug.core.errors import DataError
from medaug.data.cache.arrays import Stack
from medaug.data.cache.store import CachedCase, SliceCache
from medaug.data.feed.condition import heights

THUMB = 16
NEAR = 1.25
"""A slice without a label is taken where its thumbnail is no further from a labelled one than this
times what lies between 95 % of the labelled slices and the nearest of another patient."""
MOST = 4096
"""Labelled slices that are compared, at even steps, so that the cost grows with the slices."""


@dataclass(frozen=True)
class Slices:
    """Slices in one order, on the CPU; their pixels stay on the disk.

    Attributes:
        images: stored values (n, h, w), or RGB (n, h, w, 3).
        labels: label maps (n, h, w), 0 throughout where a scan has no label; None without labels.
        classes: class ids (n,), or None.
        heights: of each slice in its scan, (n,) in [-1, 1].
        labeled: whether the scan of each slice has a label, (n,).
        pixels: label to its pixels in each slice (n,).
        attributes: which of the cache's attributes each picture has, bool (n, attributes).
        owners: the case that each slice is from.
    """

    images: Stack
    labels: Stack | None
    classes: Tensor | None
    heights: Tensor
    labeled: Tensor
    pixels: dict[str, npt.NDArray[np.int64]]
    attributes: Tensor
    owners: list[str]


def gather(
    cache: SliceCache,
    data: DataConfig,
    labels: dict[str, int],
    split: str,
    unlabeled: SliceCache | None,
) -> Slices:
    """Choose the slices of a split that training may use, or all of those held out.

    With ``data.require_label`` a training slice shows a label; one of a scan without a label must
    look like one that does.

    Args:
        cache: with the scans.
        data: which slices training uses.
        labels: name to id of the labels that count.
        split: ``train`` or another one of the cache.
        unlabeled: scans without labels that join training, or None.

    Raises:
        DataError: no slice of the split qualifies.
    """
    training = split == "train"
    chosen, bare = [], []
    for name in cache.split[split]:
        case = cache.cases[name]
        if cache.kind == "ct" and case.label is None:
            bare.append(case)
            continue
        used = usable(case, data, labels)
        chosen.append((case, used, np.flatnonzero(used) if training else _all(case)))
    if not sum(len(keep) for _, _, keep in chosen):
        raise DataError(
            f"{cache.path}: no {split} slice qualifies (with data.require_label a slice must "
            f"show at least {data.min_label_pixels} pixels of {', '.join(labels) or '-'})"
        )
    if training and data.unlabeled and data.masks != "alone" and not data.attributes:
        others = [] if unlabeled is None else _new_scans(unlabeled, cache)
        more = [*bare, *others]
        near = _Alike(chosen) if more and labels and data.require_label else None
        for case in more:
            keep = _all(case) if near is None else near(case)
            chosen.append((case, np.isin(_all(case), keep), keep))
    return _stacked(chosen, labels, cache)


def _new_scans(unlabeled: SliceCache, cache: SliceCache) -> list[CachedCase]:
    """The scans of ``unlabeled`` that are not in ``cache``, where they may be held out."""
    there = {case.image_sha256 for case in cache.cases.values()}
    return [case for case in unlabeled.cases.values() if case.image_sha256 not in there]


Chosen = list[tuple[CachedCase, npt.NDArray[np.bool_], npt.NDArray[np.intp]]]


def _all(case: CachedCase) -> npt.NDArray[np.intp]:
    return np.arange(len(case.image))


def usable(case: CachedCase, data: DataConfig, labels: dict[str, int]) -> npt.NDArray[np.bool_]:
    """Say which slices of a case training may use, (z,).

    Args:
        case: the scan.
        data: with ``require_label`` and ``min_label_pixels``.
        labels: name to id of the labels that count.
    """
    if not (labels and data.require_label):
        return np.ones(len(case.image), dtype=bool)
    pixels = sum(case.label_pixels[name] for name in labels)
    return np.asarray(pixels) >= data.min_label_pixels


class _Alike:
    """Finds the slices of a case that look like labelled ones, of which `MOST` are compared."""

    def __init__(self, chosen: Chosen) -> None:
        step = -(-sum(len(keep) for _, _, keep in chosen) // MOST)
        thumbs = [_thumbs(case, keep[::step]) for case, _, keep in chosen if len(keep)]
        self.all = torch.cat(thumbs)
        apart, start = [], 0
        for mine in thumbs:
            far = torch.cdist(mine, self.all)
            if len(thumbs) > 1:
                far[:, start : start + len(mine)] = torch.inf
            apart.append(far.amin(1))
            start += len(mine)
        self.limit = NEAR * float(torch.cat(apart).quantile(0.95))

    def __call__(self, case: CachedCase) -> npt.NDArray[np.intp]:
        near = torch.cdist(_thumbs(case, _all(case)), self.all).amin(1) <= self.limit
        return np.flatnonzero(near.numpy())


def _thumbs(case: CachedCase, keep: npt.NDArray[np.intp]) -> Tensor:
    """Thumbnails of slices (n, 256), HU through a wide window."""
    image = torch.from_numpy(np.clip(case.image[keep], -300, 300).astype(np.float32))
    return F.adaptive_avg_pool2d(image[:, None], THUMB).flatten(1)


def _stacked(chosen: Chosen, labels: dict[str, int], cache: SliceCache) -> Slices:
    def stack(parts: Iterator[npt.NDArray]) -> Tensor:
        return torch.cat([torch.from_numpy(np.ascontiguousarray(part)) for part in parts])

    first = chosen[0][0].image
    keeps, shape = [keep for _, _, keep in chosen], first.shape[1:]
    maps = classes = None
    if labels:
        maps = Stack([case.label for case, _, _ in chosen], keeps, shape[:2], np.uint8)
    if cache.classes:
        parts = ((case.classes, keep) for case, _, keep in chosen)
        classes = stack(found[keep].astype(np.int64) for found, keep in parts if found is not None)
    counts = {
        name: np.concatenate(
            [
                case.label_pixels[name][keep] if name in case.label_pixels else np.zeros(len(keep))
                for case, _, keep in chosen
            ]
        ).astype(np.int64)
        for name in cache.labels
    }
    return Slices(
        images=Stack([case.image for case, _, _ in chosen], keeps, shape, first.dtype),
        labels=maps,
        classes=classes,
        heights=stack(heights(usable)[keep] for _, usable, keep in chosen),
        labeled=stack(
            np.full(len(keep), cache.kind == "image" or case.label is not None)
            for case, _, keep in chosen
        ),
        pixels=counts,
        attributes=stack(case.attributes[keep] for case, _, keep in chosen),
        owners=[case.id for case, _, keep in chosen for _ in keep],
    )
