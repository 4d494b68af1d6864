"""Uncertain voxels as nnU-Net's ``ignore`` label: a loss then passes over them.

nnU-Net v2 wants the label called ``ignore`` in ``dataset.json``, with the highest id of all.  Which
voxels are uncertain is read from the vote entropy of a sample's alternative masks.  For the label
see Gotkowski et al. 2024, arXiv 2403.12834.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from medaug.core.errors import ConfigError
from medaug.core.types import Sample

IGNORE = "ignore"


@dataclass(frozen=True)
class IgnoreAbove:
    """Where a sample's entropy counts as too high.

    Attributes:
        label: the id that such voxels get.
        bound: bits, above which a voxel is ignored; or, where ``relative``, a quantile 0 to 1 of
            the sample's own non-zero entropies, at and above which it is.  K votes give few
            different entropies, so that often nothing lies strictly above a high quantile.
    """

    label: int
    bound: float
    relative: bool

    def __str__(self) -> str:
        return f"q{100 * self.bound:g}" if self.relative else f"{self.bound:g}"

    def marked(self, sample: Sample) -> Sample:
        """``sample`` with a label map that ignores the uncertain voxels; the rest is untouched.

        Voxels on which all votes agree have no entropy.  They are left out of the quantile, since
        they are nearly all, and never ignored.
        """
        if sample.label is None or sample.entropy is None:
            return sample
        uncertain = sample.entropy[sample.entropy > 0]
        if not len(uncertain):
            return sample
        if self.relative:
            ignored = sample.entropy >= np.quantile(uncertain, self.bound)
        else:
            ignored = sample.entropy > self.bound
        return replace(sample, label=np.where(ignored, np.uint8(self.label), sample.label))

    def cleared(self, sample: Sample) -> Sample:
        """``sample``, read back, with background where its label map ignores."""
        if sample.label is None:
            return sample
        label = np.where(sample.label == self.label, np.uint8(0), sample.label)
        return replace(sample, label=label)


def ignore_above(
    asked: str | float, labels: Mapping[str, int], uncertainty: int, format: str
) -> IgnoreAbove:
    """What ``--ignore-above`` asks for.

    Args:
        asked: ``q95`` for the 95th percentile, or a number of bits such as 0.5.
        labels: name to id of the labels in the masks.
        uncertainty: K, how many masks vote.
        format: of the folder.

    Raises:
        ConfigError: neither of the two forms, bits that no vote can exceed, or samples without
            masks, votes or nnU-Net's layout.
    """
    if format != "nifti":
        raise ConfigError(f"ignore_above: nnU-Net's label goes with format nifti, got {format}")
    if not labels:
        raise ConfigError("ignore_above: this model draws no masks, so there are no votes on them")
    if uncertainty < 2:
        raise ConfigError(
            f"ignore_above: votes need an uncertainty of at least 2, got {uncertainty}"
        )
    if IGNORE in labels:
        raise ConfigError(f"ignore_above: the model has a label of its own called {IGNORE!r}")
    label = max(labels.values()) + 1
    if label > 255:
        raise ConfigError("ignore_above: label maps hold ids up to 255, and 255 is taken")
    most = math.log2(min(uncertainty, len(labels) + 1))
    percentile = re.fullmatch(r"q(\d+(?:\.\d*)?)", str(asked))
    if percentile:
        if not 0 < float(percentile[1]) < 100:
            raise ConfigError(f"ignore_above: {asked}, accepted are above q0 to below q100")
        return IgnoreAbove(label, float(percentile[1]) / 100, relative=True)
    try:
        bits = float(asked)
    except ValueError as error:
        raise ConfigError(
            f"ignore_above: {asked!r}, accepted are q95 and the like, or bits such as 0.5"
        ) from error
    if not 0 <= bits < most:
        raise ConfigError(
            f"ignore_above: {bits:g} bits, accepted are 0 to below {most:g}, which is all that "
            f"{uncertainty} votes on {len(labels) + 1} labels can have; q95 is the 95th percentile"
        )
    return IgnoreAbove(label, bits, relative=False)
