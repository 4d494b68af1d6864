"""The public way to draw: weights from a run, samples by index, each with its alternatives.

Sample i is a function of (weights, seed, i).  Decoding runs in fixed blocks of consecutive
indices, since convolutions round differently at another batch size; alternatives are decoded
block by block as well, so the sample itself does not depend on how many there are.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medaug.checkpoint import read_tensors
from medaug.codec import Codec, CTCodec, from_dict
from medaug.config import Config, ModelConfig
from medaug.data.condition import Asked, Condition
from medaug.device import autocast, choose_device
from medaug.errors import ConfigError, RunError, WeightsError
from medaug.models import build
from medaug.models.base import Model
from medaug.registry import MODELS
from medaug.run import weights_path
from medaug.seeds import generator
from medaug.tensors import Shape
from medaug.types import Sample

BLOCK = 16
STRENGTH = 0.5


@dataclass(frozen=True)
class Samples:
    """Samples ``start`` to ``start + n``, drawn as they are iterated; it has a length."""

    source: "Generator"
    n: int
    start: int
    seed: int
    uncertainty: int
    condition: Asked

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[Sample]:
        size = self.source.block_size
        for number in range(self.start // size, (self.start + self.n - 1) // size + 1):
            block = self.source.block(number, self.seed, self.uncertainty, self.condition)
            for sample in block:
                if self.start <= sample.index < self.start + self.n:
                    yield sample


class Generator:
    """A trained model with its codec and geometry, ready to draw.

    Attributes:
        kind: ``ct`` or ``image``.
        labels: name to id of the labels it draws.
        classes: names of the classes it was conditioned on, or empty.
        condition: all that it was conditioned on, by name.
        size: pixels a side.
        config: the resolved config of its training.
        fingerprint: sha256 of weights and header.
        precision: that of the training, for samples to depend on nothing else.
        affine: (4, 4), of every sample: (x, y, z=0) to RAS+ mm.
        block_size: how many consecutive indices are decoded at once.
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
        self.labels = dict(codec.labels) if isinstance(codec, CTCodec) else {}
        self.affine = np.asarray(header["affine"], dtype=np.float64)
        self.fingerprint = fingerprint
        self.uncertainty_source = model.uncertainty

    @classmethod
    def from_pretrained(cls, path: str | Path, device: str = "auto") -> "Generator":
        """Load a run folder or a weight file.

        Raises:
            RunError: no such run, or it has not been trained long enough to hold weights.
            WeightsError: the file is not ours, damaged, or a pickle.
            ConfigError: the device is not on this machine.
        """
        path = Path(path)
        if not path.exists():
            raise RunError(f"{path}: no such run or weight file")
        file = weights_path(path) if path.is_dir() else path
        if not file.exists():
            raise RunError(
                f"{path}: holds no weights ({file.name}); train it first, "
                "they appear at the first snapshot"
            )
        tensors, header, fingerprint = read_tensors(file)
        settings = ModelConfig.model_validate(header["config"]["model"])
        shape = Shape(**{"classes": len(header["classes"]), **header["shape"]})
        model = build(settings.name, settings.arguments, shape)
        model.shed()
        try:
            model.load_state_dict(tensors)
        except RuntimeError as error:
            raise WeightsError(
                f"{file}: its weights do not fit the networks of this medaug; "
                "use the version that wrote it, or train anew"
            ) from error
        return cls(model, from_dict(header["codec"]), header, fingerprint, device)

    @property
    def settings(self) -> Config:
        """The config as a validated object."""
        return Config.model_validate(self.config)

    def generate(
        self,
        n: int,
        seed: int = 0,
        uncertainty: int = 8,
        start: int = 0,
        condition: Asked | None = None,
    ) -> Samples:
        """Samples ``start`` to ``start + n``, each with ``uncertainty`` alternatives.

        Args:
            n: how many.
            seed: of all draws.
            uncertainty: how many alternatives a sample has.
            start: index of the first.
            condition: what all of them share, such as ``{"class": "coat"}`` or
                ``{"liver": 1, "height": 0.2}``; the rest is drawn, see `medaug.data.condition`.

        Raises:
            ConfigError: n below 1, a negative start or uncertainty, or a condition that the model
                was not trained with.
        """
        if n < 1:
            raise ConfigError(f"n must be at least 1, got {n}")
        if uncertainty < 0 or start < 0:
            raise ConfigError(
                f"uncertainty and start must not be negative, got {uncertainty} and {start}"
            )
        return Samples(self, n, start, seed, uncertainty, self.fix(condition))

    def fix(self, condition: Asked | None) -> dict[str, float]:
        """A condition in its one canonical form: the class by number, in a fixed order.

        Raises:
            ConfigError: the model was not trained with it.
        """
        return self.condition.fix(condition or {})

    @torch.inference_mode()
    def block(
        self, number: int, seed: int = 0, uncertainty: int = 8, condition: Asked | None = None
    ) -> list[Sample]:
        """The samples of one block of consecutive indices.

        Args:
            number: block k holds samples k * block_size to (k + 1) * block_size.
            seed: of all draws.
            uncertainty: how many alternatives a sample has.
            condition: see ``generate``.
        """
        indices = [number * BLOCK + i for i in range(BLOCK)]
        fixed = self.fix(condition)
        noise = self.noise(seed, indices, "code")
        told = [self.condition.of(seed, i, fixed) for i in indices]
        cond = self.rows(told)
        z = self.prior(noise, cond)
        x = self.model.decode(z, cond)
        image, label = self._stored(x)
        images, labels = [], []
        for k in range(uncertainty):
            fresh = self.noise(seed, indices, f"alternative {k}")
            with autocast(self.device, self.precision):
                near = self.model.vary(noise, z, x, fresh, cond, STRENGTH)
            other, mask = self._stored(self.model.decode(near.float(), cond))
            images.append(other)
            labels.append(mask)
        stack = np.stack(images, 1) if images else image[:, None][:, :0]
        masks = None
        if label is not None:
            kept = [mask for mask in labels if mask is not None]
            masks = np.stack(kept, 1) if kept else label[:, None][:, :0]
        return [
            self._sample(
                index, seed, told[i], image[i], None if label is None else label[i], stack[i],
                None if masks is None else masks[i],
            )
            for i, index in enumerate(indices)
        ]  # fmt: skip

    def noise(self, seed: int, indices: Iterable[int], purpose: str) -> Tensor:
        """Noise (n, *noise_shape) by address, so that each row depends on its own index only."""
        draws = [
            torch.randn(self.model.noise_shape, generator=generator(seed, purpose, i))
            for i in indices
        ]
        return torch.stack(draws).to(self.device)

    def rows(self, told: Iterable[Mapping[str, float]]) -> Tensor | None:
        """Conditions by name, all of each, as the model takes them (n, dim)."""
        if not self.condition.dim:
            return None
        return torch.stack([self.condition.row(values) for values in told]).to(self.device)

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
            images: HU or grey levels (n, y, x).
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
            image = torch.from_numpy(np.array(images[part])).to(self.device)
            label = None
            if labels is not None:
                label = torch.from_numpy(np.array(labels[part])).to(self.device)
            told = None if cond is None else cond[part].to(self.device)
            with autocast(self.device, self.precision):
                mu, _ = encode(self.codec.encode(image, label), told)
            codes.append(mu.float())
        return torch.cat(codes)

    def _check(self, images: np.ndarray, labels: np.ndarray | None, cond: Tensor | None) -> None:
        n, side, dim = len(images), self.size, self.condition.dim
        expected: dict[str, tuple[Any, tuple[int, ...]]] = {"images": (images, (n, side, side))}
        if self.labels:
            expected["labels"] = labels, (n, side, side)
        if dim:
            expected["cond"] = cond, (n, dim)
        for what, (given, shape) in expected.items():
            found = None if given is None else tuple(given.shape)
            if found != shape:
                raise ConfigError(f"{what}: this model takes the shape {shape}, got {found}")

    @torch.no_grad()
    def decode(
        self, codes: Tensor, cond: Tensor | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Codes (n, ...) to images (n, y, x) in stored units and label maps, or None."""
        parts = []
        for start in range(0, len(codes), BLOCK):
            part = slice(start, start + BLOCK)
            told = None if cond is None else cond[part].to(self.device)
            parts.append(self._stored(self.model.decode(codes[part].to(self.device), told)))
        images, labels = zip(*parts, strict=True)
        kept = [label for label in labels if label is not None]
        return np.concatenate(images), np.concatenate(kept) if kept else None

    def _stored(self, x: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
        image, label = self.codec.decode(x)
        return image.cpu().numpy(), None if label is None else label.cpu().numpy()

    def _sample(
        self,
        index: int,
        seed: int,
        told: dict[str, float],
        image: np.ndarray,
        label: np.ndarray | None,
        alternatives: np.ndarray,
        masks: np.ndarray | None,
    ) -> Sample:
        several = len(alternatives) > 1
        std = alternatives.std(0, ddof=1, dtype=np.float64) if several else np.zeros(image.shape)
        origin: dict[str, Any] = {"seed": seed, "source": "latent", "how": self.uncertainty_source}
        if self.classes:
            origin["class"] = told["class"]
        if self.condition.names:
            origin["condition"] = {name: told[name] for name in self.condition.names}
        return Sample(
            index=index,
            image=image,
            label=label,
            affine=self.affine,
            alternatives=alternatives,
            alternative_labels=masks,
            std=std.astype(np.float32),
            entropy=None if masks is None else vote_entropy(masks, list(self.labels.values())),
            origin=origin,
        )


def vote_entropy(masks: np.ndarray, ids: list[int]) -> np.ndarray:
    """Entropy in bits of the votes of label maps (k, y, x) over background and ``ids``, (y, x)."""
    if not len(masks):
        return np.zeros(masks.shape[1:], dtype=np.float32)
    share = np.stack([(masks == number).mean(0, dtype=np.float64) for number in (0, *ids)])
    logs = np.log2(share, out=np.zeros_like(share), where=share > 0)
    return np.abs((share * logs).sum(0)).astype(np.float32)
