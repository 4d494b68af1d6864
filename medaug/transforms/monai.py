"""MONAI dictionary transforms: synthetic cases, CutMix, CarveMix, copy-paste, new contrasts.

All draws come from a transform's own ``R``, so ``set_random_state`` and MONAI's data loader decide
them.  None is lazy: ``Compose`` resamples what is pending before them.  Entries are channel-first
arrays, tensors or ``MetaTensor``s of CT in HU, of two or three spatial axes; class, device and,
where it can hold the values, data type stay.
"""

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
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
from medaug.core.types import Affine
from medaug.transforms.mixtures import (
    CarveMixArguments,
    ContrastArguments,
    CopyPasteArguments,
    CutMixArguments,
    Mixture,
    change_contrast,
)
from medaug.transforms.pairs import POOL
from medaug.transforms.scan import fitting, isolated_rng
from medaug.transforms.sources import SEEDS, Donor, MixArguments, mixed, name_source
from medaug.transforms.synthesis import SynthesisArguments, check_synthesis

Source = str | Path | Sequence[Mapping[Hashable, Any]]

Keys = tuple[Hashable, Hashable | None]


@dataclass(kw_only=True, eq=False, repr=False)
class _Pair(RandomizableTransform, MapTransform):
    """Changes an item's image, and its label map where there is one."""

    allow_missing_keys: bool = False
    """Whether items may lack the label map, whose image is then changed alone, or the image, and
    then stay as they are."""

    def begin(self, keys: KeysCollection, prob: float) -> None:
        """Call MONAI's constructors.

        Raises:
            ConfigError: more than two keys, or ``prob`` is no probability.
        """
        MapTransform.__init__(self, keys, self.allow_missing_keys)
        if not 0 <= prob <= 1:
            raise ConfigError(f"prob must be from 0 to 1, got {prob}")
        RandomizableTransform.__init__(self, prob)
        self.pair = _two_keys(self.keys)

    @abstractmethod
    def draw_parameters(self) -> None:
        """Draw what is applied, from ``R``."""

    @abstractmethod
    def change(self, item: Mapping[Hashable, Any], keys: Keys) -> dict[Hashable, Any]:
        """The new entries of an item at ``keys``."""

    def randint(self, below: int) -> int:
        """A random integer from 0 to below ``below``."""
        return int(self.R.randint(below))

    def randomize(self, data: Any = None) -> None:
        """Draw whether to change an item, and how."""
        super().randomize(None)
        if self._do_transform:
            self.draw_parameters()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """A new dictionary with other entries at ``keys``; ``data`` is left as it is."""
        keys = _present(data, self.pair, self.allow_missing_keys)
        self.randomize()
        changed = {} if keys is None or not self._do_transform else self.change(data, keys)
        return {**data, **changed}


@dataclass(eq=False, repr=False)
class RandSynthesisd(SynthesisArguments, _Pair):
    """Replace an item's image and label map by a synthetic pair, with probability ``prob``.

    In mode ``replace`` the pair is another case of the shape and spacing of its source, one slice
    thick; a ``MetaTensor`` gets its affine, new metadata and an empty trace of operations.  In the
    modes ``vary`` and ``redraw`` it is this case, slice by slice, on its own voxels, and metadata
    and trace stay.

    Raises:
        ConfigError: an argument is out of range, the mode needs a run, or an item does not fit.
        DataError: ``source`` is neither a run nor a synthesised folder.
    """

    keys: KeysCollection
    """Of the image, and of the label map where there is one, in this order."""
    source: str | Path
    """A run folder, a ``.safetensors`` file, or, to replace, a folder written by
    ``medaug synthesize``."""
    prob: float = 0.3
    """Probability of replacing."""
    _: KW_ONLY
    pool: int = POOL
    """How many samples of a run take part; more variety for more computing."""

    def __post_init__(self) -> None:
        self.begin(self.keys, self.prob)
        self.source = check_synthesis(self, self.source, self.pool)
        self.index = 0

    def draw_parameters(self) -> None:
        """Draw by which sample to replace."""
        with isolated_rng():
            self.index = self.draw_index(str(self.source), self.pool, self.randint)

    def change(self, item: Mapping[Hashable, Any], keys: Keys) -> dict[Hashable, Any]:
        """The synthetic pair as entries of an item."""
        image, label = keys
        with isolated_rng():
            mine = _read(item, (image, None if self.mode == "replace" else label))
            drawn = self.synthetic(mine, str(self.source), self.index, None)
        if label is not None and drawn.label is None:
            raise ConfigError(
                f"{self.source}: draws no label maps, and {label!r} would no longer match its "
                f"image; keys=[{image!r}] leaves it as it is"
            )
        moved = drawn.affine if self.mode == "replace" else None
        return _entries(item, keys, drawn.image, drawn.label, moved, f"syn_{self.index:06d}")


@dataclass(eq=False, repr=False)
class _RandMixd(MixArguments, Mixture, _Pair):
    """Mix a case of a source into an item's image and label map, with probability ``prob``.

    The case is drawn uniformly: over all of a folder or sequence, or the first ``pool`` samples of
    a run.  Intensities are mixed as they are, so keep this before transforms that rescale them.
    Metadata and the trace of what was applied stay, since voxels keep their places.

    Raises:
        ConfigError: an argument is out of range, or an item does not fit.
        DataError: ``source`` is none of these.
    """

    keys: KeysCollection
    """Of the image, and of the label map where there is one, in this order."""
    source: Source
    """A run folder, a ``.safetensors`` file, a folder written by ``medaug synthesize``, a folder of
    images and labels as nnU-Net's, or a sequence of items with these keys, loaded and
    channel-first, such as a MONAI ``CacheDataset``."""
    prob: float = 0.3
    """Probability of mixing."""

    def __post_init__(self) -> None:
        self.begin(self.keys, self.prob)
        self.check_mix()
        self.source, self.cases = name_source(self.source, partial(_read, keys=self.pair))

    def draw_parameters(self) -> None:
        """Draw with which case to mix, and the seed of all else."""
        self.drawn = self.draw_case(str(self.source), self.randint, hashed=False)

    def change(self, item: Mapping[Hashable, Any], keys: Keys) -> dict[Hashable, Any]:
        """The mixed pair as entries of an item."""
        with isolated_rng():
            scan = mixed(_read(item, keys), self.mixing(), self.drawn)
        return _entries(item, keys, scan.image, scan.label)


@dataclass(eq=False, repr=False)
class RandCutMixd(CutMixArguments, _RandMixd):
    """Mix by CutMix (Yun et al., ICCV 2019), with probability ``prob``: a box of another case."""


@dataclass(eq=False, repr=False)
class RandCarveMixd(CarveMixArguments, _RandMixd):
    """Mix by CarveMix (Zhang et al., MICCAI 2021), with probability ``prob``: another's lesion."""


@dataclass(eq=False, repr=False)
class RandCopyPasted(CopyPasteArguments, _RandMixd):
    """Mix by copy-paste (Ghiasi et al., CVPR 2021), with probability ``prob``: labelled voxels."""


@dataclass(eq=False, repr=False)
class RandLabelContrastd(ContrastArguments, _Pair):
    """Give all tissues new intensities, with probability ``prob``, after SynthSeg (2023).

    Raises:
        ConfigError: an argument is out of range, or an item does not fit.
    """

    keys: KeysCollection
    """Of the image, and of the label map where there is one, which stays."""
    prob: float = 0.3
    """Probability of the change."""

    def __post_init__(self) -> None:
        self.begin(self.keys, self.prob)
        self.contrast()
        self.draw = 0

    def draw_parameters(self) -> None:
        """Draw the seed of all that is random."""
        self.draw = self.randint(SEEDS)

    def change(self, item: Mapping[Hashable, Any], keys: Keys) -> dict[Hashable, Any]:
        """The changed image as an entry of an item."""
        scan = change_contrast(_read(item, keys), self.draw, self.contrast())
        return _entries(item, (keys[0], None), scan.image, None)


def _two_keys(keys: tuple[Hashable, ...]) -> Keys:
    """The image's key, and the label map's or None.

    Raises:
        ConfigError: more than two.
    """
    if len(keys) > 2:
        raise ConfigError(
            f"keys: the image, and the label map if there is one, are accepted, got {keys}"
        )
    return keys[0], keys[1] if len(keys) == 2 else None


def _present(item: Mapping[Hashable, Any], keys: Keys, allow_missing: bool) -> Keys | None:
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


def _read(item: Mapping[Hashable, Any], keys: Keys) -> Donor:
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


def _like(
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


def _entries(
    item: Mapping[Hashable, Any],
    keys: Keys,
    image: npt.NDArray[Any],
    label: npt.NDArray[Any] | None,
    affine: Affine | None = None,
    name: str | None = None,
) -> dict[Hashable, Any]:
    """Arrays as entries of an item; with ``affine`` and ``name`` they are another image."""
    fresh = {keys[0]: _like(item[keys[0]], image, affine, name)}
    if keys[1] is not None and label is not None:
        fresh[keys[1]] = _like(item[keys[1]], label[None], affine, name)
    return fresh
