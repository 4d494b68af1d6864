"""The public way to draw: weights from a run, samples by index, each with its alternatives.

Sample i is a function of (weights, seed, i).  Decoding runs in fixed blocks of consecutive
indices, since convolutions round differently at another batch size; alternatives are decoded
block by block as well, so the sample itself does not depend on how many there are.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medaug.core.codec import from_dict
from medaug.core.config import Config
from medaug.core.errors import ConfigError, RunError
from medaug.core.types import Sample
from medaug.data.feed.condition import Asked
from medaug.synthesis.masks import Layouts
from medaug.synthesis.sampling import Judge, alternatives, check_source, draw
from medaug.synthesis.trained import BLOCK, Trained
from medaug.synthesis.variation import redraw, vary
from medaug.training.run import snapshot_paths, weights_path
from medaug.training.weights import load_model


@dataclass(frozen=True)
class Samples:
    """Samples ``start`` to ``start + n``, drawn as they are iterated; it has a length."""

    source: "Generator"
    n: int
    start: int
    seed: int
    uncertainty: int
    condition: Asked
    uncertainty_source: str

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[Sample]:
        size = self.source.block_size
        for number in range(self.start // size, (self.start + self.n - 1) // size + 1):
            block = self.source.block(
                number, self.seed, self.uncertainty, self.condition, self.uncertainty_source
            )
            for sample in block:
                if self.start <= sample.index < self.start + self.n:
                    yield sample


class Generator(Trained):
    """A trained model, ready to draw; see ``Trained`` for what it knows of itself."""

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        device: str = "auto",
        masks: str | Path | None = None,
        mask_strength: float | None = None,
    ) -> "Generator":
        """Load a run folder or a weight file.

        Args:
            path: a run folder, or the weight file of one.
            device: ``auto``, ``cpu`` or ``cuda``.
            masks: of a run that is given its masks, where they come from: a slice cache, a run of
                masks alone, or a folder of label maps; by default the cache it was trained on.
            mask_strength: of their random deformation, 0 to 4; by default 1 for real masks of a
                cache, 0 for others.

        Raises:
            RunError: no such run, or it has not been trained long enough to hold weights.
            WeightsError: the file is not ours, damaged, or a pickle.
            ConfigError: the device is not on this machine, or masks that do not suit the run.
            DataError: masks that cannot be read.
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
        model, header, fingerprint = load_model(file)
        made = cls(model, from_dict(header["codec"]), header, fingerprint, device)
        if path.is_dir():
            made.keep_snapshots(snapshot_paths(path))
        named = masks is not None or mask_strength is not None
        if named or made.masks == "layout":
            made.find_layouts = partial(made.open_layouts, path, masks, mask_strength)
        if named and made.masks != "layout":
            made.find_layouts()  # says that it takes none
        elif named:
            made.layouts  # noqa: B018 - a mistake in what was named is told at once
        return made

    def open_layouts(
        self, run: Path, masks: str | Path | None, strength: float | None
    ) -> Layouts | None:
        """See ``medaug.synthesis.masks.open``."""
        from medaug.synthesis.masks.open import open_layouts

        def other(path: Path) -> Generator:
            return Generator.from_pretrained(path, str(self.device))

        data = self.settings.data
        return open_layouts(self.codec, data, self.size, run, masks, strength, other)

    def keep_snapshots(self, files: Iterable[Path]) -> None:
        """Take earlier generators of the same run, for the uncertainty of the network."""
        prints = []
        for file in files:
            model, _, fingerprint = load_model(file)
            self.snapshots.append(model.to(self.device).eval().requires_grad_(False))
            prints.append(fingerprint)
        self.snapshot_fingerprints = tuple(prints)

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
        source: str = "latent",
    ) -> Samples:
        """Samples ``start`` to ``start + n``, each with ``uncertainty`` alternatives.

        Args:
            n: how many.
            seed: of all draws.
            uncertainty: how many alternatives a sample has.
            start: index of the first.
            condition: what all of them share, such as ``{"class": "coat"}`` or
                ``{"liver": 1, "height": 0.2}``; the rest is drawn.
            source: what the alternatives show: ``latent``, other codes; ``network``, other
                networks; ``mask``, masks a little deformed.

        Raises:
            ConfigError: n below 1, a negative start or uncertainty, or a condition that the model
                was not trained with; or a source that the run does not have.
        """
        if n < 1:
            raise ConfigError(f"n must be at least 1, got {n}")
        if uncertainty < 0 or start < 0:
            raise ConfigError(
                f"uncertainty and start must not be negative, got {uncertainty} and {start}"
            )
        check_source(self, source, uncertainty)
        return Samples(self, n, start, seed, uncertainty, self.fix(condition), source)

    def fix(self, condition: Asked | None) -> dict[str, float]:
        """A condition in its one canonical form: the class by number, in a fixed order.

        Raises:
            ConfigError: the model was not trained with it.
        """
        return self.condition.fix(condition or {})

    @torch.inference_mode()
    def block(
        self,
        number: int,
        seed: int = 0,
        uncertainty: int = 8,
        condition: Asked | None = None,
        source: str = "latent",
        judge: Judge | None = None,
    ) -> list[Sample]:
        """The samples of one block of consecutive indices.

        Args:
            number: block k holds samples k * block_size to (k + 1) * block_size.
            seed: of all draws.
            uncertainty: how many alternatives a sample has.
            condition: what all samples share, such as ``{"liver": 1, "height": 0.2}``; the rest is
                drawn.
            source: what the alternatives show: ``latent``, other codes; ``network``, other
                networks; ``mask``, masks a little deformed.
            judge: says of images and label maps why each is refused, empty where it is not; what is
                refused is drawn anew.

        Raises:
            ConfigError: the run lacks masks, or what the source needs.
            RefusedError: a sample is refused time and again.
        """
        check_source(self, source, uncertainty)
        indices = [number * BLOCK + i for i in range(BLOCK)]
        fixed = self.fix(condition)
        told = [self.condition.of(seed, i, fixed) for i in indices]
        drawn = draw(self, seed, indices, told, judge)
        stack, masks = alternatives(self, seed, indices, told, drawn, uncertainty, source)
        how = self.uncertainty_of(source)
        return [
            self.to_sample(
                index, {"seed": seed, "source": source, "how": how, "refused": drawn.refused[i]},
                told[i], drawn.image[i], None if drawn.label is None else drawn.label[i], stack[i],
                None if masks is None else masks[i],
            )
            for i, index in enumerate(indices)
        ]  # fmt: skip

    def uncertainty_of(self, source: str) -> str:
        """What the alternatives of a source are, in words."""
        if source == "mask":
            return "the same noise for the mask a little deformed"
        if source == "network":
            many = len(self.snapshots) > 1
            return "the same noise through other snapshots" if many else "other units dropped"
        return (
            "other noise for the same mask" if self.masks == "layout" else self.uncertainty_source
        )

    @torch.inference_mode()
    def vary(
        self,
        images: np.ndarray,
        labels: np.ndarray | None = None,
        strength: float = 0.5,
        *,
        seed: int = 0,
        index: int = 0,
        smooth: float = 0.0,
        condition: Asked | None = None,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """One plausible alternative to each of some real slices, through the encoder.

        Args:
            images: HU or grey levels (n, y, x), at the model's size.
            labels: label maps (n, y, x), where the model draws or is given masks.
            strength: above 0, little, to 1, all that the prior allows.
            seed: of the draw, with ``index``.
            index: which alternative.
            smooth: correlation length, in slices, of the codes of consecutive slices.
            condition: what the slices share, where the model was conditioned.

        Returns:
            Images (n, y, x) and label maps: drawn, the given ones, or None.

        Raises:
            ConfigError: the model has no encoder, slices that do not fit it, or a value out of
                range.
        """
        return vary(self, images, labels, strength, seed, index, smooth, condition)

    @torch.inference_mode()
    def redraw(
        self,
        labels: np.ndarray,
        *,
        seed: int = 0,
        index: int = 0,
        smooth: float = 0.0,
        images: np.ndarray | None = None,
        condition: Asked | None = None,
    ) -> np.ndarray:
        """New images for given label maps, by a run that is given its masks.

        Args:
            labels: label maps (n, y, x), at the model's size.
            seed: of the draw, with ``index``.
            index: which draw.
            smooth: correlation length, in slices, of the codes of consecutive slices.
            images: HU (n, y, x) whose tissues fill the layout around the labels; needed where the
                run was trained with tissues and ``labels`` hold none.
            condition: what the slices share, where the model was conditioned.

        Returns:
            HU (n, y, x).

        Raises:
            ConfigError: the run draws its own masks, or slices that do not fit it.
        """
        return redraw(self, labels, seed, index, smooth, images, condition)

    def to_sample(
        self,
        index: int,
        origin: dict[str, Any],
        told: dict[str, float],
        image: np.ndarray,
        label: np.ndarray | None,
        alternatives: np.ndarray,
        masks: np.ndarray | None,
    ) -> Sample:
        """One case from its draws, with the spread of the alternatives (K, *shape)."""
        several = len(alternatives) > 1
        std = alternatives.std(0, ddof=1, dtype=np.float64) if several else np.zeros(image.shape)
        if self.layouts is not None:
            origin["mask"] = self.layouts.how
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
    """Entropy in bits of the votes of label maps (k, *shape) over background and ``ids``."""
    if not len(masks):
        return np.zeros(masks.shape[1:], dtype=np.float32)
    share = np.stack([(masks == number).mean(0, dtype=np.float64) for number in (0, *ids)])
    logs = np.log2(share, out=np.zeros_like(share), where=share > 0)
    return np.abs((share * logs).sum(0)).astype(np.float32)
