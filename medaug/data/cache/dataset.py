"""Read a cache as a map-style data set of dictionaries, for PyTorch, MONAI and torchio."""

import operator
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset, Subset

from medaug.core.errors import ConfigError, DataError
from medaug.data.cache.store import CachedCase, SliceCache

SPLITS = ("train", "heldout", "all")


class SliceDataset(Dataset[Any]):
    """Slices by number, read from memory-mapped files when indexed.

    Each is a dictionary::

        image       float32 [1, y, x], HU, or levels 0 to 255 of pictures; [3, y, x] where RGB
        label       uint8 [1, y, x], the ids of the labels; scans only
        class       int, of a picture in classes
        attributes  bool [attributes], of a picture that has some
        case        str, the scan it is from
        z           int, its number in the scan, from 0 and inferior
        affine      float64 [4, 4], maps (x, y, 0, 1) to RAS+ mm; scans only

    It may be pickled, forked and spawned: workers map the files again, and nothing is copied.

    Args:
        cache: a finished cache, or its folder.
        split: ``train``, ``heldout`` or ``all``.
        label: whether slices come with their label; then scans without one are left out.
        labels: the labels to keep, by name, the others becoming background; None keeps all.
        min_label_pixels: slices that show fewer pixels of these labels are left out.
        meta: whether image and label are MONAI ``MetaTensor``, whose affine takes (y, x, z) as
            the array is indexed, and whose ``filename_or_obj`` is ``CASE_z``.
        transform: called with the dictionary; what it returns is the item.

    Attributes:
        labels: name to id of the labels kept.
        cases: the scans that the slices are from, in order.

    Raises:
        CacheError: no finished cache there.
        ConfigError: a split or label that the cache does not have.
        DataError: no slice is left.
    """

    def __init__(
        self,
        cache: SliceCache | str | PathLike[str],
        split: str = "train",
        *,
        label: bool = True,
        labels: Sequence[str] | None = None,
        min_label_pixels: int = 0,
        meta: bool = False,
        transform: Callable[[dict[str, Any]], Any] | None = None,
    ) -> None:
        opened = cache if isinstance(cache, SliceCache) else SliceCache.open(Path(cache))
        if split not in SPLITS:
            raise ConfigError(f"split: {split!r}, accepted are {', '.join(SPLITS)}")
        self.labels = _chosen(opened, labels)
        self.meta, self.transform = meta, transform
        self._label = label and opened.kind == "ct"
        self._kept = np.zeros(256, np.uint8)
        self._kept[list(self.labels.values())] = list(self.labels.values())
        self._all = labels is None
        names = sorted(opened.cases) if split == "all" else opened.split[split]
        found = [opened.cases[n] for n in names if opened.cases[n].labeled or not self._label]
        shown = [_shown(case, self.labels, min_label_pixels) for case in found]
        self._cases = [case for case, z in zip(found, shown, strict=True) if len(z)]
        self._z = [z for z in shown if len(z)]
        self._ends = np.cumsum([len(z) for z in self._z])
        if not self._cases:
            what = "no slice with a label" if self._label else "no slice"
            least = f"shows at least {min_label_pixels} pixels of {', '.join(self.labels) or '-'}"
            state = least if min_label_pixels > 0 else "is there"
            raise DataError(f"{opened.path}: {what} of split {split} {state}")

    @property
    def cases(self) -> list[str]:
        """The scans that the slices are from, in order."""
        return [case.id for case in self._cases]

    def place(self, index: SupportsIndex) -> tuple[str, int]:
        """Find the scan that a slice is from and its number there."""
        case, z = self._find(operator.index(index))
        return case.id, z

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        """One slice, or those of a range as a data set of their own."""
        if isinstance(index, slice):
            return Subset(self, range(len(self))[index])
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[SupportsIndex]) -> list[Any]:
        """Several slices at once, as a ``DataLoader`` fetches a batch."""
        found = [self._find(operator.index(index)) for index in indices]
        images = _tensors([case.image[z] for case, z in found], np.float32)
        items = [self._facts(case, z) for case, z in found]
        for item, image in zip(items, images, strict=True):
            item["image"] = image
        if self._label:
            marks = [case.label[z] for case, z in found if case.label is not None]
            kept = marks if self._all else [self._kept[each] for each in marks]
            for item, label in zip(items, _tensors(kept, np.uint8), strict=True):
                item["label"] = label
        if self.meta:
            for item in items:
                _add_meta(item)
        return items if self.transform is None else [self.transform(item) for item in items]

    @staticmethod
    def _facts(case: CachedCase, z: int) -> dict[str, Any]:
        """What is known of a slice besides its pixels."""
        item: dict[str, Any] = {"case": case.id, "z": z}
        if case.classes is not None:
            item["class"] = int(case.classes[z])
        if case.attributes.shape[1]:
            item["attributes"] = torch.from_numpy(case.attributes[z].copy())
        if case.kind == "ct":
            affine = case.affine.copy()
            affine[:3, 3] += z * affine[:3, 2]
            item["affine"] = torch.from_numpy(affine)
        return item

    def _find(self, index: int) -> tuple[CachedCase, int]:
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"slice {index} of {len(self)}")
        number = int(self._ends.searchsorted(position, "right"))
        from_the_end = position - self._ends[number]
        return self._cases[number], int(self._z[number][from_the_end])


def _chosen(cache: SliceCache, labels: Sequence[str] | None) -> dict[str, int]:
    names = list(cache.labels) if labels is None else labels
    if isinstance(names, str):
        raise ConfigError(f"labels: {labels!r}, accepted is a list such as [{labels!r}]")
    for name in names:
        if name not in cache.labels:
            there = ", ".join(cache.labels) or "none"
            raise ConfigError(f"labels: {name!r} is not in {cache.path} (there: {there})")
    return {name: cache.labels[name] for name in names}


def _shown(case: CachedCase, labels: dict[str, int], least: int) -> npt.NDArray[np.int32]:
    """The numbers of the slices with at least ``least`` pixels of ``labels``."""
    pixels = np.zeros(len(case.image), np.int64)
    for name in labels:
        pixels += case.label_pixels.get(name, 0)
    return np.flatnonzero(pixels >= least).astype(np.int32)


def _tensors(arrays: Sequence[npt.NDArray[Any]], dtype: type) -> list[torch.Tensor]:
    """Copies [1, y, x], or [3, y, x] of RGB [y, x, 3], which may be written to."""
    planes = [each[None] if each.ndim == 2 else each.transpose(2, 0, 1) for each in arrays]
    return list(torch.from_numpy(np.stack(planes, dtype=dtype, casting="unsafe")))


def _add_meta(item: dict[str, Any]) -> None:
    from monai.data import MetaTensor

    affine = item["affine"][:, [1, 0, 2, 3]] if "affine" in item else torch.eye(4)
    meta = {"filename_or_obj": f"{item['case']}_{item['z']:04d}", "space": "RAS"}
    for key in item.keys() & {"image", "label"}:
        item[key] = MetaTensor(item[key], affine=affine.clone(), meta=dict(meta))
