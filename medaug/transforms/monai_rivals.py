"""MONAI dictionary transforms: CutMix, CarveMix, copy-paste and contrast randomisation.

All draws come from a transform's own ``R``, so ``set_random_state`` and MONAI's data loader decide
them.  None is lazy: ``Compose`` resamples what is pending before them.  Metadata and the trace of
what was applied stay, since voxels keep their places.
"""

from abc import abstractmethod
from collections.abc import Collection, Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform

from medaug.errors import ConfigError
from medaug.geometry import HU_RANGE, spacing
from medaug.seeds import derive
from medaug.transforms.calm import calm
from medaug.transforms.carvemix import carvemix
from medaug.transforms.contrast import Texture, check_contrast, randomise_contrast
from medaug.transforms.copypaste import copypaste
from medaug.transforms.cutmix import cutmix
from medaug.transforms.donors import (
    Anchor,
    Cases,
    Draw,
    Mixing,
    check_anchor,
    check_donors,
    mixed,
    open_donors,
)
from medaug.transforms.items import like, present, read, two_keys
from medaug.transforms.monai import SEEDS, check_probability
from medaug.transforms.pairs import POOL
from medaug.transforms.scan import Scan

Source = str | Path | Sequence[Mapping[Hashable, Any]]


class _RandMixd(RandomizableTransform, MapTransform):
    """Now and then, one case of a source mixed into an item's image and label map.

    The case is drawn uniformly: over all of a folder or sequence, or the first ``pool`` samples of
    a run.  Intensities are mixed as they are, so keep this before transforms that rescale them.

    Args:
        keys: of the image, and of the label map where there is one, in this order.
        source: a run folder, a ``.safetensors`` file, a folder written by ``medaug synthesize``, a
            folder of images and labels as nnU-Net's, or a sequence of items with these keys,
            loaded and channel-first, such as a MONAI ``CacheDataset``.
        prob: probability of mixing.
        seed: which family of samples a run draws from.
        pool: how many samples of a run take part.
        device: where a run's model is computed; with worker processes, ``cpu``.
        anchor: what is laid on what: ``middle``, the middles of the two cases, or ``label``, the
            middles of their labels, where both have any.
        allow_missing_keys: whether items may lack the label map, whose image is then mixed alone,
            or the image, and then stay as they are.

    Raises:
        ConfigError: an argument is out of range, or an item does not fit.
        DataError: ``source`` is none of these.
    """

    def __init__(
        self,
        keys: KeysCollection,
        source: Source,
        prob: float = 0.3,
        *,
        seed: int = 0,
        pool: int = POOL,
        device: str = "cpu",
        anchor: Anchor = "middle",
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        check_probability(prob)
        RandomizableTransform.__init__(self, prob)
        if pool < 1:
            raise ConfigError(f"pool must be at least 1, got {pool}")
        self.pair = two_keys(self.keys)
        check_anchor(anchor)
        self.seed, self.pool, self.device, self.anchor = seed, pool, device, anchor
        self.cases: Cases | None = None
        if isinstance(source, str | Path):
            check_donors(str(source))
            self.source = str(source)
        else:
            self.cases = Cases(source, partial(read, keys=self.pair))
            self.source = self.cases.name
        self.index = self.draw = 0

    @abstractmethod
    def mixing(self) -> Mixing:
        """The rival as a function of two scans and a generator."""

    def randomize(self, data: Any = None) -> None:
        """Draw whether to mix, with which case, and the seed of all else."""
        super().randomize(None)
        if not self._do_transform:
            return
        with calm():
            indices = open_donors(self.source, self.device).indices(self.pool)
        self.index = int(indices[self.R.randint(len(indices))])
        self.draw = int(self.R.randint(SEEDS))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """A new dictionary with other entries at ``keys``; ``data`` is left as it is."""
        result = dict(data)
        keys = present(data, self.pair, self.allow_missing_keys)
        self.randomize()
        if keys is None or not self._do_transform:
            return result
        image, label = keys
        drawn = Draw(self.source, self.index, self.draw, self.seed, self.device, anchor=self.anchor)
        with calm():
            scan = mixed(read(data, keys), self.mixing(), drawn)
        result[image] = like(data[image], scan.image)
        if label is not None and scan.label is not None:
            result[label] = like(data[label], scan.label[None])
        return result


class RandCutMixd(_RandMixd):
    """Now and then CutMix (Yun et al. 2019): a box of another case.

    Args:
        *args: ``keys``, ``source`` and ``prob``.
        alpha: the share of voxels that stays is drawn from Beta(alpha, alpha).
        **kwargs: ``seed``, ``pool``, ``device``, ``anchor`` and ``allow_missing_keys``.
    """

    def __init__(self, *args: Any, alpha: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.alpha = alpha

    def mixing(self) -> Mixing:
        """See ``_RandMixd``."""
        return partial(cutmix, alpha=self.alpha)


class RandCarveMixd(_RandMixd):
    """Now and then CarveMix (Zhang et al. 2021): the region around another case's lesion.

    Args:
        *args: ``keys``, ``source`` and ``prob``.
        labels: ids that are the lesion; None for all but 0.
        **kwargs: ``seed``, ``pool``, ``device``, ``anchor`` and ``allow_missing_keys``.
    """

    def __init__(self, *args: Any, labels: Collection[int] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.labels = labels

    def mixing(self) -> Mixing:
        """See ``_RandMixd``."""
        return partial(carvemix, labels=self.labels)


class RandCopyPasted(_RandMixd):
    """Now and then copy-paste (Ghiasi et al. 2021): another case's labelled voxels on top.

    Args:
        *args: ``keys``, ``source`` and ``prob``.
        labels: ids to copy; None for all but 0.
        shift_mm: largest shift along each axis.
        **kwargs: ``seed``, ``pool``, ``device``, ``anchor`` and ``allow_missing_keys``.
    """

    def __init__(
        self,
        *args: Any,
        labels: Collection[int] | None = None,
        shift_mm: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.labels, self.shift_mm = labels, shift_mm

    def mixing(self) -> Mixing:
        """See ``_RandMixd``."""
        return partial(copypaste, labels=self.labels, shift_mm=self.shift_mm)


class RandLabelContrastd(RandomizableTransform, MapTransform):
    """Now and then new intensities for all tissues, after SynthSeg (Billot et al. 2023).

    Args:
        keys: of the image, and of the label map where there is one, which stays.
        prob: probability of the change.
        clusters: into how many classes of intensity to divide what no label covers.
        means: range of the new means; None for that of the image's own intensities.
        gains: range of the factor on the texture, where that is kept.
        deviations: range of the standard deviation, where the texture is Gaussian.
        texture: ``kept`` or ``gaussian``.
        strength: 0 for no change, 1 for what was drawn.
        limits: lowest and highest intensity of the result; HU unless given.
        allow_missing_keys: whether items may lack the label map, and are then divided by intensity
            alone, or the image, and then stay as they are.

    Raises:
        ConfigError: an argument is out of range, or an item does not fit.
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.3,
        *,
        clusters: int = 4,
        means: tuple[float, float] | None = None,
        gains: tuple[float, float] = (0.5, 1.5),
        deviations: tuple[float, float] = (0.0, 30.0),
        texture: Texture = "kept",
        strength: float = 1.0,
        limits: tuple[float, float] = HU_RANGE,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        check_probability(prob)
        RandomizableTransform.__init__(self, prob)
        check_contrast(clusters, means, gains, deviations, texture, strength, limits)
        self.pair = two_keys(self.keys)
        self.change = partial(
            randomise_contrast,
            clusters=clusters,
            means=means,
            gains=gains,
            deviations=deviations,
            texture=texture,
            strength=strength,
            limits=limits,
        )
        self.draw = 0

    def randomize(self, data: Any = None) -> None:
        """Draw whether to change, and the seed of all else."""
        super().randomize(None)
        if self._do_transform:
            self.draw = int(self.R.randint(SEEDS))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """A new dictionary with another image; ``data`` is left as it is."""
        result = dict(data)
        keys = present(data, self.pair, self.allow_missing_keys)
        self.randomize()
        if keys is None or not self._do_transform:
            return result
        mine = read(data, keys)
        rng = np.random.default_rng(derive(self.draw, "contrast"))
        scan = self.change(Scan(mine.image, mine.label, spacing(mine.affine)), rng)
        result[keys[0]] = like(data[keys[0]], scan.image)
        return result
