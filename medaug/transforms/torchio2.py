"""Transforms for torchio 2: ``make_params`` samples, ``apply_transform`` applies.

Parameters are plain JSON values that name the source, the case and the draw, and stand in a
subject's history; ``apply_transform`` with them gives the same result again.  In a batch every
element has its own.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torchio as tio

from medaug.core.errors import ConfigError
from medaug.transforms.mixtures import (
    CarveMixArguments,
    ContrastArguments,
    CopyPasteArguments,
    CutMixArguments,
    Mixture,
    change_contrast,
)
from medaug.transforms.pairs import POOL, open_pairs
from medaug.transforms.scan import isolated_rng, pick
from medaug.transforms.sources import SEEDS, Donor, Draw, MixArguments, mixed, name_source
from medaug.transforms.synthesis import SynthesisArguments, check_synthesis


@dataclass(kw_only=True, eq=False, repr=False)
class _OnCases(tio.Transform):
    """Changes an image and its label map, element by element, by parameters that are drawn."""

    image: str | None = None
    """Name of the scalar image; may be left out where a subject has only one."""
    label: str | None = None
    """Name of its label map; may be left out where a subject has only one or none."""
    copy: bool = True
    """Whether to leave the subject that is given as it is, and change a copy."""
    per_instance: bool = True
    """Whether every element of a batch is changed with its own probability."""
    include: list[str] | None = None
    """Names of the only images that are looked at; None for all."""
    exclude: list[str] | None = None
    """Names of images that are not looked at."""

    def begin(self, p: float) -> None:
        """Call torchio's constructor."""
        super().__init__(
            p=p,
            copy=self.copy,
            per_instance=self.per_instance,
            include=self.include,
            exclude=self.exclude,
        )

    @property
    def supports_per_instance_params(self) -> bool:
        """Every element of a batch has its own draw."""
        return True

    @abstractmethod
    def draw_parameters(self) -> dict[str, Any]:
        """The parameters of one element, JSON values."""

    @abstractmethod
    def change(self, mine: Donor, params: dict[str, Any]) -> Donor:
        """One element by its parameters; without a label map where that stays."""

    def make_params(self, batch: Any) -> dict[str, Any]:
        """Draw for every element of a batch; called by torchio."""
        n = self._resolve_n(batch)
        drawn = [self.draw_parameters() for _ in range(n or 1)]
        if n is None:
            return drawn[0]
        params = {key: [one[key] for one in drawn] for key in drawn[0]}
        self._tag_batched(params, batch, n, None, list(drawn[0]))
        return params

    def apply_transform(self, batch: Any, params: dict[str, Any]) -> Any:
        """Change every element; called by torchio."""
        images = self._get_images(batch)
        kinds = {name: entry._image_class for name, entry in images.items()}
        scalars = [name for name, kind in kinds.items() if issubclass(kind, tio.ScalarImage)]
        maps = [name for name, kind in kinds.items() if issubclass(kind, tio.LabelMap)]
        image, label = pick(scalars, maps, self.image, self.label)
        changed = [
            self._one(batch, i, image, label, _element(params, i)) for i in range(batch.batch_size)
        ]
        fresh = {image: _stacked(batch.images[image], [(c.image, c.affine) for c in changed])}
        if label is not None and all(c.label is not None for c in changed):
            ids = [(c.label[None], c.affine) for c in changed if c.label is not None]
            fresh[label] = _stacked(batch.images[label], ids)
        batch.images.update(fresh)
        return batch

    def _one(
        self, batch: Any, i: int, image: str, label: str | None, params: dict[str, Any]
    ) -> Donor:
        mine = _case(batch.images[image][i], None if label is None else batch.images[label][i])
        with isolated_rng():
            return self.change(mine, params)


@dataclass(eq=False, repr=False)
class RandomSynthesis(SynthesisArguments, _OnCases):
    """Replace a subject's image and label map by a synthetic pair, with probability ``p``.

    In mode ``replace`` the pair is another case of the shape and spacing of its source, one slice
    thick; in the modes ``vary`` and ``redraw`` it is this case, slice by slice, on its own voxels.

    Raises:
        ConfigError: an argument is out of range, or the mode needs a run.
        DataError: ``source`` is neither a run nor a synthesised folder.
    """

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

    def draw_parameters(self) -> dict[str, Any]:
        """The sample, its source and how it is put in."""
        source = str(self.source)
        with isolated_rng():
            fingerprint = open_pairs(source, self.device).fingerprint
        index = self.draw_index(source, self.pool, _randint)
        options = {field.name: getattr(self, field.name) for field in fields(SynthesisArguments)}
        return {"source": source, **options, "index": index, "fingerprint": fingerprint}

    def change(self, mine: Donor, params: dict[str, Any]) -> Donor:
        """The synthetic pair."""
        where = {name: params[name] for name in ("source", "index", "fingerprint")}
        options = SynthesisArguments(**{k: v for k, v in params.items() if k not in where})
        drawn = options.synthetic(mine, **where)
        if mine.label is not None and drawn.label is None:
            raise ConfigError(
                f"{where['source']}: draws no label maps, and the subject's would no longer match "
                "its image; exclude it to leave it as it is"
            )
        return drawn


@dataclass(eq=False, repr=False)
class _RandomMix(MixArguments, Mixture, _OnCases):
    """Mix a case of a source into a subject, with probability ``p``.

    The case is drawn uniformly: over all of a folder or sequence, or the first ``pool`` samples of
    a run.  Intensities are mixed as they are, so keep this before transforms that rescale them.

    Raises:
        ConfigError: an argument is out of range.
        DataError: ``source`` is none of these.
    """

    source: str | Path | Sequence[Any]
    """A run folder, a ``.safetensors`` file, a folder written by ``medaug synthesize``, a folder of
    images and labels as nnU-Net's, or a sequence of subjects."""
    p: float = 0.3
    """Probability of mixing."""

    def __post_init__(self) -> None:
        self.begin(self.p)
        self.check_mix()
        read = partial(_read, image=self.image, label=self.label)
        self.source, self.cases = name_source(self.source, read)

    def draw_parameters(self) -> dict[str, Any]:
        """The case, its source and how it is mixed in."""
        return {**vars(self.draw_case(str(self.source), _randint)), "own": self.own()}

    def change(self, mine: Donor, params: dict[str, Any]) -> Donor:
        """The mixed pair."""
        drawn = Draw(**{k: v for k, v in params.items() if k != "own"})
        scan = mixed(mine, partial(type(self).function, **params["own"]), drawn)
        return Donor(scan.image, scan.label, mine.affine)


@dataclass(eq=False, repr=False)
class RandomCutMix(CutMixArguments, _RandomMix):
    """Mix by CutMix (Yun et al., ICCV 2019), with probability ``p``: a box of another case."""


@dataclass(eq=False, repr=False)
class RandomCarveMix(CarveMixArguments, _RandomMix):
    """Mix by CarveMix (Zhang et al., MICCAI 2021), with probability ``p``: another's lesion."""


@dataclass(eq=False, repr=False)
class RandomCopyPaste(CopyPasteArguments, _RandomMix):
    """Mix by copy-paste (Ghiasi et al., CVPR 2021), with probability ``p``: labelled voxels."""


@dataclass(eq=False, repr=False)
class RandomLabelContrast(ContrastArguments, _OnCases):
    """Give all tissues new intensities, with probability ``p``, after SynthSeg (2023).

    Raises:
        ConfigError: an argument is out of range.
    """

    p: float = 0.3
    """Probability of the change."""

    def __post_init__(self) -> None:
        self.begin(self.p)
        self.contrast()

    def draw_parameters(self) -> dict[str, Any]:
        """The seed and the ranges."""
        own = {k: list(v) if isinstance(v, tuple) else v for k, v in self.contrast().items()}
        return {"draw": _randint(SEEDS), "own": own}

    def change(self, mine: Donor, params: dict[str, Any]) -> Donor:
        """The changed image."""
        return Donor(change_contrast(mine, params["draw"], params["own"]).image, None, mine.affine)


def _randint(below: int) -> int:
    """A random integer from 0 to below ``below``, from torch's global generator."""
    return int(torch.randint(below, (1,)))


def _element(params: dict[str, Any], i: int) -> dict[str, Any]:
    """The parameters of element ``i``, without torchio's bookkeeping."""
    batched = params.get("_batched_keys", ())
    plain = {key: value for key, value in params.items() if not key.startswith("_")}
    return {key: value[i] if key in batched else value for key, value in plain.items()}


def _case(image: Any, label: Any) -> Donor:
    values = image.data.cpu().numpy()
    affine = image.affine.data.cpu().numpy()
    if label is None:
        return Donor(values, None, affine)
    ids, expected = label.data.cpu().numpy(), (1, *values.shape[1:])
    if ids.shape != expected:
        raise ConfigError(f"label map: the image needs the shape {expected}, got {ids.shape}")
    return Donor(values, ids[0], affine)


def _read(subject: Any, image: str | None, label: str | None) -> Donor:
    images = subject.images
    scalars = [name for name, entry in images.items() if isinstance(entry, tio.ScalarImage)]
    maps = [name for name, entry in images.items() if isinstance(entry, tio.LabelMap)]
    image, label = pick(scalars, maps, image, label)
    return _case(images[image], None if label is None else images[label])


def _stacked(old: Any, parts: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]) -> Any:
    """A batch of the class, type and device of ``old`` with other voxels and affines."""
    tensor = torch.stack([torch.from_numpy(np.ascontiguousarray(a)) for a, _ in parts])
    kept = tensor.to(old.data.dtype)
    if torch.equal(kept.to(tensor.dtype), tensor):
        tensor = kept
    affines = [tio.AffineMatrix(affine) for _, affine in parts]
    return tio.ImagesBatch(tensor.to(old.data.device), affines, image_class=old._image_class)
