"""A trained model with its codec and geometry: codes, conditions and slices in stored units."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medaug.core.codec import Codec, CTCodec
from medaug.core.errors import ConfigError
from medaug.core.registry import MODELS
from medaug.core.seeds import generator
from medaug.data.feed.condition import Condition
from medaug.data.feed.feed import with_layout
from medaug.models.base import Model
from medaug.runtime.device import autocast, choose_device
from medaug.synthesis.compile import compile_networks
from medaug.synthesis.masks import Layouts

BLOCK = 16


class Trained:
    """A trained model with its codec and geometry, ready to draw.

    Attributes:
        kind: ``ct`` or ``image``.
        labels: name to id of the labels it draws.
        classes: names of the classes it was conditioned on, or empty.
        condition: all that it was conditioned on, by name.
        size: pixels a side.
        config: the resolved config of its training.
        privacy: what differentially private training promises, or None.
        fingerprint: sha256 of weights and header.
        precision: that of the training, for samples to depend on nothing else.
        affine: (4, 4), of every sample: (x, y, z=0) to RAS+ mm.
        adjoining: how real slices follow each other, see ``medaug.data.feed.continuity``, or empty.
        block_size: how many consecutive indices are decoded at once.
        modality: of scans, ``CT`` or ``MR``.
        masks: how it was trained on masks: ``joint``, ``layout``, ``alone`` or ``none``.
        snapshots: earlier generators of the same run.
        compiled: for which numbers of rows the networks are compiled, see ``compile``.
        uncertainty_source: what the alternatives are, in words.
    """

    block_size = BLOCK

    def __init__(
        self, model: Model, codec: Codec, header: Mapping[str, Any], fingerprint: str, device: str
    ) -> None:
        self.device = choose_device(device)
        self.precision = str(header["precision"])
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.codec = codec
        self.kind = str(header["kind"])
        self.classes = tuple(header["classes"])
        rows = tuple(tuple(row) for row in header.get("conditions", ()))
        self.condition = Condition(self.classes, tuple(header.get("condition", ())), rows)
        self.config = dict(header["config"])
        self.size = int(header["shape"]["size"])
        self.images = int(header["images"])
        self.source = str(header["source"])
        self.privacy: dict[str, Any] | None = header.get("privacy")
        self.labels = dict(codec.labels) if isinstance(codec, CTCodec) else {}
        self.modality = codec.modality if isinstance(codec, CTCodec) else "CT"
        self.affine = np.asarray(header["affine"], dtype=np.float64)
        self.adjoining = dict(header.get("adjoining") or {})
        self.fingerprint = fingerprint
        self.uncertainty_source = model.uncertainty
        self.masks = codec.masks if isinstance(codec, CTCodec) else "none"
        self.drawn = codec.mask_labels if isinstance(codec, CTCodec) else {}
        self.told_dim = int(header["shape"].get("cond_dim", self.condition.dim))
        layout = int(header["shape"].get("layout", 0))
        self.partial = bool(header["shape"].get("unlabeled")) or bool(
            layout and isinstance(codec, CTCodec) and layout > len(codec.layout_labels)
        )
        self.find_layouts: Callable[[], Layouts | None] = lambda: None
        self.snapshots: list[Model] = []
        self.snapshot_fingerprints: tuple[str, ...] = ()
        self.compiled: set[int] = set()
        self.drops = [m for m in model.modules() if isinstance(m, nn.Dropout2d | nn.Dropout3d)]

    def noise(self, seed: int, indices: Iterable[int], purpose: str) -> Tensor:
        """Noise (n, *noise_shape) by address, so that each row depends on its own index only."""
        draws = [
            torch.randn(self.model.noise_shape, generator=generator(seed, purpose, i))
            for i in indices
        ]
        return torch.stack(draws).to(self.device)

    def rows(
        self, told: Sequence[Mapping[str, float]], maps: Tensor | None = None
    ) -> Tensor | None:
        """Conditions by name, all of each, and layout maps (n, h, w), as the model takes them."""
        rows = None
        if self.condition.dim:
            rows = torch.stack([self.condition.row(values) for values in told]).to(self.device)
        if maps is None or not isinstance(self.codec, CTCodec):
            return rows
        layout = self.codec.layout(maps.to(self.device))
        known = torch.ones(len(maps), dtype=torch.bool, device=self.device)
        return with_layout(rows, layout, known if self.partial else None)

    def layout_maps(self, seed: int, indices: Sequence[int], attempt: int = 0) -> Tensor | None:
        """The layouts (n, h, w) of samples, or None where the model draws its own masks.

        Raises:
            ConfigError: the run is given its masks, and none were named.
        """
        if self.masks != "layout":
            return None
        if self.layouts is None:
            raise ConfigError(
                "this run draws images for given masks, and the cache it was trained on is not "
                "there; name masks with --masks (from_pretrained(..., masks=...))"
            )
        return self.layouts.maps(seed, indices, attempt)

    @property
    def picture(self) -> tuple[int, ...]:
        """The shape of one image in stored units: (y, x), or (y, x, 3) for RGB."""
        return (self.size, self.size, *([3] if self.channels == 3 else []))

    @property
    def channels(self) -> int:
        """How many channels its images have in stored units: 3 where they are RGB, else 1."""
        return max(self.codec.images, 1)

    @cached_property
    def layouts(self) -> Layouts | None:
        """Where the masks that the run is given come from, found when first asked for."""
        return self.find_layouts() if self.masks == "layout" else None

    def compile(self, stack: int = 0) -> None:
        """Draw through `torch.compile` from now on; the first block takes a minute or two.

        Samples differ by rounding from those of the networks as written, through which all goes
        that is no whole block, nor a whole part of a stack.

        Args:
            stack: for cases of so many slices; 0: for single slices.

        Raises:
            ConfigError: `torch.compile` does not work on this machine.
        """
        rows = _at_once(stack)
        if rows not in self.compiled:
            compile_networks(self.model, rows)
            self.compiled.add(rows)

    def depends_on(
        self, source: str, uncertainty: int, stack: int = 0
    ) -> dict[str, str | bool | None]:
        """What samples depend on beside the weights: masks and other networks, by fingerprint.

        Args:
            source: of the alternatives.
            uncertainty: how many there are.
            stack: slices of a case; 0 for single slices.

        Raises:
            ConfigError: the run draws masks alone.
        """
        if self.masks == "alone":
            raise ConfigError(
                "this run draws masks alone; give it as --masks to one trained with data.masks "
                "layout"
            )
        masks = None if self.layouts is None else self.layouts.fingerprint
        compiled = _at_once(stack) in self.compiled
        chosen = None if source == "latent" or not uncertainty else source
        if chosen == "network" and self.snapshot_fingerprints:
            chosen += " " + " ".join(name[:12] for name in self.snapshot_fingerprints)
        return {"masks": masks, "source": chosen, "compiled": compiled or None}

    def casting(self) -> AbstractContextManager[object]:
        """The arithmetic of the training, for what runs before ``decode``."""
        return autocast(self.device, self.precision)

    @contextmanager
    def dropping(self, seed: int) -> Iterator[None]:
        """Units of the decoder dropped as in training, which ones by ``seed``."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            for module in self.drops:
                module.train()
            try:
                yield
            finally:
                for module in self.drops:
                    module.eval()

    def near(
        self, noise: Tensor, z: Tensor, x: Tensor, fresh: Tensor, cond: Tensor | None, how: float
    ) -> Tensor:
        """Codes of plausible alternatives, see ``Model.vary``."""
        with self.casting():
            return self.model.vary(noise, z, x, fresh, cond, how).float()

    @torch.no_grad()
    def prior(self, noise: Tensor, cond: Tensor | None) -> Tensor:
        """Noise (n, *noise_shape) and rows (n, dim) to codes."""
        with autocast(self.device, self.precision):
            return self.model.prior(noise, cond).float()

    def need_encoder(self) -> None:
        """Refuse a model that cannot ``encode``.

        Raises:
            ConfigError: naming the models that can.
        """
        if not hasattr(self.model, "encode"):
            able = (name for name, entry in MODELS.items() if hasattr(entry.load(), "encode"))
            names = dict.fromkeys(name.partition(".")[0] for name in able)
            asked = self.config["model"]["name"]
            raise ConfigError(f"{asked} has no encoder; these have one: {', '.join(names)}")

    @torch.no_grad()
    def encode(
        self, images: np.ndarray, labels: np.ndarray | None = None, cond: Tensor | None = None
    ) -> Tensor:
        """Means of q(z | x) for slices in stored units.

        Args:
            images: HU or levels (n, y, x), or RGB (n, y, x, 3).
            labels: label maps (n, y, x), where the model draws masks.
            cond: rows (n, dim), where the model was conditioned.

        Returns:
            Codes (n, ...), float32 on the model's device.

        Raises:
            ConfigError: the model has no encoder, or slices or rows do not fit it.
        """
        self.need_encoder()
        self._check(images, labels, cond)
        encode: Any = self.model.encode
        codes = []
        for start in range(0, len(images), BLOCK):
            part = slice(start, start + BLOCK)
            told = None if cond is None else cond[part].to(self.device)
            x = self.encoded(images[part], None if labels is None else labels[part])
            with self.casting():
                mu, _ = encode(x, told)
            codes.append(mu.float())
        return torch.cat(codes)

    def check_slices(self, images: np.ndarray, labels: np.ndarray | None) -> None:
        """Refuse slices that the model cannot take.

        Raises:
            ConfigError: another shape, or label maps missing where they are needed.
        """
        if images.shape[1:] != self.picture:
            sides = ", ".join(map(str, self.picture))
            raise ConfigError(f"images: this model takes (n, {sides}), got {images.shape}")
        wanted = (self.drawn and not self.partial) or self.masks == "layout"
        if labels is None and wanted:
            raise ConfigError("labels are needed: this model was trained with masks")
        if labels is not None and labels.shape != images.shape:
            raise ConfigError(f"labels: wanted is the images' {images.shape}, got {labels.shape}")

    def encoded(self, images: np.ndarray, labels: np.ndarray | None) -> Tensor:
        """Slices in stored units (n, y, x) as the model sees them, (n, c, h, w)."""
        if labels is None and self.drawn:  # the encoder of such a run sees no masks
            labels = np.zeros(images.shape, np.uint8)
        image = torch.from_numpy(np.array(images)).to(self.device)
        label = None
        if labels is not None:
            label = torch.from_numpy(np.array(labels)).to(self.device)
        return self.codec.encode(image, label)

    def _check(self, images: np.ndarray, labels: np.ndarray | None, cond: Tensor | None) -> None:
        n, side, dim = len(images), self.size, self.condition.dim
        expected: dict[str, tuple[Any, tuple[int, ...]]] = {"images": (images, (n, *self.picture))}
        if self.drawn and not self.partial:
            expected["labels"] = labels, (n, side, side)
        if self.told_dim > dim:
            expected["cond"] = cond, (n, self.told_dim, side, side)
        elif dim:
            expected["cond"] = cond, (n, dim)
        for what, (given, shape) in expected.items():
            found = None if given is None else tuple(given.shape)
            if found != shape:
                raise ConfigError(f"{what}: this model takes the shape {shape}, got {found}")

    @torch.no_grad()
    def decode(
        self, codes: Tensor, cond: Tensor | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Codes (n, ...) to images (n, y, x[, 3]) in stored units and label maps, or None."""
        parts = []
        for start in range(0, len(codes), BLOCK):
            part = slice(start, start + BLOCK)
            told = None if cond is None else cond[part].to(self.device)
            parts.append(self.stored(self.model.decode(codes[part].to(self.device), told)))
        images, labels = zip(*parts, strict=True)
        kept = [label for label in labels if label is not None]
        return np.concatenate(images), np.concatenate(kept) if kept else None

    def stored(self, x: Tensor, maps: Tensor | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """What was decoded, in stored units, and its label maps: drawn, given, or None."""
        image, label = self.codec.decode(x)
        if maps is None:
            return image.cpu().numpy(), None if label is None else label.cpu().numpy()
        given = maps.cpu().numpy()
        kept = np.where(np.isin(given, list(self.labels.values())), given, 0)
        return image.cpu().numpy(), kept.astype(np.uint8)


def _at_once(stack: int) -> int:
    """How many rows the networks are given at once, see ``medaug.synthesis.variation.parts``."""
    return min(stack or BLOCK, BLOCK)
