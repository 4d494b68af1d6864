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
import torch
import torchio as tio
from torchio.transforms.augmentation import RandomTransform

from medaug.errors import ConfigError
from medaug.geometry import HU_RANGE, spacing
from medaug.seeds import derive
from medaug.transforms.calm import calm
from medaug.transforms.carvemix import carvemix
from medaug.transforms.contrast import Texture, check_contrast, randomise_contrast
from medaug.transforms.copypaste import copypaste
from medaug.transforms.cutmix import cutmix
from medaug.transforms.donors import (
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
from medaug.transforms.pairs import POOL
from medaug.transforms.scan import Scan
from medaug.transforms.subjects import arrays, like, pick

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
        with calm():
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
        with calm():
            donors = open_donors(self.source, self.device)
        indices = donors.indices(self.pool)
        index = indices[int(torch.randint(len(indices), (1,)))]
        draw = self._get_random_seed()
        with calm():
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
        with calm():
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
