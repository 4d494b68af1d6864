"""Batches by position: what a run sees at image p is a function of (seed, p) and the cache.

The slices rest on the device where they fit; codec and warps run there.
"""

import numpy as np
import torch
from torch import Tensor

from medaug.codec import Codec, CTCodec, GreyCodec
from medaug.config import DataConfig
from medaug.data.cache import CachedCase, SliceCache
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


class Feed:
    """The slices of one split of a cache, addressed by position.

    Args:
        cache: where the slices are.
        data: which of them, and how they are warped.
        codec: what the network sees of them.
        seed: of the order and the warps.
        device: where batches are wanted.
        split: ``train`` or ``heldout``; the filter and the warps apply to ``train`` only.

    Raises:
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
        self.codec, self.seed, self.device = codec, seed, device
        self.labels = codec.labels if isinstance(codec, CTCodec) else {}
        training = split == "train"
        self.augment = data.augment if training and cache.kind == "ct" else None
        images, labels, classes = [], [], []
        for name in cache.split[split]:
            case = cache.cases[name]
            keep = self._chosen(case, data, training)
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
        self.class_names = cache.classes if data.classes and self.classes is not None else ()
        self._order: dict[int, Tensor] = {}

    def _chosen(self, case: CachedCase, data: DataConfig, training: bool) -> np.ndarray:
        count = len(case.image)
        if not self.labels:
            return np.arange(count)
        if case.label is None:
            return np.arange(0)
        if not (training and data.require_label):
            return np.arange(count)
        pixels = sum(case.label_pixels[name] for name in self.labels)
        return np.flatnonzero(np.asarray(pixels) >= data.min_label_pixels)

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
        return Shape(self.codec.channels, 1, size, len(self.class_names))

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
        cond = None
        if self.class_names and self.classes is not None:
            numbers = self.classes[where].to(self.device)
            cond = torch.nn.functional.one_hot(numbers, len(self.class_names)).float()
        return self.codec.encode(image, label), cond

    def _epoch(self, epoch: int) -> Tensor:
        if epoch not in self._order:
            if len(self._order) > 1:
                del self._order[min(self._order)]
            draw = generator(self.seed, "order", epoch)
            self._order[epoch] = torch.randperm(len(self), generator=draw)
        return self._order[epoch]
