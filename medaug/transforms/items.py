"""What the MONAI transforms share: the arrays of a dictionary's entries, and their likes."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from monai.data.utils import to_affine_nd
from monai.utils import MetaKeys, SpaceKeys

from medaug.errors import ConfigError
from medaug.transforms.donors import Donor
from medaug.transforms.scan import fitting
from medaug.types import Affine

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
