"""Transforms for torchio 1.

Each random transform draws parameters and hands them to its counterpart without ``Random`` in its
name, which a subject's history keeps and replays.  All draws come from torch's global generator,
as in torchio.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
import torchio as tio
from torchio.transforms.augmentation import RandomTransform

from medaug.core.errors import ConfigError
from medaug.core.types import Affine
from medaug.transforms.changes import (
    CarveMixChange,
    Change,
    ContrastChange,
    CopyPasteChange,
    CutMixChange,
    MixChange,
    isolated_rng,
    pick,
)
from medaug.transforms.pairs import POOL
from medaug.transforms.sources import Donor
from medaug.transforms.synthesis import SynthesisChange


@dataclass(kw_only=True, eq=False, repr=False)
class _Case(Change, tio.Transform):
    """Changes one scalar image of a subject, and its label map."""

    history: ClassVar[tuple[str, ...]] = ()
    """Names of the arguments that torchio keeps."""

    image: str | None = None
    """Name of the scalar image; may be left out where a subject has only one."""
    label: str | None = None
    """Name of its label map; may be left out where a subject has only one or none."""
    copy: bool = True
    """Whether to leave the subject that is given as it is, and change a copy."""
    include: Sequence[str] | None = None
    """Names of the only images that are looked at; None for all."""
    exclude: Sequence[str] | None = None
    """Names of images that are not looked at."""
    keep: dict[str, str] | None = None
    """Images to keep as they were, and the names they get."""
    parse_input: bool = True
    """Whether what is given becomes a ``torchio.Subject`` first."""
    label_keys: Sequence[str] | None = None
    """Names of label maps, where a dictionary is given."""

    def _start(self, p: float, copy: bool) -> None:
        """Call torchio's constructor and check the arguments."""
        tio.Transform.__init__(
            self,
            p=p,
            copy=copy,
            include=self.include,
            exclude=self.exclude,
            keep=self.keep,
            parse_input=self.parse_input,
            label_keys=self.label_keys,
        )
        self._check(partial(_read, image=self.image, label=self.label))
        self.args_names = list(self.history)


@dataclass(kw_only=True, eq=False, repr=False)
class _Fixed(_Case):
    """A change whose parameters are given: what a history keeps."""

    drawn: ClassVar[tuple[str, ...]] = ("index", "draw", "fingerprint")
    """Names of the parameters that a random transform draws."""

    p: float = 1.0
    """Probability of the change."""

    def __post_init__(self) -> None:
        self._start(self.p, self.copy)

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Change the subject; called by torchio."""
        image, label = _pick(subject, self.image, self.label, self.include, self.exclude)
        mine = arrays(subject, image, label if self._reads_label else None)
        with isolated_rng():
            params = self._record(**{name: getattr(self, name) for name in self.drawn})
            changed = self._change(mine, params)
        if label is not None and changed.label is None and not self.keeps_label:
            raise ConfigError(
                f"{params['source']}: draws no label maps, and the subject's {label!r} would no "
                f"longer match its image; exclude=[{label!r}] leaves it as it is"
            )
        fresh = {image: changed.image}
        if label is not None and changed.label is not None:
            fresh[label] = changed.label[None]
        moved = isinstance(self, SynthesisChange)
        for name, array in fresh.items():
            old = subject[name]
            subject.add_image(_like(old, array, changed.affine if moved else old.affine), name)
        return subject


@dataclass(eq=False, repr=False)
class _Random(_Case, RandomTransform):
    """Draws the parameters of its counterpart and applies that."""

    fixed: ClassVar[Callable[..., _Fixed]]

    p: float = 0.3
    """Probability of the change."""

    def __post_init__(self) -> None:
        self.copies = self.copy  # by the counterpart
        self._start(self.p, copy=False)

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Draw parameters and apply the counterpart; called by torchio."""
        params = self._sample(_randint)
        own = params.pop("own", {})
        base = {one.name: getattr(self, one.name) for one in fields(_Case)}
        return type(self).fixed(**{**base, **params, **own, "copy": self.copies})(subject)


@dataclass(kw_only=True, eq=False, repr=False)
class _FixedSource(_Fixed):
    """A change by a given case or sample of a source."""

    pool: int = field(init=False, default=POOL)
    fingerprint: str | None = None
    """The case or weights expected, 12 characters, as in a history; None for any."""


@dataclass(eq=False, repr=False)
class Synthesis(_FixedSource, SynthesisChange):
    """Replace a subject's image and label map by one synthetic pair, with its affine and HU.

    The other entries of the subject stay, and so do data types, where they can hold the values.

    In mode ``replace`` the pair is another case of the shape and spacing of its source, one slice
    thick, so follow it by ``Resample`` or ``CropOrPad`` where subjects must agree.  In the modes
    ``vary`` and ``redraw`` it is this case, slice by slice, on its own voxels; outside the model's
    field of view it stays as it is.  ``redraw`` leaves the label map alone.

    Raises:
        ConfigError: the subject's images do not say which to replace, or the mode does not suit
            the source or the subject.
        DataError: ``source`` cannot be used, or has other weights than ``fingerprint``.
    """

    drawn = ("index", "fingerprint")
    history = (
        *("source", "index", "mode", "image", "label", "strength", "smooth_mm"),
        *("seed", "device", "fingerprint"),
    )

    index: int
    """Which sample, or which draw of this case."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.index = int(self.index)


@dataclass(eq=False, repr=False)
class RandomSynthesis(_Random, SynthesisChange):
    """Replace a subject's image and label map by a synthetic pair, with probability ``p``.

    ``Synthesis`` says what is replaced and what stays.  To replace, the draw of the sample is
    uniform: over all of a synthesised folder, or over the first ``pool`` samples of a run.  Each
    process that draws from a run decodes each block of samples once, when first needed.

    Raises:
        ConfigError: an argument is out of range, or the mode needs a run.
        DataError: ``source`` is neither a run nor a synthesised folder.
    """

    fixed = Synthesis
    history = (
        *("source", "mode", "image", "label", "strength", "smooth_mm"),
        *("seed", "pool", "device"),
    )


@dataclass(eq=False, repr=False)
class _Mix(_FixedSource, MixChange):
    """Mix one given case of a source into a subject's image and label map.

    Raises:
        ConfigError: the subject's images do not say which to change, or the two do not fit.
        DataError: ``source`` cannot be used, or gives another case than ``fingerprint``.
    """

    index: int
    """Which case of the source."""
    draw: int
    """Random seed of everything else that is random."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.index, self.draw = int(self.index), int(self.draw)
        self.args_names = ["source", "index", "draw", "image", "label", "seed", "device"]
        self.args_names += ["fingerprint", "anchor", *self.own]


@dataclass(eq=False, repr=False)
class CutMix(_Mix, CutMixChange):
    """Put a box of another case in the place of this one's, image and label map alike."""


@dataclass(eq=False, repr=False)
class CarveMix(_Mix, CarveMixChange):
    """Put in the region around another case's lesion, of random extent, with its labels."""


@dataclass(eq=False, repr=False)
class CopyPaste(_Mix, CopyPasteChange):
    """Lay another case's labelled voxels over this one."""


@dataclass(eq=False, repr=False)
class _RandomMix(_Random, MixChange):
    """Mix a case of a source into a subject, with probability ``p``.

    Raises:
        ConfigError: an argument is out of range.
        DataError: ``source`` is none of these.
    """

    history = ("source", "image", "label", "seed", "pool", "device", "anchor")


@dataclass(eq=False, repr=False)
class RandomCutMix(_RandomMix, CutMixChange):
    """Mix by CutMix (Yun et al., ICCV 2019), with probability ``p``: a box of another case."""

    fixed = CutMix


@dataclass(eq=False, repr=False)
class RandomCarveMix(_RandomMix, CarveMixChange):
    """Mix by CarveMix (Zhang et al., MICCAI 2021), with probability ``p``: another's lesion."""

    fixed = CarveMix


@dataclass(eq=False, repr=False)
class RandomCopyPaste(_RandomMix, CopyPasteChange):
    """Mix by copy-paste (Ghiasi et al., CVPR 2021), with probability ``p``: labelled voxels."""

    fixed = CopyPaste


@dataclass(eq=False, repr=False)
class LabelContrast(_Fixed, ContrastChange):
    """Give every label and every class of the background a new mean intensity.

    Raises:
        ConfigError: an argument is out of range, or the subject's images do not say which.
    """

    drawn = ("draw",)
    history = ("draw", "image", "label", *ContrastChange.own)

    draw: int
    """Random seed of all that is random."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.draw = int(self.draw)


@dataclass(eq=False, repr=False)
class RandomLabelContrast(_Random, ContrastChange):
    """Give all tissues new intensities, with probability ``p``, after SynthSeg (2023).

    Raises:
        ConfigError: an argument is out of range.
    """

    fixed = LabelContrast


def _pick(
    subject: Any,
    image: str | None,
    label: str | None,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
) -> tuple[str, str | None]:
    images = subject.get_images_dict(intensity_only=False, include=include, exclude=exclude)
    scalars = [name for name, image in images.items() if isinstance(image, tio.ScalarImage)]
    maps = [name for name, image in images.items() if isinstance(image, tio.LabelMap)]
    return pick(scalars, maps, image, label)


def _read(subject: tio.Subject, image: str | None, label: str | None) -> Donor:
    return arrays(subject, *_pick(subject, image, label))


def arrays(subject: Any, image: str, label: str | None) -> Donor:
    """Read a subject's image and label map with the image's affine, not copied.

    Raises:
        ConfigError: the label map has several channels or another shape than the image.
    """
    values = subject[image].data.numpy()
    affine = np.asarray(subject[image].affine, np.float64)
    if label is None:
        return Donor(values, None, affine)
    ids = subject[label].data.numpy()
    expected = (1, *values.shape[1:])
    if ids.shape != expected:
        raise ConfigError(
            f"label map {label!r}: the image needs the shape {expected}, got {ids.shape}"
        )
    return Donor(values, ids[0], affine)


def _like(old: Any, array: npt.NDArray[Any], affine: Affine) -> Any:
    """Make an image of the class, type and extra keys of ``old`` from ``array`` (c, x, y, z).

    The type is the array's own where that of ``old`` cannot hold the values.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    kept = tensor.to(old.data.dtype)
    if torch.equal(kept.to(tensor.dtype), tensor):
        tensor = kept
    known = {"data", "affine", "type", "path", "stem"}
    extra = {key: value for key, value in old.items() if key not in known}
    kind = tio.LabelMap if isinstance(old, tio.LabelMap) else tio.ScalarImage
    return kind(tensor=tensor, affine=affine, **extra)


def _randint(below: int) -> int:
    """A random integer from 0 to below ``below``, from torch's global generator."""
    return int(torch.randint(below, (1,)))
