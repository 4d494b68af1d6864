"""MONAI dictionary transform that puts a synthetic pair in the place of a scan and its label map.

All draws come from the transform's own ``R``, so ``set_random_state`` and MONAI's data loader
decide them.  It is not lazy: ``Compose`` resamples what is pending before it.
"""

from abc import abstractmethod
from collections.abc import Collection, Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import to_affine_nd
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import MetaKeys, SpaceKeys

from medaug.core.errors import ConfigError
from medaug.core.geometry import HU_RANGE, spacing
from medaug.core.seeds import derive
from medaug.core.types import Affine
from medaug.transforms.carvemix import carvemix
from medaug.transforms.contrast import Texture, check_contrast, randomise_contrast
from medaug.transforms.copypaste import copypaste
from medaug.transforms.cutmix import cutmix
from medaug.transforms.pairs import POOL, open_pairs
from medaug.transforms.scan import Scan, fitting, isolated_rng
from medaug.transforms.sources import (
    Anchor,
    Cases,
    Donor,
    Draw,
    Mixing,
    check_anchor,
    check_donors,
    mixed,
    open_donors,
)
from medaug.transforms.synthesis import SMOOTH_MM, STRENGTH, Mode, Recipe, synthetic

# What the MONAI transforms share: the arrays of a dictionary's entries, and their likes.


Keys = tuple[Hashable, Hashable | None]


def two_keys(keys: tuple[Hashable, ...]) -> Keys:
    """The image's key, and the label map's or None.

    Raises:
        ConfigError: more than two.
    """
    if len(keys) > 2:
        raise ConfigError(
            f"keys: the image, and the label map if there is one, are accepted, got {keys}"
        )
    return keys[0], keys[1] if len(keys) == 2 else None


def present(item: Mapping[Hashable, Any], keys: Keys, allow_missing: bool) -> Keys | None:
    """The keys that are there; None without an image.

    Raises:
        ConfigError: one is missing that must not be.
    """
    image, label = keys
    missing = [key for key in keys if key is not None and key not in item]
    if missing and not allow_missing:
        found = ", ".join(map(str, item)) or "none"
        raise ConfigError(f"the item has no {missing[0]!r} (it has: {found})")
    return None if image in missing else (image, None if label in missing else label)


def read(item: Mapping[Hashable, Any], keys: Keys) -> Donor:
    """An item's image and label map, channel first, as a case (channels, x, y, z).

    Raises:
        ConfigError: an entry is no such array, or the two have other shapes.
    """
    image = _array(item, keys[0])
    affine = _affine(item[keys[0]])
    label = None
    if keys[1] is not None:
        label = _array(item, keys[1])
        expected = (1, *image.shape[1:])
        if label.shape != expected:
            raise ConfigError(
                f"label map {keys[1]!r}: the image needs the shape {expected}, got {label.shape}"
            )
        label = label[0]
    if image.ndim == 3:
        image, label = image[..., None], None if label is None else label[..., None]
    return Donor(image, label, affine)


def _array(item: Mapping[Hashable, Any], key: Hashable) -> npt.NDArray[Any]:
    entry = item[key]
    if isinstance(entry, torch.Tensor):
        plain = entry.detach().cpu().as_subclass(torch.Tensor)
        entry = (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()
    if not isinstance(entry, np.ndarray) or entry.ndim not in (3, 4):
        found = entry.shape if isinstance(entry, np.ndarray) else type(entry).__name__
        raise ConfigError(
            f"{key!r}: an array (channels, x, y) or (channels, x, y, z) is needed, got {found}; "
            "load it and put its channels first before"
        )
    return entry


def _affine(entry: Any) -> Affine:
    if not isinstance(entry, MetaTensor):
        return np.eye(4)
    return np.asarray(to_affine_nd(3, entry.affine.cpu().numpy()), np.float64)


def like(
    old: Any, array: npt.NDArray[Any], affine: Affine | None = None, name: str | None = None
) -> Any:
    """``array`` (channels, x, y, z) with the class, type, device and axes of ``old``.

    Without an affine, metadata and the trace of what was applied stay those of ``old``.  With one,
    the array is another image: its metadata are new, under ``name``, and its trace is empty.
    """
    if old.ndim == 3:
        if array.shape[-1] != 1:
            raise ConfigError(
                f"the item is a slice, and the synthetic case a stack of {array.shape[-1]}; give a "
                "folder written without --stack"
            )
        array = array[..., 0]
    if isinstance(old, np.ndarray):
        return np.ascontiguousarray(fitting(array, old.dtype))
    half = old.dtype == torch.bfloat16
    dtype = torch.empty(0, dtype=torch.float32 if half else old.dtype).numpy().dtype
    tensor = torch.from_numpy(np.ascontiguousarray(fitting(array, dtype))).to(old.device)
    tensor = tensor.to(old.dtype) if half else tensor
    if not isinstance(old, MetaTensor):
        return tensor
    if affine is None:
        return MetaTensor(tensor).copy_meta_from(old)
    shape = np.asarray(array.shape[1:])
    if MetaKeys.SPATIAL_SHAPE in old.meta:
        shape = shape.astype(np.asarray(old.meta[MetaKeys.SPATIAL_SHAPE]).dtype)
    meta = {
        MetaKeys.AFFINE: torch.from_numpy(np.array(affine)).to(old.affine.dtype),
        MetaKeys.ORIGINAL_AFFINE: np.array(affine),
        MetaKeys.SPATIAL_SHAPE: shape,
        MetaKeys.SPACE: SpaceKeys.RAS,
        "filename_or_obj": name,
    }
    return MetaTensor(tensor, meta=meta)


SEEDS = 2**31 - 1


class RandSynthesisd(RandomizableTransform, MapTransform):
    """Now and then, a synthetic pair in the place of an item's image and label map.

    Entries are channel-first arrays, tensors or ``MetaTensor``s of CT in HU, of two or three
    spatial axes; class, device and, where it can hold the values, data type stay.

    In mode ``replace`` the pair is another case of the shape and spacing of its source, one slice
    thick; a ``MetaTensor`` gets its affine, new metadata and an empty trace of operations.  In the
    modes ``vary`` and ``redraw`` it is this case, slice by slice, on its own voxels, and metadata
    and trace stay.

    Args:
        keys: of the image, and of the label map where there is one, in this order.
        source: a run folder, a ``.safetensors`` file, or, to replace, a folder written by
            ``medaug synthesize``.
        prob: probability of replacing.
        mode: ``replace``, ``vary`` (the run needs an encoder) or ``redraw`` (a run in layout mode).
        strength: how far ``vary`` goes, above 0, little, to 1, all that the prior allows.
        smooth_mm: over which length along the body the slices' draws resemble each other.
        seed: which family of samples a run draws from; without meaning for a folder.
        pool: how many samples of a run take part.
        device: where a run's model is computed; with worker processes, ``cpu``.
        allow_missing_keys: whether items may lack the label map, whose image is then replaced
            alone, or the image, and then stay as they are.

    Raises:
        ConfigError: an argument is out of range, the mode needs a run, or an item does not fit.
        DataError: ``source`` is neither a run nor a synthesised folder.
    """

    def __init__(
        self,
        keys: KeysCollection,
        source: str | Path,
        prob: float = 0.3,
        *,
        mode: Mode = "replace",
        strength: float = STRENGTH,
        smooth_mm: float = SMOOTH_MM,
        seed: int = 0,
        pool: int = POOL,
        device: str = "cpu",
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        check_probability(prob)
        RandomizableTransform.__init__(self, prob)
        if pool < 1:
            raise ConfigError(f"pool must be at least 1, got {pool}")
        self.pair = two_keys(self.keys)
        self.pool = pool
        self.recipe = Recipe(str(source), mode, seed, device, strength, smooth_mm)
        self.recipe.check()
        self.index = 0

    def randomize(self, data: Any = None) -> None:
        """Draw whether to replace, and by which sample."""
        super().randomize(None)
        if not self._do_transform:
            return
        if self.recipe.mode == "replace":
            with isolated_rng():
                indices = open_pairs(self.recipe.source, self.recipe.device).indices(self.pool)
            self.index = int(indices[self.R.randint(len(indices))])
        else:
            self.index = int(self.R.randint(SEEDS))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """A new dictionary with other entries at ``keys``; ``data`` is left as it is."""
        result = dict(data)
        keys = present(data, self.pair, self.allow_missing_keys)
        self.randomize()
        if keys is None or not self._do_transform:
            return result
        image, label = keys
        with isolated_rng():
            mine = read(data, (image, None if self.recipe.mode == "replace" else label))
            drawn = synthetic(mine, self.recipe, self.index, None)
        if label is not None and drawn.label is None:
            raise ConfigError(
                f"{self.recipe.source}: draws no label maps, and {label!r} would no longer match "
                f"its image; keys=[{image!r}] leaves it as it is"
            )
        moved = drawn.affine if self.recipe.mode == "replace" else None
        name = f"syn_{self.index:06d}"
        result[image] = like(data[image], drawn.image, moved, name)
        if label is not None and drawn.label is not None:
            result[label] = like(data[label], drawn.label[None], moved, name)
        return result


def check_probability(prob: float) -> None:
    """Refuse what is no probability.

    Raises:
        ConfigError: below 0 or above 1.
    """
    if not 0 <= prob <= 1:
        raise ConfigError(f"prob must be from 0 to 1, got {prob}")


# MONAI dictionary transforms: CutMix, CarveMix, copy-paste and contrast randomisation.
#
# All draws come from a transform's own ``R``, so ``set_random_state`` and MONAI's data loader
# decide
# them.  None is lazy: ``Compose`` resamples what is pending before them.  Metadata and the trace of
# what was applied stay, since voxels keep their places.


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
        with isolated_rng():
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
        with isolated_rng():
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
