"""Cases that are volumes: axial slices of a two-dimensional model along a path smooth in z.

Class and attributes are those of the whole stack.  Where the model is told the height of a slice,
the heights run evenly with z.  Stack i is a function of (weights, seed, i, slices, smooth_mm).

Only the codes are smooth.  The model has never seen two slices together, so what it draws is no
volume of a patient; how neighbours differ is measured, see ``medaug.data.feed.continuity``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medaug.core.errors import ConfigError
from medaug.core.geometry import spacing
from medaug.core.types import Sample
from medaug.data.feed.condition import HEIGHT, Asked
from medaug.synthesis.generator import Generator
from medaug.synthesis.masks.deformed import Deformed
from medaug.synthesis.sampling import (
    MOST_ATTEMPTS,
    Drawing,
    Judge,
    Pair,
    check_source,
    latent,
    network,
    nudged,
    refusal,
)
from medaug.synthesis.variation import parts, path, whole

Told = Mapping[str, float]


class Stacks:
    """A generator whose cases are stacks of slices, in the place of one whose cases are slices.

    Args:
        generator: of CT slices.  Where it is given its masks, they are those of consecutive real
            slices of one scan under one deformation.
        slices: of a stack.
        smooth_mm: deviation of the Gaussian that the noise is averaged with along z, so that the
            noise of slices d mm apart correlates by exp(-(d / 2 smooth_mm)^2); 0 draws each slice
            on its own.

    Attributes:
        affine: (4, 4), of every stack: (x, y, z) to RAS+ mm; (0, 0, 0) is its middle.
        adjoining: how neighbouring slices of the real training scans differ, or empty where the
            weights are from before it was measured.

    Raises:
        ConfigError: pictures, masks that do not continue each other, or a value out of range.
    """

    block_size = channels = 1

    def __init__(self, generator: Generator, slices: int, smooth_mm: float) -> None:
        if slices < 2:
            raise ConfigError(f"stack must be 0 for slices, or at least 2, got {slices}")
        if not 0 <= smooth_mm < float("inf"):
            raise ConfigError(f"smooth_mm must be 0 or more, got {smooth_mm:g}")
        if generator.kind == "image":
            raise ConfigError("stack: pictures do not lie on each other; stacks are for CT")
        self.step_mm = spacing(generator.affine)[2]
        self.layouts: Deformed | None = None
        if generator.masks == "layout":
            self.layouts = _continuing(generator)
            self.layouts.starts(slices, self.step_mm)
        self.adjoining = generator.adjoining
        if HEIGHT in generator.condition.names and not self.adjoining.get("extent_mm"):
            raise ConfigError(
                "stack: these weights are told the height of a slice and do not say how many mm "
                "the scans extend; train anew"
            )
        self.generator, self.slices, self.smooth_mm = generator, slices, smooth_mm
        self.affine = generator.affine.copy()
        self.affine[:3, 3] -= (slices - 1) / 2 * self.affine[:3, 2]
        self.fingerprint, self.kind = generator.fingerprint, generator.kind
        self.labels, self.config = generator.labels, generator.config
        self.privacy = generator.privacy

    def fix(self, condition: Asked | None) -> dict[str, float]:
        """See ``Generator.fix``."""
        return self.generator.fix(condition)

    def depends_on(self, source: str, uncertainty: int) -> dict[str, str | bool | None]:
        """See ``Trained.depends_on``."""
        return self.generator.depends_on(source, uncertainty, self.slices)

    def uncertainty_of(self, source: str) -> str:
        """See ``Generator.uncertainty_of``."""
        return self.generator.uncertainty_of(source)

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
        """Stack ``number`` alone, since each is decoded on its own.

        Args:
            number: index of the stack.
            seed: of all draws.
            uncertainty: how many alternatives it has, each along a smooth path of its own.
            condition: what its slices share, such as ``{"liver": 1}``; a height is that of the
                stack's middle, moved where the stack would leave the scan.
            source: what the alternatives show: ``latent``, other codes; ``network``, other
                networks; ``mask``, masks a little deformed.
            judge: takes the images (1, z, y, x) and label maps of the stack, and says in a list of
                one why it is refused, empty where it is not; what is refused is drawn anew.

        Raises:
            ConfigError: the run lacks what the source needs, or a condition it does not know.
            RefusedError: a stack is refused time and again.
        """
        made = self.generator
        check_source(made, source, uncertainty)
        values = dict(made.condition.of(seed, number, made.fix(condition)))
        heights = self._heights(values[HEIGHT]) if HEIGHT in values else None
        told = [values] * self.slices
        if heights is not None:
            values[HEIGHT] = float(np.mean(heights))
            told = [{**values, HEIGHT: height} for height in heights]
        drawn, refused = self._kept(seed, number, told, judge)
        image, label = whole([(block.image, block.label) for block in drawn])
        others = [
            self._alternative(seed, number, told, drawn, source, k) for k in range(uncertainty)
        ]
        masks = [mask for _, mask in others if mask is not None]
        origin = {
            "seed": seed,
            "source": source,
            "how": made.uncertainty_of(source),
            "refused": refused,
        }
        sample = made.to_sample(
            number, origin, values, image, label,
            np.stack([other for other, _ in others]) if others else image[None][:0],
            np.stack(masks) if masks else None if label is None else label[None][:0],
        )  # fmt: skip
        return [replace(sample, affine=self.affine)]

    def _heights(self, middle: float) -> list[float]:
        """Heights of the slices around ``middle``, so far moved that the stack fits the scan."""
        step = 2 * self.step_mm / self.adjoining["extent_mm"]
        reach = step * (self.slices - 1) / 2
        middle = max(-1 + reach, min(middle, 1 - reach)) if reach < 1 else 0.0
        offsets = (np.arange(self.slices) - (self.slices - 1) / 2) * step
        return [float(height) for height in np.clip(middle + offsets, -1, 1)]

    def _noise(self, seed: int, index: int, purpose: str) -> Tensor:
        """Noise (slices, *noise_shape) of one path."""
        shape, smooth = self.generator.model.noise_shape, self.smooth_mm / self.step_mm
        noise = path(self.slices, shape, seed, index, smooth, f"stack {purpose}")
        return noise.to(self.generator.device)

    def _kept(
        self, seed: int, index: int, told: Sequence[Told], judge: Judge | None
    ) -> tuple[list[Drawing], list[str]]:
        """The first stack that ``judge`` keeps, and why the ones before it were refused."""
        refused: list[str] = []
        for attempt in range(MOST_ATTEMPTS):
            drawn = self._attempt(seed, index, told, attempt)
            if judge is None:
                return drawn, refused
            image, label = whole([(block.image, block.label) for block in drawn])
            (reason,) = judge(image[None], None if label is None else label[None])
            if not reason:
                return drawn, refused
            refused.append(reason)
        raise refusal(index, refused)

    def _attempt(self, seed: int, index: int, told: Sequence[Told], attempt: int) -> list[Drawing]:
        made, drawn = self.generator, []
        noise = self._noise(seed, index, f"code {attempt}" if attempt else "code")
        maps = None
        if self.layouts is not None:
            maps = self.layouts.stack(seed, index, self.slices, self.step_mm, attempt)
        for part in parts(self.slices):
            given = None if maps is None else maps[part]
            cond = made.rows(told[part], given)
            z = made.prior(noise[part], cond)
            x = made.model.decode(z, cond)
            image, label = made.stored(x, given)
            drawn.append(Drawing(noise[part], given, cond, z.clone(), x.clone(), image, label))
        return drawn

    def _alternative(
        self,
        seed: int,
        index: int,
        told: Sequence[Told],
        drawn: Sequence[Drawing],
        source: str,
        k: int,
    ) -> Pair:
        """A further stack that shares what defines the one ``drawn``."""
        if source == "latent":
            fresh = self._noise(seed, index, f"alternative {k}")
            pairs = zip(drawn, parts(self.slices), strict=True)
            return whole([latent(self.generator, block, fresh[part]) for block, part in pairs])
        if source == "mask":
            pairs = zip(drawn, parts(self.slices), strict=True)
            return whole([
                nudged(self.generator, seed, [index] * len(block.z), told[part], block, k)
                for block, part in pairs
            ])  # fmt: skip
        # one by one, so that the same units are dropped in all slices
        singles = [_slice(block, z) for block in drawn for z in range(len(block.z))]
        return whole([network(self.generator, seed, [index], single, k) for single in singles])


def _slice(block: Drawing, z: int) -> Drawing:
    """One row of a block."""

    def cut(array: Any) -> Any:
        return None if array is None else array[z : z + 1]

    names = ("noise", "maps", "cond", "z", "x", "image", "label")
    return Drawing(**{name: cut(getattr(block, name)) for name in names})


def _continuing(generator: Generator) -> Deformed:
    """Where masks come from that continue each other.

    Raises:
        ConfigError: the run is given others.
    """
    if generator.layouts is None:
        generator.layout_maps(0, [])  # says that masks are missing
    if not isinstance(generator.layouts, Deformed):
        raise ConfigError(
            "stack: the masks of a stack must continue each other, as those of a slice cache do; "
            "leave --masks out, or name a cache"
        )
    return generator.layouts


def stacked(generator: object, slices: int, smooth_mm: float) -> Stacks:
    """``Stacks`` of a generator that may be of any kind.

    Raises:
        ConfigError: not a ``medaug.Generator``, or as ``Stacks``.
    """
    if not isinstance(generator, Generator):
        raise ConfigError(f"stack: a medaug.Generator is wanted, got {type(generator).__name__}")
    return Stacks(generator, slices, smooth_mm)
