"""Draw other images of a given case, slice by slice, on the case's own voxels.

The volume is turned to RAS+, its axial slices are resampled to the window of the model's training,
as the cache does it, drawn by the model, and resampled back.  Outside the window the case stays as
it is, and so do voxels that lie beyond the model's intensity range before and at its end after.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medaug.core.codec import CTCodec
from medaug.core.errors import ConfigError
from medaug.core.geometry import HU_RANGE, resample_image, resample_labels, spacing, window_affine
from medaug.core.modality import CT
from medaug.core.types import Affine
from medaug.data.cache.slicing import CENTERS
from medaug.synthesis.generator import Generator
from medaug.transforms.grids import canonical, covered, linear, nearest, turn, turned, turned_affine
from medaug.transforms.scan import fitting
from medaug.transforms.sources import Donor


@dataclass(frozen=True)
class Address:
    """Which draw: ``index`` under a random seed, correlated over ``smooth_mm`` along z."""

    seed: int
    index: int
    smooth_mm: float


def vary(mine: Donor, generator: Generator, where: Address, strength: float) -> Donor:
    """Draw an alternative of a case through the model's encoder, image and label map alike.

    Raises:
        ConfigError: the model has no encoder, or the case does not suit it.
    """
    generator.need_encoder()
    if generator.labels and mine.label is None:
        names = ", ".join(generator.labels)
        raise ConfigError(f"mode 'vary': this run draws label maps ({names}); the case has none")
    if mine.label is not None and not generator.labels:
        raise ConfigError(
            "mode 'vary': this run draws no label maps, and the case's would no longer match; "
            "leave the label map out"
        )
    window = _Window.of(mine, generator)
    images, labels = window.slices()
    drawn = generator.vary(
        images, labels, strength, seed=where.seed, index=where.index, smooth=window.smooth(where)
    )
    return window.back(*drawn)


def redraw(mine: Donor, generator: Generator, where: Address) -> Donor:
    """Draw another image for a case's label map, which stays.

    Raises:
        ConfigError: the model draws no images for given masks, or the case does not suit it.
    """
    if mine.label is None:
        raise ConfigError("mode 'redraw' needs a label map, and the case has none")
    window = _Window.of(mine, generator)
    images, labels = window.slices()
    assert labels is not None
    drawn = generator.redraw(
        labels, seed=where.seed, index=where.index, smooth=window.smooth(where), images=images
    )
    return window.back(drawn, None)


class _Window:
    """A case in RAS+ and the model's in-plane window in it."""

    def __init__(self, mine: Donor, generator: Generator) -> None:
        self.mine, self.generator = mine, generator
        self.how = canonical(mine.affine)
        self.image = turned(mine.image[0], self.how)
        self.label = None if mine.label is None else turned(mine.label, self.how)
        self.affine = turned_affine(mine.affine, mine.image.shape[1:], self.how)
        rounded = np.rint(np.nan_to_num(self.image, nan=HU_RANGE[0])).clip(*HU_RANGE)
        self.hu = rounded.astype(np.int16)
        marks = np.zeros(self.image.shape, np.uint8) if self.label is None else self.label
        self.marks = np.asarray(marks).astype(np.uint8)
        fov_mm = spacing(generator.affine)[0] * generator.size
        center = CENTERS[generator.settings.data.center](self.hu, self.marks, self.affine, CT)
        self.place = (self.affine, center, fov_mm, generator.size)

    @classmethod
    def of(cls, mine: Donor, generator: Generator) -> "_Window":
        """Check that a case suits the model, and place the window in it.

        Raises:
            ConfigError: not one channel of CT, or a label id that the model does not know.
        """
        if generator.kind != "ct" or len(mine.image) != 1:
            raise ConfigError(
                f"this mode takes one channel of CT and a run trained on CT, got "
                f"{len(mine.image)} channels and a run trained on {generator.kind}"
            )
        if mine.label is not None:
            found = {int(number) for number in np.unique(mine.label)} - {0}
            if unknown := sorted(found - set(generator.labels.values())):
                known = ", ".join(f"{name} = {k}" for name, k in generator.labels.items())
                raise ConfigError(
                    f"the label map holds the ids {unknown}, which this run does not know "
                    f"(known: {known or 'none'})"
                )
        return cls(mine, generator)

    def slices(self) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8] | None]:
        """Resample HU and label ids (z, y, x) to the window."""
        images = resample_image(self.hu, *self.place)
        return images, None if self.label is None else resample_labels(self.marks, *self.place)

    def smooth(self, where: Address) -> float:
        """Convert the correlation length to slices."""
        return where.smooth_mm / spacing(self.affine)[2]

    def back(self, images: npt.NDArray[Any], labels: npt.NDArray[Any] | None) -> Donor:
        """Resample slices (z, y, x) to the case's own voxels; without labels, its own stay."""
        onto_window = np.linalg.inv(window_affine(*self.place)) @ self.affine
        size = self.generator.size
        image = np.asarray(images).transpose(2, 1, 0)
        label = None if labels is None else labels.transpose(2, 1, 0)
        inside = np.ones(self.image.shape[:2], bool)
        for axis in (0, 1):
            n = self.image.shape[axis]
            line = (n, float(onto_window[axis, 3]), float(onto_window[axis, axis]))
            image = linear(image, axis, *line)
            label = None if label is None else nearest(label, axis, *line)
            inside &= np.expand_dims(covered(size, *line), 1 - axis)
        kept = ~inside[:, :, None] | self._beyond(image)
        image = np.where(kept, self.image, image)
        if label is None or self.label is None:
            return self._turned_back(image, self.label)
        return self._turned_back(image, np.where(inside[:, :, None], label, self.label))

    def _beyond(self, image: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        codec = self.generator.codec
        if not isinstance(codec, CTCodec):
            return np.zeros(image.shape, bool)
        low, high = codec.window_hu
        above = (image > high - 0.5) & (self.image > high)
        return np.asarray(above | ((image < low + 0.5) & (self.image < low)))

    def _turned_back(self, image: npt.NDArray[Any], label: npt.NDArray[Any] | None) -> Donor:
        home: Affine = self.mine.affine
        how = turn(self.affine, home)
        ids = None if label is None else turned(label, how)
        return Donor(fitting(turned(image, how)[None], self.mine.image.dtype), ids, home)
