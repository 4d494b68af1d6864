"""The patients of a study: who is tested on, who may be learned from, and their slices."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from medaug.core.codec import CTCodec
from medaug.core.config import DataConfig
from medaug.core.errors import CacheError, ConfigError
from medaug.core.seeds import derive
from medaug.core.types import HU, LabelMap
from medaug.data.cache.store import SliceCache
from medaug.data.feed.feed import codec_for
from medaug.data.feed.select import gather, usable
from medaug.evaluation.downstream.streams import Pool


@dataclass(frozen=True)
class Unseen:
    """An unseen patient: images HU (z, y, x), labels ids (z, y, x), spacing along z, y, x in mm."""

    name: str
    images: HU
    labels: LabelMap
    spacing_mm: tuple[float, float, float]


def plain_codec(cache: SliceCache, data: DataConfig) -> CTCodec:
    """The window and the labels that students are taught.

    Raises:
        ConfigError: no labels.
    """
    codec = codec_for(cache, data.model_copy(update={"masks": "joint"}))
    if not isinstance(codec, CTCodec) or not codec.labels:
        raise ConfigError(f"{cache.path}: a downstream study needs scans with labels")
    return CTCodec(codec.window_hu, codec.labels, modality=codec.modality)


def labelled(cache: SliceCache, data: DataConfig, labels: dict[str, int]) -> list[str]:
    """The training patients that may be chosen: those with a slice that shows a label."""
    cases = (cache.cases[name] for name in cache.split["train"])
    return [case.id for case in cases if case.labeled and usable(case, data, labels).any()]


def choose(ids: Sequence[str], n: int, seed: int, subset: int) -> list[str]:
    """``n`` patients by (seed, n, subset), whatever the order of ``ids``.

    Raises:
        ConfigError: there are not so many.
    """
    if n > len(ids):
        raise ConfigError(f"downstream.n: {n} patients asked for, {len(ids)} can be learned from")
    return sorted(sorted(ids, key=lambda name: derive(seed, "subset", n, subset, name))[:n])


def unseen(
    cache: SliceCache, data: DataConfig, labels: dict[str, int], slices: str
) -> list[Unseen]:
    """The held-out patients with a label; ``slices`` as in the config.

    Raises:
        CacheError: there is none.
    """
    found = []
    for name in cache.split["heldout"]:
        case = cache.cases[name]
        if case.label is None:
            continue
        shown = np.flatnonzero(usable(case, data, labels))
        if not len(shown):
            continue
        span = slice(shown[0], shown[-1] + 1) if slices == "labelled" else slice(None)
        marks = np.array(case.label[span])
        marks[~np.isin(marks, list(labels.values()))] = 0
        x, y, z = case.spacing_mm
        found.append(Unseen(name, np.array(case.image[span]), marks, (z, y, x)))
    if not found:
        raise CacheError(
            f"{cache.path}: no held-out patient with a label to test on; prepare more scans, of "
            "which a fifth is held out"
        )
    return found


def pools(
    cache: SliceCache, data: DataConfig, labels: dict[str, int]
) -> tuple[Pool, HU, Collection[str]]:
    """The labelled slices of a cache's training patients, and those without a label.

    Both as a generator sees them, unwarped.

    Returns:
        The pool, and images HU (n, y, x) with their owners of scans without labels.
    """
    slices = gather(cache, data, labels, "train", None)
    assert slices.labels is not None
    there = slices.labeled.numpy()
    marks = slices.labels[slices.labeled].numpy()
    marks = np.where(np.isin(marks, list(labels.values())), marks, 0).astype(np.uint8)
    seen, bare = (slices.images[side].numpy() for side in (slices.labeled, ~slices.labeled))
    owners = np.array(slices.owners)
    known = Pool(seen, marks, owners[there].tolist())
    return known, bare, owners[~there].tolist()
