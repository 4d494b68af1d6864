"""Make batches by position: what a run sees at image p is a function of (seed, p) and the cache.

The slices are kept on the GPU where they fit, else in the files of their cache, so that memory does
not grow with the collection; only layout maps are made of all slices at once.  Codec and warps run
on the device.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from medaug.core.batch import Batch, Shape
from medaug.core.codec import Codec, CTCodec, PictureCodec
from medaug.core.config import DataConfig
from medaug.core.errors import ConfigError
from medaug.core.modality import modality_of
from medaug.core.seeds import generator
from medaug.data.cache.arrays import Stack
from medaug.data.cache.prepare import SliceCache
from medaug.data.feed.condition import KEPT_ROWS, declared
from medaug.data.feed.select import gather
from medaug.data.feed.tissues import layout
from medaug.data.feed.warp import is_still, motions, moved, warp, warp_ids

SHARE_OF_FREE_MEMORY = 0.6


@dataclass(frozen=True)
class BatchDraw:
    """Everything random about a batch: a few numbers for each slice.

    Attributes:
        index: which slices (b,).
        motion: how each is moved (4, b), or None where nothing moves.
        bumps: how each is bent (b, 2, 6, 6), or None.
    """

    index: Tensor
    motion: Tensor | None = None
    bumps: Tensor | None = None


def codec_for(cache: SliceCache, data: DataConfig) -> Codec:
    """Make the codec that ``data`` describes over this cache's labels.

    Raises:
        ConfigError: a label the cache does not have, masks where it has none, or a window in HU
            for scans that are not in HU.
    """
    if cache.kind == "image":
        if data.masks in ("layout", "alone"):
            raise ConfigError(
                f"config data.masks: {data.masks} needs label maps, and {cache.path} has none; "
                "pictures take none"
            )
        return PictureCodec(cache.channels)
    if cache.modality != "CT":
        _check_unitless(cache, data)
    names = data.labels if data.labels is not None else list(cache.labels)
    for name in names:
        if name not in cache.labels:
            raise ConfigError(
                f"config data.labels: {name!r} is not in {cache.path} "
                f"(there: {', '.join(cache.labels) or 'none'})"
            )
    chosen = {name: cache.labels[name] for name in names} if data.masks != "none" else {}
    known = modality_of(cache.modality).tissues
    filled = data.masks in ("layout", "alone") and data.tissues
    for name, number in chosen.items():
        if filled and number in known.values():
            raise ConfigError(
                f"config data.tissues: label {name!r} has id {number}, which is that of a tissue; "
                "set data.tissues=false"
            )
    if data.masks in ("layout", "alone") and not (chosen or filled):
        raise ConfigError(f"config data.masks: {data.masks} needs labels, and none are chosen")
    tissues = dict(known) if filled else {}
    return CTCodec(data.window_hu, chosen, data.masks, tissues, cache.modality)


def _check_unitless(cache: SliceCache, data: DataConfig) -> None:
    """Refuse a window that only HU have."""
    low, high = modality_of(cache.modality).limits
    if not low <= data.window_hu[0] < data.window_hu[1] <= high:
        raise ConfigError(
            f"config data.window_hu: {list(data.window_hu)}, and {cache.path} holds "
            f"{cache.modality} in thousandths of each scan's range; take [0, 1000] or others from "
            f"{low} to {high}"
        )


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
        codec: from stored values to what the network sees.
        seed: of the order and the warps.
        device: where batches are made.
        split: ``train`` or ``heldout``; the filter and the warps apply to ``train`` only.
        unlabeled: scans without labels that join training.

    Attributes:
        condition: names and values of the condition that each slice has, without the layout.
        labeled: whether the scan of each slice has a label, bool (n,).
        owners: the case that each slice is from.
        layouts: layout maps (n, h, w), or None where the model neither takes nor draws them.

    Raises:
        ConfigError: a condition that the cache does not have, or that never changes; scans without
            labels cut otherwise than those with.
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
        unlabeled: SliceCache | None = None,
    ) -> None:
        self.cache, self.data = cache, data
        self.codec, self.seed, self.device = codec, seed, device
        self.labels = codec.labels if isinstance(codec, CTCodec) else {}
        training = split == "train"
        self.augment = data.augment if training and cache.kind == "ct" else None
        condition = declared(cache, data)
        if unlabeled is not None:
            _check_alike(cache, unlabeled)
        found = gather(cache, data, self.labels, split, unlabeled)
        self.labeled, self.owners, self._pixels = found.labeled, found.owners, found.pixels
        self._attributes = found.attributes
        self._images = self._kept(found.images)
        self._label_maps: Tensor | Stack | None = found.labels
        self.classes = None if found.classes is None else self._sent(found.classes)
        self.partial = bool(self.labels) and not bool(found.labeled.all())
        self._labeled = self._sent(found.labeled)
        self.layouts = None
        if isinstance(codec, CTCodec) and codec.masks in ("layout", "alone"):
            marks = None if found.labels is None else found.labels.whole().numpy()
            ids = list(self.labels.values())
            filled = layout(
                found.images.whole().numpy(),
                marks,
                ids,
                bool(codec.tissues),
                modality_of(codec.modality),
            )
            self.layouts = self._sent(torch.from_numpy(filled))
            known = torch.tensor([*ids, *codec.tissues.values()], dtype=torch.uint8)
            self._ids = known.to(device)
        elif found.labels is not None:
            self._label_maps = self._kept(found.labels)
        columns = []
        for name in data.attributes or ():
            columns.append(self.shows(name).float())
            if training:
                _must_vary(name, columns[-1])
        if data.height:
            columns.append(found.heights)
        self.values = self._sent(torch.stack(columns, 1)) if columns else None
        self.condition = replace(condition, rows=self._rows())
        self._order: dict[int, Tensor] = {}

    def shows(self, name: str) -> Tensor:
        """Whether each slice is of the class, has the attribute or shows the label, bool (n,)."""
        if name in self.cache.attributes:
            return self._attributes[:, self.cache.attributes.index(name)]
        if self.classes is not None:
            return self.classes.cpu() == self.cache.classes.index(name)
        return torch.from_numpy(self._pixels[name] >= self.data.min_label_pixels)

    def _rows(self) -> tuple[tuple[float, ...], ...]:
        """The condition beyond the class of some slices, the same at every call."""
        if self.values is None:
            return ()
        order = torch.randperm(len(self), generator=generator(self.seed, "conditions"))
        some = self.values[order[:KEPT_ROWS].sort().values.to(self.values.device)]
        return tuple(tuple(round(value, 4) for value in row) for row in some.tolist())

    def _fits(self, count: int) -> bool:
        """Whether so many bytes fit on the GPU; never where there is none."""
        if self.device.type != "cuda":
            return False
        free, _ = torch.cuda.mem_get_info(self.device)
        return count < SHARE_OF_FREE_MEMORY * free

    def _sent(self, tensor: Tensor) -> Tensor:
        """``tensor`` on the GPU where it fits."""
        return tensor.to(self.device) if self._fits(tensor.nbytes) else tensor

    def _kept(self, stack: Stack) -> Tensor | Stack:
        """Slices on the GPU where they fit, else in the files of their cache."""
        return stack.whole().to(self.device) if self._fits(stack.nbytes) else stack

    def __len__(self) -> int:
        return len(self.owners)

    @property
    def images(self) -> Tensor:
        """Stored values of all slices (n, h, w), or RGB (n, h, w, 3); copied where on the disk."""
        return _whole(self._images)

    @property
    def label_maps(self) -> Tensor | None:
        """Label maps of all slices (n, h, w), or None; copied where on the disk."""
        return None if self._label_maps is None else _whole(self._label_maps)

    def stored(self, index: Tensor) -> Tensor:
        """Stored values of the slices at ``index``."""
        return _taken(self._images, index)

    @property
    def shape(self) -> Shape:
        """The sizes of a model that the data determine."""
        planes = len(self.codec.layout_labels) if isinstance(self.codec, CTCodec) else 0
        planes += bool(planes and self.partial)
        return Shape(
            self.codec.channels,
            self.codec.images,
            self.cache.size,
            self.condition.dim + planes,
            len(self.condition.classes),
            layout=planes,
            unlabeled=self.partial and self.codec.channels > self.codec.images,
        )

    @property
    def resident(self) -> bool:
        """Whether everything that batches are made of is on the device."""
        parts = (self._images, self._maps, self._labeled, self.classes, self.values)
        every = [part for part in parts if part is not None]
        return all(
            isinstance(part, Tensor) and part.device.type == self.device.type for part in every
        )

    def batch(self, position: int, count: int, part: tuple[int, int] = (0, 1)) -> Batch:
        """Make a batch of an endless, reshuffled sequence of slices.

        Args:
            position: of its first image in the sequence.
            count: how many images all processes take together.
            part: (i, k) takes the rows of process i of k, the same as in the whole.
        """
        return self.made(self.placed(self.drawn(position, count, part)))

    def drawn(self, position: int, count: int, part: tuple[int, int] = (0, 1)) -> BatchDraw:
        """Draw everything random about a `batch`, on the CPU.

        Args:
            position: of its first image in the sequence.
            count: how many images all processes take together.
            part: (i, k) takes the rows of process i of k.
        """
        index = torch.cat(
            [
                self._epoch(epoch)[max(position - epoch * len(self), 0) :][
                    : position + count - max(position, epoch * len(self))
                ]
                for epoch in range(position // len(self), (position + count - 1) // len(self) + 1)
            ]
        )
        return self.moving(index, position, part)

    def moving(self, index: Tensor, position: int, part: tuple[int, int] = (0, 1)) -> BatchDraw:
        """Draw the warps of chosen slices.

        Args:
            index: of the slices that all processes take together.
            position: of the first image in the sequence, from which the warps are drawn.
            part: (i, k) takes the rows of process i of k.
        """
        number, of = part
        rows = slice(number * len(index) // of, (number + 1) * len(index) // of)
        if self.augment is None or is_still(**self.augment.model_dump()):
            return BatchDraw(index[rows])
        draws = generator(self.seed, "warp", position)
        motion, bumps = motions(len(index), draws, self.augment.elastic)
        return BatchDraw(index[rows], motion[:, rows], None if bumps is None else bumps[rows])

    def placed(self, drawn: BatchDraw) -> BatchDraw:
        """Copy ``drawn`` to where batches are made, without waiting for it."""
        on_device = isinstance(self._images, Tensor)
        index = sent(drawn.index, self.device) if on_device else drawn.index
        motion, bumps = (
            None if part is None else sent(part, self.device)
            for part in (drawn.motion, drawn.bumps)
        )
        return BatchDraw(index, motion, bumps)

    def made(self, drawn: BatchDraw) -> Batch:
        """Make the batch of what was ``drawn`` and ``placed``; if resident, of tensors there."""
        grid = None
        if self.augment is not None and drawn.motion is not None:
            how, sides = self.augment, (self._images.shape[1], self._images.shape[2])
            amounts = {"rotate": how.rotate, "scale": how.scale, "shift": how.shift}
            grid = moved(drawn.motion, drawn.bumps, sides, **amounts)
        return self._batch(drawn.index, grid)

    @property
    def _maps(self) -> Tensor | Stack | None:
        """The label maps of batches: layouts where there are any."""
        return self._label_maps if self.layouts is None else self.layouts

    def marks(self, index: Tensor) -> Tensor | None:
        """Label maps of the slices at ``index``, or None."""
        return None if self._label_maps is None else _taken(self._label_maps, index)

    def at(self, index: Tensor) -> Batch:
        """The slices at ``index`` as the network sees them, unwarped."""
        return self._batch(index, None)

    def _batch(self, index: Tensor, grid: Tensor | None) -> Batch:
        image = sent(_taken(self._images, index), self.device)
        ids = None if self._maps is None else sent(_taken(self._maps, index), self.device)
        x = self.codec.encode(image, ids)
        if grid is not None:
            x = warp(x, grid)
            if ids is not None and self.layouts is not None:
                ids = warp_ids(ids, grid, self._ids)
        labeled = sent(_taken(self._labeled, index), self.device) if self.partial else None
        known = None
        if labeled is not None and self.shape.unlabeled:
            known = labeled.float().view(-1, 1, 1, 1).repeat(1, x.shape[1], 1, 1)
            known[:, : self.codec.images] = 1
            x = x * known
        return Batch(x, self._condition(index, ids, labeled), known)

    def _condition(
        self, index: Tensor, ids: Tensor | None, labeled: Tensor | None
    ) -> Tensor | None:
        """The condition of the slices at ``index``, whose layout maps are ``ids``."""
        parts = []
        if self.condition.classes and self.classes is not None:
            numbers = sent(_taken(self.classes, index), self.device)
            kinds = torch.arange(len(self.condition.classes), device=self.device)
            parts.append((numbers[:, None] == kinds).float())
        if self.values is not None:
            parts.append(sent(_taken(self.values, index), self.device))
        cond = torch.cat(parts, 1) if parts else None
        if ids is None or not isinstance(self.codec, CTCodec) or not self.codec.layout_labels:
            return cond
        return with_layout(cond, self.codec.layout(ids), labeled)

    def _epoch(self, epoch: int) -> Tensor:
        if epoch not in self._order:
            if len(self._order) > 1:
                del self._order[min(self._order)]
            draw = generator(self.seed, "order", epoch)
            self._order[epoch] = torch.randperm(len(self), generator=draw)
        return self._order[epoch]


def _whole(slices: Tensor | Stack) -> Tensor:
    return slices if isinstance(slices, Tensor) else slices.whole()


def _taken(slices: Tensor | Stack, index: Tensor) -> Tensor:
    if isinstance(slices, Stack):
        return slices[index.cpu()]
    return slices[sent(index, slices.device)]


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on ``device``; from the CPU to a GPU through pinned memory, without waiting."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=device.type == "cuda")


def with_layout(cond: Tensor | None, layout: Tensor, labeled: Tensor | None) -> Tensor:
    """Combine a condition in planes (b, k, h, w): numbers, layout, and where labels are unknown.

    Args:
        cond: numbers (b, ...), or None.
        layout: planes (b, l, h, w).
        labeled: whether each slice's labels are known (b,), in a run where some are not.
    """
    parts = [layout]
    if cond is not None:
        parts.insert(0, cond[..., None, None].expand(-1, -1, *layout.shape[2:]))
    if labeled is not None:
        parts.append((~labeled).float().view(-1, 1, 1, 1).expand(-1, 1, *layout.shape[2:]))
    return torch.cat(parts, 1)


def _check_alike(cache: SliceCache, unlabeled: SliceCache) -> None:
    """Refuse scans without labels whose slices were made in another way."""
    for what in ("kind", "modality", "size", "fov_mm", "center"):
        mine, theirs = (
            getattr(c if what in ("kind", "modality") else c.settings, what)
            for c in (cache, unlabeled)
        )
        if mine != theirs:
            raise ConfigError(
                f"{unlabeled.path}: its {what} {theirs} differs from {mine} of {cache.path}; "
                "prepare both alike"
            )
