"""Transforms for torchio 1.

Each random transform samples parameters and hands them to its counterpart without ``Random`` in
its name, which a subject's history keeps and replays.  All draws come from torch's global
generator, as in torchio.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
import torchio as tio
from torchio.transforms.augmentation import RandomTransform

from medaug.core.errors import ConfigError
from medaug.core.types import Affine
from medaug.transforms.mixtures import (
    CarveMixArguments,
    ContrastArguments,
    CopyPasteArguments,
    CutMixArguments,
    Mixture,
    change_contrast,
)
from medaug.transforms.pairs import POOL, open_pairs
from medaug.transforms.scan import Scan, isolated_rng, pick
from medaug.transforms.sources import (
    SEEDS,
    Anchor,
    Donor,
    Draw,
    MixArguments,
    check_anchor,
    mixed,
    name_source,
)
from medaug.transforms.synthesis import SynthesisArguments, check_synthesis

Source = str | Path | Sequence[tio.Subject]


@dataclass(kw_only=True, eq=False, repr=False)
class _Case(tio.Transform):
    """Changes one scalar image of a subject, and its label map."""

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

    def start(self, p: float, copy: bool) -> None:
        """Call torchio's constructor."""
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

    def pick(self, subject: tio.Subject) -> tuple[str, str | None]:
        """The names of the scalar image to change and of its label map, if there is one.

        Raises:
            ConfigError: the subject's images do not say which.
        """
        return _pick(subject, self.image, self.label, self.include, self.exclude)


@dataclass(kw_only=True, eq=False, repr=False)
class _Fixed(_Case):
    """A change whose parameters are given: what a history keeps."""

    p: float = 1.0
    """Probability of the change."""

    def __post_init__(self) -> None:
        self.start(self.p, self.copy)


@dataclass(eq=False, repr=False)
class _Random(_Case, RandomTransform):
    """Draws the parameters of its counterpart and applies that."""

    fixed: ClassVar[type[_Fixed]]

    def begin(self, p: float) -> None:
        """Call torchio's constructor; the counterpart makes the copy."""
        self.copies = self.copy
        self.start(p, copy=False)

    def apply_drawn(self, subject: tio.Subject, **drawn: Any) -> tio.Subject:
        """Apply the counterpart with the parameters that were drawn and this one's arguments."""
        taken = {field.name for field in fields(self.fixed)} - {"p", *drawn}
        shared = {name: getattr(self, name) for name in taken if hasattr(self, name)}
        return self.fixed(**{**shared, **drawn, "copy": self.copies})(subject)


@dataclass(eq=False, repr=False)
class Synthesis(SynthesisArguments, _Fixed):
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

    source: str | Path
    """A run folder, a ``.safetensors`` file, or, to replace, a folder written by
    ``medaug synthesize``."""
    index: int
    """Which sample, or which draw of this case."""
    _: KW_ONLY
    fingerprint: str | None = None
    """The weights expected, 12 characters, as in a history; None for any."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.source, self.index = check_synthesis(self, self.source, POOL), int(self.index)
        self.args_names = ["source", "index", "mode", "image", "label", "strength", "smooth_mm"]
        self.args_names += ["seed", "device", "fingerprint"]

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Put the pair in place; called by torchio."""
        image, label = self.pick(subject)
        with isolated_rng():
            mine = arrays(subject, image, None if self.mode == "replace" else label)
            drawn = self.synthetic(mine, str(self.source), self.index, self.fingerprint)
        if label is not None and drawn.label is None:
            raise ConfigError(
                f"{self.source}: draws no label maps, and the subject's {label!r} would no longer "
                f"match its image; exclude=[{label!r}] leaves it as it is"
            )
        return _put_back(subject, image, label, drawn, drawn.affine)


@dataclass(eq=False, repr=False)
class RandomSynthesis(SynthesisArguments, _Random):
    """Replace a subject's image and label map by a synthetic pair, with probability ``p``.

    ``Synthesis`` says what is replaced and what stays.  To replace, the draw of the sample is
    uniform: over all of a synthesised folder, or over the first ``pool`` samples of a run.  Each
    process that draws from a run decodes each block of samples once, when first needed.

    Raises:
        ConfigError: an argument is out of range, or the mode needs a run.
        DataError: ``source`` is neither a run nor a synthesised folder.
    """

    fixed = Synthesis

    source: str | Path
    """A run folder, a ``.safetensors`` file, or, to replace, a folder written by
    ``medaug synthesize``."""
    p: float = 0.3
    """Probability of replacing."""
    _: KW_ONLY
    pool: int = POOL
    """How many samples of a run take part; more variety for more computing."""

    def __post_init__(self) -> None:
        self.begin(self.p)
        self.source = check_synthesis(self, self.source, self.pool)
        self.args_names = ["source", "mode", "image", "label", "strength", "smooth_mm", "seed"]
        self.args_names += ["pool", "device"]

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Draw a sample and put it in place; called by torchio."""
        source = str(self.source)
        with isolated_rng():
            fingerprint = open_pairs(source, self.device).fingerprint
        index = self.draw_index(source, self.pool, _randint)
        return self.apply_drawn(subject, index=index, fingerprint=fingerprint)


@dataclass(eq=False, repr=False)
class _Mix(Mixture, _Fixed):
    """One case of a source mixed into a subject's image and label map.

    Raises:
        ConfigError: the subject's images do not say which to change, or the two do not fit.
        DataError: ``source`` cannot be used, or gives another case than ``fingerprint``.
    """

    source: Source
    """A run folder, a ``.safetensors`` file, a folder written by ``medaug synthesize``, a folder of
    images and labels as nnU-Net's, or a sequence of subjects."""
    index: int
    """Which case of the source."""
    draw: int
    """Random seed of everything else that is random."""
    _: KW_ONLY
    seed: int = 0
    """Random seed of a run's samples."""
    device: str = "cpu"
    """Where a run's model is computed."""
    fingerprint: str | None = None
    """The case or weights expected, 12 characters, as in a history; None for any."""
    anchor: Anchor = "middle"
    """What is laid on what: ``middle``, the middles of the two cases, or ``label``, the middles of
    their labels, where both have any."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_anchor(self.anchor)
        read = partial(_read, image=self.image, label=self.label)
        self.source, self.cases = name_source(self.source, read)
        self.index, self.draw = int(self.index), int(self.draw)
        for name, value in self.own().items():
            setattr(self, name, value)
        self.args_names = ["source", "index", "draw", "image", "label", "seed", "device"]
        self.args_names += ["fingerprint", "anchor", *self.names]

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Mix the case in; called by torchio."""
        image, label = self.pick(subject)
        mine = arrays(subject, image, label)
        drawn = Draw(**{field.name: getattr(self, field.name) for field in fields(Draw)})
        with isolated_rng():
            result = mixed(mine, self.mixing(), drawn)
        return _put_back(subject, image, label, result)


@dataclass(eq=False, repr=False)
class CutMix(CutMixArguments, _Mix):
    """Put a box of another case in the place of this one's, image and label map alike."""


@dataclass(eq=False, repr=False)
class CarveMix(CarveMixArguments, _Mix):
    """Put in the region around another case's lesion, of random extent, with its labels."""


@dataclass(eq=False, repr=False)
class CopyPaste(CopyPasteArguments, _Mix):
    """Lay another case's labelled voxels over this one."""


@dataclass(eq=False, repr=False)
class _RandomMix(MixArguments, Mixture, _Random):
    """Mix a case of a source into a subject, with probability ``p``.

    The case is drawn uniformly: over all of a folder or sequence, or the first ``pool`` samples of
    a run.  Intensities are mixed as they are, so keep this before transforms that rescale them.

    Raises:
        ConfigError: an argument is out of range.
        DataError: ``source`` is none of these.
    """

    source: Source
    """A run folder, a ``.safetensors`` file, a folder written by ``medaug synthesize``, a folder of
    images and labels as nnU-Net's, or a sequence of subjects."""
    p: float = 0.3
    """Probability of mixing."""

    def __post_init__(self) -> None:
        self.begin(self.p)
        self.check_mix()
        read = partial(_read, image=self.image, label=self.label)
        self.source, self.cases = name_source(self.source, read)
        self.args_names = ["source", "image", "label", "seed", "pool", "device", "anchor"]

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Draw a case and mix it in; called by torchio."""
        return self.apply_drawn(subject, **vars(self.draw_case(str(self.source), _randint)))


@dataclass(eq=False, repr=False)
class RandomCutMix(CutMixArguments, _RandomMix):
    """Mix by CutMix (Yun et al., ICCV 2019), with probability ``p``: a box of another case."""

    fixed = CutMix


@dataclass(eq=False, repr=False)
class RandomCarveMix(CarveMixArguments, _RandomMix):
    """Mix by CarveMix (Zhang et al., MICCAI 2021), with probability ``p``: another's lesion."""

    fixed = CarveMix


@dataclass(eq=False, repr=False)
class RandomCopyPaste(CopyPasteArguments, _RandomMix):
    """Mix by copy-paste (Ghiasi et al., CVPR 2021), with probability ``p``: labelled voxels."""

    fixed = CopyPaste


@dataclass(eq=False, repr=False)
class LabelContrast(ContrastArguments, _Fixed):
    """Give every label and every class of the background a new mean intensity.

    Raises:
        ConfigError: an argument is out of range, or the subject's images do not say which.
    """

    draw: int
    """Random seed of all that is random."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.draw = int(self.draw)
        self.args_names = ["draw", "image", "label", *self.contrast()]

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Change the image; called by torchio."""
        image, label = self.pick(subject)
        mine = arrays(subject, image, label)
        with isolated_rng():
            result = change_contrast(mine, self.draw, self.contrast())
        return _put_back(subject, image, None, result)


@dataclass(eq=False, repr=False)
class RandomLabelContrast(ContrastArguments, _Random):
    """Give all tissues new intensities, with probability ``p``, after SynthSeg (2023).

    Raises:
        ConfigError: an argument is out of range.
    """

    fixed = LabelContrast

    p: float = 0.3
    """Probability of the change."""

    def __post_init__(self) -> None:
        self.begin(self.p)
        self.contrast()

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Draw intensities and apply them; called by torchio."""
        return self.apply_drawn(subject, draw=_randint(SEEDS))


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
    """A subject's image and label map with the image's affine, not copied.

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


def _put_back(
    subject: tio.Subject,
    image: str,
    label: str | None,
    changed: Scan | Donor,
    affine: Affine | None = None,
) -> tio.Subject:
    """Put new voxels in; without ``affine`` each image keeps its own."""
    fresh = {image: changed.image}
    if label is not None and changed.label is not None:
        fresh[label] = changed.label[None]
    for name, array in fresh.items():
        old = subject[name]
        subject.add_image(_like(old, array, old.affine if affine is None else affine), name)
    return subject


def _like(old: Any, array: npt.NDArray[Any], affine: Affine) -> Any:
    """An image of the class, type and extra keys of ``old`` holding ``array`` (c, x, y, z).

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
