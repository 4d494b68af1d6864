"""Arguments of the transforms that need no second library: three ways to mix, and new contrasts.

Dataclasses, which the transforms of torchio and MONAI take over, so that each shows its arguments
by name, type and default, and each argument is documented once.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, ClassVar

import numpy as np

from medaug.core.geometry import HU_RANGE, spacing
from medaug.core.seeds import derive
from medaug.transforms.carvemix import carvemix
from medaug.transforms.contrast import Texture, check_contrast, randomise_contrast
from medaug.transforms.copypaste import copypaste
from medaug.transforms.cutmix import cutmix
from medaug.transforms.scan import Scan
from medaug.transforms.sources import Donor, Mixing


@dataclass(kw_only=True, eq=False, repr=False)
class Mixture:
    """One way to mix two cases, with its own arguments."""

    function: ClassVar[Callable[..., Scan]]
    names: ClassVar[tuple[str, ...]]

    def own(self) -> dict[str, Any]:
        """The arguments of this way to mix, JSON values."""
        return {name: getattr(self, name) for name in self.names}

    def mixing(self) -> Mixing:
        """This way as a function of two scans and a generator."""
        return partial(type(self).function, **self.own())


@dataclass(kw_only=True, eq=False, repr=False)
class CutMixArguments(Mixture):
    """Arguments of CutMix (Yun et al., ICCV 2019)."""

    function = staticmethod(cutmix)
    names: ClassVar[tuple[str, ...]] = ("alpha",)

    alpha: float = 1.0
    """The share of voxels that stays is drawn from Beta(alpha, alpha); above 0."""


@dataclass(kw_only=True, eq=False, repr=False)
class CarveMixArguments(Mixture):
    """Arguments of CarveMix (Zhang et al., MICCAI 2021)."""

    function = staticmethod(carvemix)
    names: ClassVar[tuple[str, ...]] = ("labels",)

    labels: Collection[int] | None = None
    """Label ids that are the lesion; None for all but 0."""

    def own(self) -> dict[str, Any]:
        """The arguments of this way to mix, JSON values."""
        return {**super().own(), "labels": sorted_ids(self.labels)}


@dataclass(kw_only=True, eq=False, repr=False)
class CopyPasteArguments(CarveMixArguments):
    """Arguments of copy-paste (Ghiasi et al., CVPR 2021)."""

    function = staticmethod(copypaste)
    names: ClassVar[tuple[str, ...]] = ("labels", "shift_mm")

    labels: Collection[int] | None = None
    """Label ids to copy; None for all but 0."""
    shift_mm: float = 0.0
    """Largest shift along each axis, mm."""


def sorted_ids(labels: Collection[int] | None) -> list[int] | None:
    """Label ids as JSON has them."""
    return None if labels is None else sorted(int(number) for number in labels)


@dataclass(kw_only=True, eq=False, repr=False)
class ContrastArguments:
    """Arguments of contrast randomisation, after SynthSeg (Billot et al., 2023)."""

    clusters: int = 4
    """Into how many classes of intensity to divide what no label covers; at least 1."""
    means: tuple[float, float] | None = None
    """Range of the new means; None for the 1st to 99th percentile of the image."""
    gains: tuple[float, float] = (0.5, 1.5)
    """Range of the factor on the texture, where that is kept."""
    deviations: tuple[float, float] = (0.0, 30.0)
    """Range of the standard deviation, where the texture is Gaussian."""
    texture: Texture = "kept"
    """``kept``, a voxel's difference from its tissue's mean; or ``gaussian``, noise instead."""
    strength: float = 1.0
    """From 0, no change, to 1, what was drawn."""
    limits: tuple[float, float] = HU_RANGE
    """Lowest and highest intensity of the result; HU unless given."""

    def contrast(self) -> dict[str, Any]:
        """The arguments of `randomise_contrast`, found to be in range.

        Raises:
            ConfigError: an argument is out of range.
        """
        options = {field.name: getattr(self, field.name) for field in fields(ContrastArguments)}
        check_contrast(**options)
        return options


def change_contrast(mine: Donor, draw: int, options: dict[str, Any]) -> Scan:
    """A case with a new mean intensity for every tissue, by the seed ``draw``."""
    rng = np.random.default_rng(derive(draw, "contrast"))
    return randomise_contrast(Scan(mine.image, mine.label, spacing(mine.affine)), rng, **options)
