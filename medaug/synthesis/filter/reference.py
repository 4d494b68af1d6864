"""What the filter knows of the real training slices, measured once and kept in one file.

``filter.safetensors`` holds the figures of every training slice, its descriptor of 16 x 16 cells,
and the segmenters.  The descriptors are thumbnails of patients' slices: the file belongs beside the
run, and is not meant to be passed on with the weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medaug.core.codec import CTCodec, from_dict
from medaug.core.config import DataConfig
from medaug.core.errors import ConfigError, WeightsError
from medaug.core.modality import modality_of
from medaug.core.seeds import derive, generator
from medaug.data.cache.prepare import SliceCache
from medaug.data.feed.feed import Feed, codec_for
from medaug.runtime.progress import Progress, progress
from medaug.synthesis.filter.measures import Figures, descriptor, distance, measure, overlap
from medaug.synthesis.filter.settings import FilterConfig
from medaug.training.checkpoint import below, read_tensors, write_tensors
from medaug.training.segmenter import Segmenter, restore, train_segmenter

VERSION = 1

QUERIES = 512
"""Real slices whose nearest other is looked up."""

_FIGURES = tuple(field.name for field in fields(Figures))

Columns = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Reference:
    """The real training slices as the filter sees them.

    Attributes:
        codec: the window and the labels.
        size: pixels a side.
        least: fewest labelled pixels of a slice that training uses.
        columns: figures of each slice by name (n,) or (n, labels); see ``measures.Figures``.  More
            of them: ``group``, whose slice it is; ``agreement`` (n, labels + 1), smoothed Dice with
            a segmenter that has not seen the patient; ``nearest`` (m,), HU from some slices to the
            nearest of another group.
        descriptors: (n, cells) in HU.
        segmenters: one of each fold, or none where there are no labels.
        made_from: what the file depends on.
        checksum: of the file's content.
    """

    codec: CTCodec
    size: int
    least: int
    columns: Columns
    descriptors: Tensor
    segmenters: tuple[Segmenter, ...]
    made_from: dict[str, Any]
    checksum: str = ""


def recipe(
    cache: SliceCache, data: DataConfig, config: FilterConfig, unlabeled: SliceCache | None = None
) -> dict[str, Any]:
    """Everything that the content of the file depends on.

    Raises:
        ConfigError: pictures, masks alone, or labels that the cache does not have.
    """
    return {
        "filter": VERSION,
        "cache": cache.fingerprint,
        "unlabeled": unlabeled.fingerprint if unlabeled and data.unlabeled else "",
        "codec": _plain(cache, data).to_dict(),
        "size": cache.settings.size,
        "require_label": data.require_label,
        "min_label_pixels": data.min_label_pixels,
        **build_settings(config),
    }


def build_settings(config: FilterConfig) -> dict[str, Any]:
    """The settings that the measured figures depend on."""
    return {name: getattr(config, name) for name in ("segmenter_images", "folds", "seed")}


def _plain(cache: SliceCache, data: DataConfig) -> CTCodec:
    """The window and the labels of ``data``, whatever a model does with the masks."""
    codec = codec_for(cache, data)
    if not isinstance(codec, CTCodec) or data.masks == "alone":
        what = "masks alone" if isinstance(codec, CTCodec) else "pictures"
        raise ConfigError(f"{cache.path}: the filter judges slices of scans; these are {what}")
    return CTCodec(codec.window_hu, codec.labels, modality=codec.modality)


def build(
    cache: SliceCache,
    data: DataConfig,
    config: FilterConfig,
    device: torch.device,
    unlabeled: SliceCache | None = None,
) -> Reference:
    """Measure the training split of ``cache`` and train the segmenters.

    Slices of scans without a label count as what must not be copied, and for nothing else.

    Raises:
        ConfigError: pictures, or labels that the cache does not have.
        DataError: no slice qualifies for training.
    """
    made_from = recipe(cache, data, config, unlabeled)
    codec = _plain(cache, data)
    plain = data.model_copy(update={"attributes": None, "height": False, "augment": None})
    feed = Feed(cache, plain, codec, seed=0, device=torch.device("cpu"), unlabeled=unlabeled)
    low, high = codec.window_hu
    images = feed.images.numpy().clip(low, high).astype(np.float32)
    descriptors = descriptor(torch.from_numpy(images))
    kept = feed.labeled.numpy() if codec.labels else np.ones(len(images), bool)
    maps = feed.label_maps
    labels = np.zeros_like(images, "u1") if maps is None else maps.numpy()
    images, labels = images[kept], labels[kept]
    owner = [name for name, there in zip(feed.owners, kept, strict=True) if there]
    group = _groups(owner, config.folds)
    folds = _folds(owner, group, config)
    count = config.segmenter_images * len(np.unique(folds)) if codec.labels else 0
    with progress("filter", len(images) + count, "slices") as bar:
        columns = _figures(images, labels, codec, data.min_label_pixels, bar)
        columns["group"] = group
        known = descriptors[torch.from_numpy(kept)]
        columns["nearest"] = _nearest(images, known, group, low, config.seed)
        segmenters, columns["agreement"] = _segmenters(
            images, labels, codec, folds, config, device, bar
        )
    return Reference(
        codec, images.shape[-1], data.min_label_pixels, columns, descriptors, segmenters, made_from
    )


def _groups(owner: list[str], folds: int) -> npt.NDArray[np.int64]:
    """Numbers of the patients (n,), or of blocks of neighbouring slices where there is but one."""
    names = sorted(set(owner))
    if len(names) > 1:
        return np.array([names.index(name) for name in owner])
    return np.arange(len(owner)) * folds // len(owner)


def _folds(
    owner: list[str], group: npt.NDArray[np.int64], config: FilterConfig
) -> npt.NDArray[np.int64]:
    """In which fold each slice is (n,): groups in an order that the seed decides, dealt out."""
    numbers = np.unique(group)
    name = {number: owner[int(np.argmax(group == number))] for number in numbers}
    ranked = sorted(numbers, key=lambda n: derive(config.seed, "fold", name[n], int(n)))
    place = {number: rank % config.folds for rank, number in enumerate(ranked)}
    return np.array([place[number] for number in group])


def _figures(
    images: npt.NDArray[np.float32],
    labels: npt.NDArray[np.uint8],
    codec: CTCodec,
    least: int,
    bar: Progress,
) -> dict[str, npt.NDArray[Any]]:
    ids, modality = list(codec.labels.values()), modality_of(codec.modality)
    rows = []
    for image, label in zip(images, labels, strict=True):
        rows.append(measure(image, label, ids, least, codec.window_hu[0], modality))
        bar.advance(note="measuring")
    return {name: np.array([getattr(row, name) for row in rows], float) for name in _FIGURES}


def _nearest(
    images: npt.NDArray[np.float32],
    descriptors: Tensor,
    group: npt.NDArray[np.int64],
    low: float,
    seed: int,
) -> npt.NDArray[np.float64]:
    """HU from up to 512 of the slices to the nearest slice of another group."""
    order = torch.randperm(len(images), generator=generator(seed, "nearest"))[:QUERIES]
    found = []
    for index in order.sort().values.tolist():
        others = descriptors[torch.from_numpy(group != group[index])]
        if len(others):
            found.append(float(distance(images[index], others, low).min()))
    return np.array(found)


def _segmenters(
    images: npt.NDArray[np.float32],
    labels: npt.NDArray[np.uint8],
    codec: CTCodec,
    folds: npt.NDArray[np.int64],
    config: FilterConfig,
    device: torch.device,
    bar: Progress,
) -> tuple[tuple[Segmenter, ...], npt.NDArray[np.float64]]:
    """One segmenter for each fold, trained without it, and what it finds in it (n, labels + 1)."""
    ids = list(codec.labels.values())
    agreement = np.full((len(images), len(ids) + 1), np.nan)
    if not ids:
        return (), agreement
    found = []
    for fold in np.unique(folds):
        seen, unseen = folds != fold, np.flatnonzero(folds == fold)
        if not seen.any():
            seen = folds == fold
        network = train_segmenter(
            images[seen],
            labels[seen],
            codec,
            count=config.segmenter_images,
            seed=derive(config.seed, "fold", int(fold)),
            device=device,
            bar=bar,
        )
        for index, guess in zip(unseen, network.predict(images[unseen], 16), strict=True):
            agreement[index] = overlap(labels[index], guess, ids)
        found.append(network)
    return tuple(found), agreement


def write(path: Path, reference: Reference) -> str:
    """Keep a reference, whole or not at all; returns the checksum."""
    tensors = {f"column.{name}": torch.from_numpy(v) for name, v in reference.columns.items()}
    tensors["descriptors"] = reference.descriptors.half()
    for number, network in enumerate(reference.segmenters):
        tensors |= {f"segmenter.{number}.{k}": v for k, v in network.state_dict().items()}
    header = {
        "filter": reference.made_from,
        "codec": reference.codec.to_dict(),
        "size": reference.size,
        "least": reference.least,
        "segmenters": len(reference.segmenters),
    }
    return write_tensors(path, tensors, header)


def read(path: Path, device: torch.device) -> Reference:
    """What ``write`` kept; the cache need not be there.

    Raises:
        WeightsError: no such file, not ours, damaged, or no filter.
    """
    tensors, header, checksum = read_tensors(path)
    if header.get("filter", {}).get("filter") != VERSION:
        raise WeightsError(f"{path}: holds no filter of version {VERSION}")
    codec = from_dict(header["codec"])
    assert isinstance(codec, CTCodec)
    parts = [below(tensors, f"segmenter.{k}.") for k in range(header["segmenters"])]
    return Reference(
        codec=codec,
        size=header["size"],
        least=header["least"],
        columns={name: v.numpy() for name, v in below(tensors, "column.").items()},
        descriptors=tensors["descriptors"].float(),
        segmenters=tuple(restore(part, header["codec"]).to(device) for part in parts),
        made_from=header["filter"],
        checksum=checksum,
    )


# Thresholds from the figures of real slices, calibrated so that unseen patients keep them.
#
# The range of a figure is the range of its quantiles, widened by what each group of slices (each
# patient) sticks out of the range of all others: a patient who was not there is met as one was who
# was left out.  Where a figure depends on the size of the mask, each band of sizes has its own
# range.


Values = npt.NDArray[np.floating[Any]]

Groups = npt.NDArray[np.integer[Any]]

ENOUGH = 60
"""Slices that a band of sizes needs."""

BANDS = 4


@dataclass(frozen=True)
class Bounds:
    """Lowest and highest value by size: band k holds sizes up to ``edges[k]``."""

    edges: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def at(self, size: float = 0.0) -> tuple[float, float]:
        """Lowest and highest value for a mask of ``size`` pixels."""
        band = int(np.searchsorted(self.edges, size))
        return self.low[band], self.high[band]


def fitted(values: Values, groups: Groups, tail: float) -> tuple[float, float]:
    """Bounds that a share ``tail`` of the slices of a new group would pass on either side.

    Args:
        values: a figure of each slice (n,).
        groups: whose slice it is (n,).
        tail: share of the slices beyond each bound.

    Returns:
        Lowest and highest value; infinite where there are no values.
    """
    if not len(values):
        return -np.inf, np.inf
    shares = [tail, 1 - tail]
    low, high = np.quantile(values, shares)
    below, above = [np.zeros(1)], [np.zeros(1)]
    for group in np.unique(groups):
        mine = groups == group
        if not mine.all():
            least, most = np.quantile(values[~mine], shares)
            below.append(least - values[mine])
            above.append(values[mine] - most)
    widen = (max(np.quantile(np.concatenate(side), 1 - tail), 0) for side in (below, above))
    return float(low - next(widen)), float(high + next(widen))


def by_size(values: Values, sizes: Values, groups: Groups, tail: float, first: float = 0) -> Bounds:
    """``fitted`` for each of up to four bands of sizes that hold about as many slices each.

    Args:
        values: a figure of each slice (n,); those that are not a number are left out.
        sizes: pixels of its mask (n,).
        groups: whose slice it is (n,).
        tail: share of the slices beyond each bound.
        first: sizes below it make a band of their own.
    """
    there = np.isfinite(values)
    values, sizes, groups = values[there], sizes[there], groups[there]
    large = sizes[sizes >= first]
    bands = int(np.clip(len(large) // ENOUGH, 1, BANDS))
    cuts = np.quantile(large, np.arange(1, bands) / bands) if len(large) else np.empty(0)
    edges = tuple(float(c) for c in ([first - 0.5] if first else []) + np.unique(cuts).tolist())
    place = np.searchsorted(edges, sizes)
    pairs = [
        fitted(values[place == band], groups[place == band], tail) for band in range(len(edges) + 1)
    ]
    low, high = zip(*pairs, strict=True)
    return Bounds(edges, low, high)
