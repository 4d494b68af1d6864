"""MONAI dictionary transforms: synthetic cases, CutMix, CarveMix, copy-paste, new contrasts.

All draws come from a transform's own ``R``, so ``set_random_state`` and MONAI's data loader decide
them.  None is lazy: ``Compose`` resamples what is pending before them.  Entries are channel-first
arrays, tensors or ``MetaTensor``s of CT in HU, of two or three spatial axes; class, device and,
where it can hold the values, data type stay.  Metadata and the trace of what was applied stay too,
unless another case replaces this one.
"""

from collections.abc import Hashable, Mapping
from dataclasses import KW_ONLY, dataclass
from functools import partial
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
from medaug.transforms.changes import (
    CarveMixChange,
    Change,
    ContrastChange,
    CopyPasteChange,
    CutMixChange,
    isolated_rng,
)
from medaug.transforms.scan import fitting
from medaug.transforms.sources import Donor
from medaug.transforms.synthesis import SynthesisChange

Keys = tuple[Hashable, Hashable | None]


@dataclass(eq=False, repr=False)
class _Keys(RandomizableTransform, MapTransform):
    """Which entries of an item are changed."""

    keys: KeysCollection
    """Of the image, and of the label map where there is one, in this order."""


@dataclass(eq=False, repr=False)
class _Random(Change, RandomizableTransform, MapTransform):
    """Changes an item's image, and its label map where there is one."""

    prob: float = 0.3
    """Probability of the change."""
    _: KW_ONLY
    allow_missing_keys: bool = False
    """Whether items may lack the label map, whose image is then changed alone, or the image, and
    then stay as they are."""

    def __post_init__(self) -> None:
        MapTransform.__init__(self, self.keys, self.allow_missing_keys)
        if not 0 <= self.prob <= 1:
            raise ConfigError(f"prob must be from 0 to 1, got {self.prob}")
        RandomizableTransform.__init__(self, self.prob)
        self.pair = _two_keys(self.keys)
        self._check(partial(_read, keys=self.pair))
        self.drawn: dict[str, Any] = {}
        self.index = self.draw = 0

    def randomize(self, data: Any = None) -> None:
        """Draw from ``R`` whether to change an item, and by which parameters."""
        super().randomize(None)
        if self._do_transform:
            self.drawn = self._sample(lambda below: int(self.R.randint(below)), hashed=False)
            self.index, self.draw = (self.drawn.get(name, 0) for name in ("index", "draw"))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """A new dictionary with other entries at ``keys``; ``data`` is left as it is."""
        keys = _present(data, self.pair, self.allow_missing_keys)
        self.randomize()
        if keys is None or not self._do_transform:
            return dict(data)
        image, label = keys
        with isolated_rng():
            mine = _read(data, keys if self._reads_label else (image, None))
            changed = self._change(mine, self.drawn)
        if label is not None and changed.label is None and not self.keeps_label:
            raise ConfigError(
                f"{self.drawn['source']}: draws no label maps, and {label!r} would no longer match "
                f"its image; keys=[{image!r}] leaves it as it is"
            )
        moved = None if changed.affine is mine.affine else changed.affine
        name = f"syn_{self.index:06d}"
        result = {**data, image: _like(data[image], changed.image, moved, name)}
        if label is not None and changed.label is not None:
            result[label] = _like(data[label], changed.label[None], moved, name)
        return result


@dataclass(eq=False, repr=False)
class RandSynthesisd(_Random, SynthesisChange, _Keys):
    """Replace an item's image and label map by a synthetic pair, with probability ``prob``.

    In mode ``replace`` the pair is another case of the shape and spacing of its source, one slice
    thick; a ``MetaTensor`` gets its affine, new metadata and an empty trace of operations.  In the
    modes ``vary`` and ``redraw`` it is this case, slice by slice, on its own voxels, and metadata
    and trace stay.

    Raises:
        ConfigError: an argument is out of range, the mode needs a run, or an item does not fit.
        DataError: ``source`` is neither a run nor a synthesised folder.
    """


@dataclass(eq=False, repr=False)
class RandCutMixd(_Random, CutMixChange, _Keys):
    """Mix by CutMix (Yun et al., ICCV 2019), with probability ``prob``: a box of another case."""


@dataclass(eq=False, repr=False)
class RandCarveMixd(_Random, CarveMixChange, _Keys):
    """Mix by CarveMix (Zhang et al., MICCAI 2021), with probability ``prob``: another's lesion."""


@dataclass(eq=False, repr=False)
class RandCopyPasted(_Random, CopyPasteChange, _Keys):
    """Mix by copy-paste (Ghiasi et al., CVPR 2021), with probability ``prob``: labelled voxels."""


@dataclass(eq=False, repr=False)
class RandLabelContrastd(_Random, ContrastChange, _Keys):
    """Give all tissues new intensities, with probability ``prob``, after SynthSeg (2023).

    Raises:
        ConfigError: an argument is out of range, or an item does not fit.
    """


def _two_keys(keys: tuple[Hashable, ...]) -> Keys:
    """Split keys into the image's, and the label map's or None.

    Raises:
        ConfigError: more than two.
    """
    if len(keys) > 2:
        raise ConfigError(
            f"keys: the image, and the label map if there is one, are accepted, got {keys}"
        )
    return keys[0], keys[1] if len(keys) == 2 else None


def _present(item: Mapping[Hashable, Any], keys: Keys, allow_missing: bool) -> Keys | None:
    """Find the keys that are there; None without an image.

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
    """Read an item's image and label map, channel first, as a case (channels, x, y, z).

    Raises:
        ConfigError: an entry is no such array, or the shapes of the two differ.
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
    """Make an entry with the class, type, device and axes of ``old`` from (channels, x, y, z).

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
