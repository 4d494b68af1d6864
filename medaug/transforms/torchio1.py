"""torchio 1.x transforms: CutMix, CarveMix, copy-paste and contrast randomisation.

Each random transform samples parameters and hands them to its counterpart without ``Random`` in
its name, which a subject's history keeps and replays.  All draws come from torch's global
generator, as in torchio.
"""

from abc import abstractmethod
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torchio as tio
from torchio.transforms.augmentation import RandomTransform

from medaug.core.errors import ConfigError
from medaug.core.geometry import HU_RANGE, spacing
from medaug.core.seeds import derive
from medaug.core.types import Affine
from medaug.transforms import scan
from medaug.transforms.carvemix import carvemix
from medaug.transforms.contrast import Texture, check_contrast, randomise_contrast
from medaug.transforms.copypaste import copypaste
from medaug.transforms.cutmix import cutmix
from medaug.transforms.pairs import POOL, open_pairs
from medaug.transforms.scan import Scan, isolated_rng
from medaug.transforms.sources import (
    Anchor,
    Cases,
    Donor,
    Draw,
    Mixing,
    check_anchor,
    check_donors,
    mixed,
    open_donors,
)
from medaug.transforms.synthesis import SMOOTH_MM, STRENGTH, Mode, Recipe, synthetic


def pick(
    subject: Any,
    image: str | None,
    label: str | None,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
) -> tuple[str, str | None]:
    """The names of the scalar image to change and of its label map, if there is one.

    Raises:
        ConfigError: the subject's images do not say which.
    """
    images = subject.get_images_dict(intensity_only=False, include=include, exclude=exclude)
    scalars = [name for name, image in images.items() if isinstance(image, tio.ScalarImage)]
    maps = [name for name, image in images.items() if isinstance(image, tio.LabelMap)]
    return scan.pick(scalars, maps, image, label)


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


def like(old: Any, array: npt.NDArray[Any], affine: Affine) -> Any:
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


Source = str | Path | Sequence[tio.Subject]


_DRAWN = ["source", "index", "draw", "image", "label", "seed", "device", "fingerprint", "anchor"]


class _Mix(tio.Transform):
    """One case of a source mixed into a subject's image and label map; see its subclasses.

    Args:
        source: a run folder, a ``.safetensors`` file, a folder written by ``medaug synthesize``, a
            folder of images and labels as nnU-Net's, or a sequence of subjects.
        index: which case.
        draw: the seed of everything else that is random.
        image: name of the scalar image; may be left out where there is only one.
        label: name of its label map; may be left out where there is only one or none.
        seed: which family of samples a run draws from.
        device: where a run's model is computed.
        fingerprint: of the case or weights expected, as in a history; None for any.
        anchor: what is laid on what: ``middle``, the middles of the two cases, or ``label``, the
            middles of their labels, where both have any.
        **kwargs: see ``torchio.Transform``.

    Raises:
        ConfigError: the subject's images do not say which to change, or the two do not fit.
        DataError: ``source`` cannot be used, or gives another case than ``fingerprint``.
    """

    def __init__(
        self,
        source: Source,
        index: int,
        draw: int,
        *,
        image: str | None = None,
        label: str | None = None,
        seed: int = 0,
        device: str = "cpu",
        fingerprint: str | None = None,
        anchor: Anchor = "middle",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_anchor(anchor)
        self.anchor = anchor
        self.source, self.cases = _named(source, image, label)
        self.index, self.draw, self.image, self.label = int(index), int(draw), image, label
        self.seed, self.device, self.fingerprint = seed, device, fingerprint
        self.args_names = [*_DRAWN, *self.options()]

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """The rival's own arguments by name."""

    @abstractmethod
    def mixing(self) -> Mixing:
        """The rival as a function of two scans and a generator."""

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Mix the case in; called by torchio."""
        image, label = pick(subject, self.image, self.label, self.include, self.exclude)
        mine = arrays(subject, image, label)
        drawn = Draw(
            self.source,
            self.index,
            self.draw,
            self.seed,
            self.device,
            self.fingerprint,
            self.anchor,
        )
        with isolated_rng():
            result = mixed(mine, self.mixing(), drawn)
        return _put_back(subject, image, label, result)


class CutMix(_Mix):
    """A box of another case in the place of this one's, image and label map alike.

    Args:
        *args: ``source``, ``index`` and ``draw``.
        alpha: the share of voxels that stays is drawn from Beta(alpha, alpha).
        **kwargs: those of all mixing transforms, and ``torchio.Transform``'s.
    """

    def __init__(self, *args: Any, alpha: float = 1.0, **kwargs: Any) -> None:
        self.alpha = alpha
        super().__init__(*args, **kwargs)

    def options(self) -> dict[str, Any]:
        """See ``_Mix``."""
        return {"alpha": self.alpha}

    def mixing(self) -> Mixing:
        """See ``_Mix``."""
        return partial(cutmix, **self.options())


class CarveMix(_Mix):
    """The region around another case's lesion, of random extent, image and label map alike.

    Args:
        *args: ``source``, ``index`` and ``draw``.
        labels: ids that are the lesion; None for all but 0.
        **kwargs: those of all mixing transforms, and ``torchio.Transform``'s.
    """

    def __init__(self, *args: Any, labels: Collection[int] | None = None, **kwargs: Any) -> None:
        self.labels = _ids(labels)
        super().__init__(*args, **kwargs)

    def options(self) -> dict[str, Any]:
        """See ``_Mix``."""
        return {"labels": self.labels}

    def mixing(self) -> Mixing:
        """See ``_Mix``."""
        return partial(carvemix, **self.options())


class CopyPaste(_Mix):
    """Another case's labelled voxels laid over this one.

    Args:
        *args: ``source``, ``index`` and ``draw``.
        labels: ids to copy; None for all but 0.
        shift_mm: largest shift along each axis.
        **kwargs: those of all mixing transforms, and ``torchio.Transform``'s.
    """

    def __init__(
        self,
        *args: Any,
        labels: Collection[int] | None = None,
        shift_mm: float = 0.0,
        **kwargs: Any,
    ) -> None:
        self.labels, self.shift_mm = _ids(labels), shift_mm
        super().__init__(*args, **kwargs)

    def options(self) -> dict[str, Any]:
        """See ``_Mix``."""
        return {"labels": self.labels, "shift_mm": self.shift_mm}

    def mixing(self) -> Mixing:
        """See ``_Mix``."""
        return partial(copypaste, **self.options())


class _RandomMix(RandomTransform):
    """Now and then, a case of a source mixed into a subject; see its subclasses.

    The case is drawn uniformly: over all of a folder or sequence, or the first ``pool`` samples of
    a run.  Intensities are mixed as they are, so keep this before transforms that rescale them.

    Args:
        source: a run folder, a ``.safetensors`` file, a folder written by ``medaug synthesize``, a
            folder of images and labels as nnU-Net's, or a sequence of subjects.
        p: probability of mixing.
        image: name of the scalar image; may be left out where there is only one.
        label: name of its label map; may be left out where there is only one or none.
        seed: which family of samples a run draws from.
        pool: how many samples of a run take part.
        device: where a run's model is computed; with worker processes, ``cpu``.
        anchor: what is laid on what: ``middle``, the middles of the two cases, or ``label``, the
            middles of their labels, where both have any.
        **kwargs: the rival's own arguments, and those of ``torchio.Transform``.

    Raises:
        ConfigError: an argument is out of range.
        DataError: ``source`` is none of these.
    """

    fixed: type[_Mix]

    def __init__(
        self,
        source: Source,
        p: float = 0.3,
        *,
        image: str | None = None,
        label: str | None = None,
        seed: int = 0,
        pool: int = POOL,
        device: str = "cpu",
        anchor: Anchor = "middle",
        **kwargs: Any,
    ) -> None:
        if pool < 1:
            raise ConfigError(f"pool must be at least 1, got {pool}")
        trial = self.fixed(source, 0, 0, image=image, label=label, anchor=anchor, **kwargs)
        self.own = trial.options()
        base = {k: v for k, v in kwargs.items() if k not in self.own}
        super().__init__(p=p, **(base | {"copy": False}))  # its counterpart makes the copy
        self.copies = kwargs.get("copy", True)
        self.source, self.cases, self.image, self.label = trial.source, trial.cases, image, label
        self.seed, self.pool, self.device, self.anchor = seed, pool, device, anchor
        self.args_names = ["source", "image", "label", "seed", "pool", "device", "anchor"]

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Draw a case and mix it in; called by torchio."""
        with isolated_rng():
            donors = open_donors(self.source, self.device)
        indices = donors.indices(self.pool)
        index = indices[int(torch.randint(len(indices), (1,)))]
        draw = self._get_random_seed()
        with isolated_rng():
            fingerprint = donors.fingerprint(index, self.seed)
        fixed = self.fixed(
            self.source,
            index,
            draw,
            image=self.image,
            label=self.label,
            seed=self.seed,
            device=self.device,
            fingerprint=fingerprint,
            anchor=self.anchor,
            **self.own,
            **(self._get_base_args() | {"copy": self.copies}),
        )
        return fixed(subject)


class RandomCutMix(_RandomMix):
    """Now and then CutMix (Yun et al. 2019): a box of another case; ``alpha`` as in ``CutMix``."""

    fixed = CutMix


class RandomCarveMix(_RandomMix):
    """Now and then CarveMix (Zhang et al. 2021): the region around another case's lesion."""

    fixed = CarveMix


class RandomCopyPaste(_RandomMix):
    """Now and then copy-paste (Ghiasi et al. 2021): another case's labelled voxels on top."""

    fixed = CopyPaste


class LabelContrast(tio.Transform):
    """A new mean intensity for every label and every class of the background.

    Args:
        draw: the seed of all that is random.
        image: name of the scalar image; may be left out where there is only one.
        label: name of its label map; may be left out where there is only one or none.
        clusters: into how many classes of intensity to divide what no label covers.
        means: range of the new means; None for that of the image's own intensities.
        gains: range of the factor on the texture, where that is kept.
        deviations: range of the standard deviation, where the texture is Gaussian.
        texture: ``kept`` or ``gaussian``.
        strength: 0 for no change, 1 for what was drawn.
        limits: lowest and highest intensity of the result; HU unless given.
        **kwargs: see ``torchio.Transform``.

    Raises:
        ConfigError: an argument is out of range, or the subject's images do not say which.
    """

    def __init__(
        self,
        draw: int,
        *,
        image: str | None = None,
        label: str | None = None,
        clusters: int = 4,
        means: tuple[float, float] | None = None,
        gains: tuple[float, float] = (0.5, 1.5),
        deviations: tuple[float, float] = (0.0, 30.0),
        texture: Texture = "kept",
        strength: float = 1.0,
        limits: tuple[float, float] = HU_RANGE,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_contrast(clusters, means, gains, deviations, texture, strength, limits)
        self.draw, self.image, self.label, self.clusters = int(draw), image, label, clusters
        self.means, self.gains, self.deviations = means, gains, deviations
        self.texture, self.strength, self.limits = texture, strength, limits
        self.args_names = ["draw", "image", "label", *_CONTRAST]

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Change the image; called by torchio."""
        image, label = pick(subject, self.image, self.label, self.include, self.exclude)
        mine = arrays(subject, image, label)
        options = {name: getattr(self, name) for name in _CONTRAST}
        rng = np.random.default_rng(derive(self.draw, "contrast"))
        with isolated_rng():
            scan = Scan(mine.image, mine.label, spacing(mine.affine))
            result = randomise_contrast(scan, rng, **options)
        return _put_back(subject, image, None, result)


_CONTRAST = ["clusters", "means", "gains", "deviations", "texture", "strength", "limits"]


class RandomLabelContrast(RandomTransform):
    """Now and then new intensities for all tissues, after SynthSeg (Billot et al. 2023).

    Args:
        p: probability of the change.
        **kwargs: those of ``LabelContrast`` but ``draw``, and those of ``torchio.Transform``.

    Raises:
        ConfigError: an argument is out of range.
    """

    def __init__(self, p: float = 0.3, **kwargs: Any) -> None:
        trial = LabelContrast(0, **kwargs)
        self.own = {name: getattr(trial, name) for name in ["image", "label", *_CONTRAST]}
        base = {k: v for k, v in kwargs.items() if k not in self.own}
        super().__init__(p=p, **(base | {"copy": False}))  # its counterpart makes the copy
        self.copies = kwargs.get("copy", True)

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Draw intensities and apply them; called by torchio."""
        base = self._get_base_args() | {"copy": self.copies}
        fixed = LabelContrast(self._get_random_seed(), **self.own, **base)
        return fixed(subject)


def _named(source: Source, image: str | None, label: str | None) -> tuple[str, Cases | None]:
    """The source's name, and what keeps it alive where it is a sequence."""
    if isinstance(source, str | Path):
        check_donors(str(source))
        return str(source), None
    cases = Cases(source, partial(_read, image=image, label=label))
    return cases.name, cases


def _read(subject: tio.Subject, image: str | None, label: str | None) -> Donor:
    return arrays(subject, *pick(subject, image, label))


def _ids(labels: Collection[int] | None) -> list[int] | None:
    return None if labels is None else sorted(int(number) for number in labels)


def _put_back(subject: tio.Subject, image: str, label: str | None, result: Scan) -> tio.Subject:
    affine = np.asarray(subject[image].affine)
    fresh = {image: like(subject[image], result.image, affine)}
    if label is not None and result.label is not None:
        old = subject[label]
        fresh[label] = like(old, result.label[None], np.asarray(old.affine))
    for name, new in fresh.items():
        subject.add_image(new, name)
    return subject


class Synthesis(tio.Transform):
    """Replace a subject's image and label map by one synthetic pair, with its affine and HU.

    The other entries of the subject stay, and so do data types, where they can hold the values.

    In mode ``replace`` the pair is another case of the shape and spacing of its source, one slice
    thick, so follow it by ``Resample`` or ``CropOrPad`` where subjects must agree.  In the modes
    ``vary`` and ``redraw`` it is this case, slice by slice, on its own voxels; outside the model's
    field of view it stays as it is.  ``redraw`` leaves the label map alone.

    Args:
        source: a run folder, a ``.safetensors`` file, or, to replace, a folder written by
            ``medaug synthesize``.
        index: which sample, or which draw of this case.
        mode: ``replace``, ``vary`` (the run needs an encoder) or ``redraw`` (a run in layout mode).
        image: name of the scalar image to replace; may be left out where there is only one.
        label: name of the label map to replace; may be left out where there is only one or none.
        strength: how far ``vary`` goes, above 0, little, to 1, all that the prior allows.
        smooth_mm: over which length along z the slices' draws resemble each other.
        seed: which family of samples a run draws from; without meaning for a folder.
        device: where a run's model is computed.
        fingerprint: the weights expected, as in a history; None for any.
        **kwargs: see ``torchio.Transform``.

    Raises:
        ConfigError: the subject's images do not say which to replace, or the mode does not suit
            the source or the subject.
        DataError: ``source`` cannot be used, or has other weights than ``fingerprint``.
    """

    def __init__(
        self,
        source: str | Path,
        index: int,
        *,
        mode: Mode = "replace",
        image: str | None = None,
        label: str | None = None,
        strength: float = STRENGTH,
        smooth_mm: float = SMOOTH_MM,
        seed: int = 0,
        device: str = "cpu",
        fingerprint: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source, self.index, self.mode = str(source), int(index), mode
        self.image, self.label = image, label
        self.strength, self.smooth_mm = strength, smooth_mm
        self.seed, self.device, self.fingerprint = seed, device, fingerprint
        self.recipe = Recipe(self.source, mode, seed, device, strength, smooth_mm)
        self.recipe.check()
        self.args_names = ["source", "index", "mode", "image", "label", "strength", "smooth_mm"]
        self.args_names += ["seed", "device", "fingerprint"]

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Put the pair in place; called by torchio."""
        image, label = pick(subject, self.image, self.label, self.include, self.exclude)
        with isolated_rng():
            mine = arrays(subject, image, None if self.mode == "replace" else label)
            drawn = synthetic(mine, self.recipe, self.index, self.fingerprint)
        if label is not None and drawn.label is None:
            raise ConfigError(
                f"{self.source}: draws no label maps, and the subject's {label!r} would no longer "
                f"match its image; exclude=[{label!r}] leaves it as it is"
            )
        fresh = {image: like(subject[image], drawn.image, drawn.affine)}
        if label is not None and drawn.label is not None:
            fresh[label] = like(subject[label], drawn.label[None], drawn.affine)
        for name, new in fresh.items():
            subject.add_image(new, name)
        return subject


class RandomSynthesis(RandomTransform):
    """Now and then, a synthetic pair in the place of a subject's image and label map.

    See ``Synthesis`` for what is replaced and what stays.  To replace, the draw of the sample is
    uniform: over all of a synthesised folder, or over the first ``pool`` samples of a run.  Each
    process that draws from a run decodes each block of samples once, when first needed.

    Args:
        source: a run folder, a ``.safetensors`` file, or, to replace, a folder written by
            ``medaug synthesize``.
        p: probability of replacing.
        mode: ``replace``, ``vary`` (the run needs an encoder) or ``redraw`` (a run in layout mode).
        image: name of the scalar image to replace; may be left out where there is only one.
        label: name of the label map to replace; may be left out where there is only one or none.
        strength: how far ``vary`` goes, above 0, little, to 1, all that the prior allows.
        smooth_mm: over which length along z the slices' draws resemble each other.
        seed: which family of samples a run draws from; without meaning for a folder.
        pool: how many samples of a run take part; more variety for more computing.
        device: where a run's model is computed; with worker processes, ``cpu``.
        **kwargs: see ``torchio.Transform``.

    Raises:
        ConfigError: an argument is out of range, or the mode needs a run.
        DataError: ``source`` is neither a run nor a synthesised folder.
    """

    def __init__(
        self,
        source: str | Path,
        p: float = 0.3,
        *,
        mode: Mode = "replace",
        image: str | None = None,
        label: str | None = None,
        strength: float = STRENGTH,
        smooth_mm: float = SMOOTH_MM,
        seed: int = 0,
        pool: int = POOL,
        device: str = "cpu",
        **kwargs: Any,
    ) -> None:
        super().__init__(p=p, **(kwargs | {"copy": False}))  # `Synthesis` makes the copy
        self.copies = kwargs.get("copy", True)
        if pool < 1:
            raise ConfigError(f"pool must be at least 1, got {pool}")
        self.source, self.mode, self.image, self.label = str(source), mode, image, label
        self.strength, self.smooth_mm = strength, smooth_mm
        self.seed, self.pool, self.device = seed, pool, device
        self.recipe = Recipe(self.source, mode, seed, device, strength, smooth_mm)
        self.recipe.check()
        self.args_names = ["source", "mode", "image", "label", "strength", "smooth_mm", "seed"]
        self.args_names += ["pool", "device"]

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Draw a sample and put it in place; called by torchio."""
        with isolated_rng():
            pairs = open_pairs(self.source, self.device)
        if self.mode == "replace":
            indices = pairs.indices(self.pool)
            index = indices[int(torch.randint(len(indices), (1,)))]
        else:
            index = self._get_random_seed()
        fixed = Synthesis(
            self.source,
            index,
            mode=self.mode,
            image=self.image,
            label=self.label,
            strength=self.strength,
            smooth_mm=self.smooth_mm,
            seed=self.seed,
            device=self.device,
            fingerprint=pairs.fingerprint,
            **(self._get_base_args() | {"copy": self.copies}),
        )
        return fixed(subject)
