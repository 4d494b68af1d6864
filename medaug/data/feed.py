"""Batches by position: what a run sees at image p is a function of (seed, p) and the cache.

The slices rest on the device where they fit; codec and warps run there.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from medaug.codec import Codec, CTCodec, GreyCodec
from medaug.config import DataConfig
from medaug.data.cache import CachedCase, SliceCache
from medaug.data.condition import KEPT_ROWS, declared, heights
from medaug.data.warp import is_still, warp
from medaug.errors import ConfigError, DataError
from medaug.seeds import generator
from medaug.tensors import Batch, Shape

SHARE_OF_FREE_MEMORY = 0.6


def codec_for(cache: SliceCache, data: DataConfig) -> Codec:
    """The codec that ``data`` asks for over this cache's labels.

    Raises:
        ConfigError: a label the cache does not have, or masks where it has none.
    """
    if cache.kind == "image":
        return GreyCodec()
    wanted = data.labels if data.labels is not None else list(cache.labels)
    for name in wanted:
        if name not in cache.labels:
            raise ConfigError(
                f"config data.labels: {name!r} is not in {cache.path} "
                f"(there: {', '.join(cache.labels) or 'none'})"
            )
    chosen = {name: cache.labels[name] for name in wanted} if data.masks == "joint" else {}
    return CTCodec(data.window_hu, chosen)


def _must_vary(name: str, values: Tensor) -> None:
    if values.min() == values.max():
        state = "present" if values[0] else "absent"
        raise ConfigError(
            f"config data.attributes: {name!r} is {state} in all {len(values)} training slices, "
            "so it tells nothing; leave it out or see data.require_label"
        )


class Feed:
    """The slices of one split of a cache, addressed by position.

    Args:
        cache: where the slices are.
        data: which of them, and how they are warped.
        codec: what the network sees of them.
        seed: of the order and the warps.
        device: where batches are wanted.
        split: ``train`` or ``heldout``; the filter and the warps apply to ``train`` only.

    Attributes:
        condition: what each slice comes with beside its pixels.

    Raises:
        ConfigError: a condition that the cache does not have, or that never changes.
        DataError: no slice of the split qualifies.
    """

    def __init__(
        self,
        cache: SliceCache,
        data: DataConfig,
        codec: Codec,
        *,
        seed: int,
        device: torch.device,
        split: str = "train",
    ) -> None:
        self.cache, self.data = cache, data
        self.codec, self.seed, self.device = codec, seed, device
        self.labels = codec.labels if isinstance(codec, CTCodec) else {}
        training = split == "train"
        self.augment = data.augment if training and cache.kind == "ct" else None
        condition = declared(cache, data)
        self._kept: list[tuple[CachedCase, npt.NDArray[np.intp]]] = []
        images, labels, classes, height = [], [], [], []
        for name in cache.split[split]:
            case = cache.cases[name]
            usable = self._usable(case)
            keep = np.flatnonzero(usable) if training else np.arange(len(usable))
            self._kept.append((case, keep))
            height.append(torch.from_numpy(heights(usable)[keep]))
            images.append(torch.from_numpy(np.ascontiguousarray(case.image[keep])))
            if self.labels and case.label is not None:
                labels.append(torch.from_numpy(np.ascontiguousarray(case.label[keep])))
            if case.classes is not None:
                classes.append(torch.from_numpy(np.ascontiguousarray(case.classes[keep])))
        if not sum(map(len, images)):
            raise DataError(
                f"{cache.path}: no {split} slice qualifies (with data.require_label a slice must "
                f"show at least {data.min_label_pixels} pixels of {', '.join(self.labels) or '-'})"
            )
        self.images = self._place(torch.cat(images))
        self.label_maps = self._place(torch.cat(labels)) if labels else None
        self.classes = self._place(torch.cat(classes).long()) if classes else None
        columns = []
        for name in data.attributes or ():
            columns.append(self.shows(name).float())
            if training:
                _must_vary(name, columns[-1])
        if data.height:
            columns.append(torch.cat(height))
        self.values = self._place(torch.stack(columns, 1)) if columns else None
        self.condition = replace(condition, rows=self._rows())
        self._order: dict[int, Tensor] = {}

    def _usable(self, case: CachedCase) -> npt.NDArray[np.bool_]:
        """Which slices of a case training may use, (z,)."""
        if not (self.labels and self.data.require_label):
            return np.ones(len(case.image), dtype=bool)
        pixels = sum(case.label_pixels[name] for name in self.labels)
        return np.asarray(pixels) >= self.data.min_label_pixels

    def shows(self, name: str) -> Tensor:
        """Whether each slice is of the class ``name`` or shows the label ``name``, bool (n,)."""
        if self.classes is not None:
            return self.classes.cpu() == self.cache.classes.index(name)
        pixels = [np.asarray(case.label_pixels[name])[keep] for case, keep in self._kept]
        return torch.from_numpy(np.concatenate(pixels) >= self.data.min_label_pixels)

    def owners(self) -> list[str]:
        """The id of the case that each slice is from, (n,)."""
        return [case.id for case, keep in self._kept for _ in keep]

    def _rows(self) -> tuple[tuple[float, ...], ...]:
        """The condition beyond the class of some slices, the same at every call."""
        if self.values is None:
            return ()
        order = torch.randperm(len(self), generator=generator(self.seed, "conditions"))
        some = self.values[order[:KEPT_ROWS].sort().values.to(self.values.device)]
        return tuple(tuple(round(value, 4) for value in row) for row in some.tolist())

    def _place(self, stack: Tensor) -> Tensor:
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            if stack.nbytes < SHARE_OF_FREE_MEMORY * free:
                return stack.to(self.device)
        return stack

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> Shape:
        """What the data dictate to a model."""
        size = self.images.shape[-1]
        condition = self.condition
        return Shape(self.codec.channels, 1, size, condition.dim, len(condition.classes))

    def batch(self, position: int, count: int) -> Batch:
        """Images ``position`` to ``position + count`` of an endless, reshuffled walk."""
        index = torch.cat(
            [
                self._epoch(epoch)[max(position - epoch * len(self), 0) :][
                    : position + count - max(position, epoch * len(self))
                ]
                for epoch in range(position // len(self), (position + count - 1) // len(self) + 1)
            ]
        )
        x, cond = self.at(index)
        if self.augment is not None:
            amounts = self.augment.model_dump()
            if not is_still(**amounts):
                x = warp(x, generator(self.seed, "warp", position), **amounts)
        return Batch(x, cond)

    def at(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """The slices at ``index`` as the network sees them, unwarped, and their condition."""
        where = index.to(self.images.device, non_blocking=True)
        image = self.images[where].to(self.device)
        label = None if self.label_maps is None else self.label_maps[where].to(self.device)
        parts = []
        if self.condition.classes and self.classes is not None:
            numbers = self.classes[where].to(self.device)
            parts.append(one_hot(numbers, len(self.condition.classes)).float())
        if self.values is not None:
            parts.append(self.values[where].to(self.device))
        return self.codec.encode(image, label), torch.cat(parts, 1) if parts else None

    def _epoch(self, epoch: int) -> Tensor:
        if epoch not in self._order:
            if len(self._order) > 1:
                del self._order[min(self._order)]
            draw = generator(self.seed, "order", epoch)
            self._order[epoch] = torch.randperm(len(self), generator=draw)
        return self._order[epoch]
