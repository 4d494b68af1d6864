"""Synthetic slices of a generator that has seen the patients of a lesson and nobody else."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medaug.core.config import Config
from medaug.core.errors import DataError
from medaug.core.types import LabelMap
from medaug.data.cache.store import SliceCache
from medaug.data.formats.limits import read_arrays
from medaug.evaluation.downstream.streams import IGNORED, Pool
from medaug.runtime.files import replacing
from medaug.synthesis.filter.filter import Filter
from medaug.synthesis.generator import Generator
from medaug.synthesis.ignore_label import ignore_above
from medaug.training.loop import fit

FEWEST = 16
"""Slices that a filter must have kept for an arm to be taught."""


@dataclass(frozen=True)
class SyntheticPool:
    """Draws 0 to n of a generator.

    Attributes:
        images: HU (n, y, x).
        labels: ids (n, y, x).
        kept: whether the filter keeps each (n,).
        reasons: why it refuses the others (n,), empty where it does not.
    """

    images: np.ndarray
    labels: LabelMap
    kept: np.ndarray
    reasons: np.ndarray

    def first(self, count: int, filtered: bool) -> np.ndarray:
        """Indices of the first ``count`` draws, or of the first that the filter keeps."""
        among = np.flatnonzero(self.kept) if filtered else np.arange(len(self.kept))
        return among[:count]

    def pool(self, index: np.ndarray, labels: LabelMap | None = None) -> Pool:
        """Those draws as slices to learn from, each an owner of its own.

        Raises:
            DataError: hardly any.
        """
        if len(index) < FEWEST:
            raise DataError(
                f"the filter kept {int(self.kept.sum())} of {len(self.kept)} samples, "
                f"{FEWEST} are needed"
            )
        marks = self.labels[index] if labels is None else labels
        return Pool(self.images[index], marks, [f"sample {k}" for k in index])


def train(config: Config, cache: SliceCache, run: Path, device: str) -> int:
    """Train a generator on all of ``cache``, or go on; returns the images it has seen.

    Raises:
        KeyboardInterrupt: it was told to stop.
    """
    report = fit(config, cache, run, device=device)
    if not report.finished:
        raise KeyboardInterrupt
    return report.images


def draw(generator: Generator, judging: Filter, count: int, most: int) -> SyntheticPool:
    """Draw until the filter has kept ``count``, but no more than ``most``, in whole blocks."""
    size = generator.block_size
    images, labels, reasons = [], [], []
    for number in range(-(-most // size)):
        block = generator.block(number, uncertainty=0)
        image = np.stack([sample.image for sample in block])
        label = np.stack([sample.label for sample in block if sample.label is not None])
        images.append(image)
        labels.append(label)
        reasons += judging.judge(image, label)
        if sum(not reason for reason in reasons) >= count:
            break
    why = np.array(reasons, dtype=np.str_)
    return SyntheticPool(np.concatenate(images), np.concatenate(labels), why == "", why)


def ignored(
    generator: Generator, index: np.ndarray, labels: LabelMap, votes: int, above: str
) -> LabelMap:
    """The masks ``labels`` of draws ``index`` with ``IGNORED`` where alternatives disagree.

    In layout mode, whose alternatives share their mask, the mask itself is deformed a little.
    """
    source = "mask" if generator.masks == "layout" else "latent"
    rule = replace(ignore_above(above, generator.labels, votes, "nifti"), label=IGNORED)
    found = []
    size = generator.block_size
    wanted = dict.fromkeys(int(k) // size for k in index)
    places = {int(k) for k in index}
    for number in wanted:
        for sample in generator.block(number, uncertainty=votes, source=source):
            if sample.index in places:
                found.append(rule.marked(sample).label)
    marked = np.stack([label for label in found if label is not None])
    assert (np.where(marked == IGNORED, labels, marked) == labels).all()
    return marked


def keep(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays, whole or not at all."""
    with replacing(path) as part, part.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def kept(path: Path) -> dict[str, np.ndarray] | None:
    """What ``keep`` wrote, or None."""
    if not path.exists():
        return None
    try:
        with path.open("rb") as file:
            return read_arrays(file)
    except ValueError as error:
        raise DataError(f"{path}: damaged; delete it and run the same command again") from error
