"""The public way to draw: weights from a run, samples by index, each with its alternatives.

Sample i is a function of (weights, seed, i).  Decoding runs in fixed blocks of consecutive
indices, since convolutions round differently at another batch size; alternatives are decoded
block by block as well, so the sample itself does not depend on how many there are.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medaug.checkpoint import read_tensors
from medaug.codec import Codec, CTCodec, from_dict
from medaug.config import Config, ModelConfig
from medaug.device import autocast, choose_device
from medaug.errors import ConfigError, RunError, WeightsError
from medaug.models import build
from medaug.models.base import Model
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

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[Sample]:
        size = self.source.block_size
        for number in range(self.start // size, (self.start + self.n - 1) // size + 1):
            for sample in self.source.block(number, self.seed, self.uncertainty):
                if self.start <= sample.index < self.start + self.n:
                    yield sample


class Generator:
    """A trained model with its codec and geometry, ready to draw.

    Attributes:
        kind: ``ct`` or ``image``.
        labels: name to id of the labels it draws.
        classes: names of the classes it was conditioned on, or empty.
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
        self.config = dict(header["config"])
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
        model = build(settings.name, settings.arguments, Shape(**header["shape"]))
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

    def generate(self, n: int, *, seed: int = 0, uncertainty: int = 8, start: int = 0) -> Samples:
        """Samples ``start`` to ``start + n``, each with ``uncertainty`` alternatives.

        Raises:
            ConfigError: n below 1, or a negative start or uncertainty.
        """
        if n < 1:
            raise ConfigError(f"n must be at least 1, got {n}")
        if uncertainty < 0 or start < 0:
            raise ConfigError(
                f"uncertainty and start must not be negative, got {uncertainty} and {start}"
            )
        return Samples(self, n, start, seed, uncertainty)

    @torch.inference_mode()
    def block(self, number: int, seed: int = 0, uncertainty: int = 8) -> list[Sample]:
        """The samples of one block of consecutive indices.

        Args:
            number: block k holds samples k * block_size to (k + 1) * block_size.
            seed: of all draws.
            uncertainty: how many alternatives a sample has.
        """
        indices = [number * BLOCK + i for i in range(BLOCK)]
        noise = self._noise(seed, indices, "code")
        cond = self._condition(indices)
        with autocast(self.device, self.precision):
            z = self.model.prior(noise, cond)
        x = self.model.decode(z.float(), cond)
        image, label = self._stored(x)
        images, labels = [], []
        for k in range(uncertainty):
            fresh = self._noise(seed, indices, f"alternative {k}")
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
                index, seed, image[i], None if label is None else label[i], stack[i],
                None if masks is None else masks[i],
            )
            for i, index in enumerate(indices)
        ]  # fmt: skip

    def _noise(self, seed: int, indices: list[int], purpose: str) -> Tensor:
        draws = [
            torch.randn(self.model.noise_shape, generator=generator(seed, purpose, i))
            for i in indices
        ]
        return torch.stack(draws).to(self.device)

    def _condition(self, indices: list[int]) -> Tensor | None:
        if not self.classes:
            return None
        numbers = torch.tensor([self.class_of(i) for i in indices], device=self.device)
        return torch.nn.functional.one_hot(numbers, len(self.classes)).float()

    def class_of(self, index: int) -> int:
        """The class of sample ``index``: all classes take turns."""
        return index % len(self.classes)

    def _stored(self, x: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
        image, label = self.codec.decode(x)
        return image.cpu().numpy(), None if label is None else label.cpu().numpy()

    def _sample(
        self,
        index: int,
        seed: int,
        image: np.ndarray,
        label: np.ndarray | None,
        alternatives: np.ndarray,
        masks: np.ndarray | None,
    ) -> Sample:
        several = len(alternatives) > 1
        std = alternatives.std(0, ddof=1, dtype=np.float64) if several else np.zeros(image.shape)
        origin: dict[str, Any] = {"seed": seed, "source": "latent", "how": self.uncertainty_source}
        if self.classes:
            origin["class"] = self.class_of(index)
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
