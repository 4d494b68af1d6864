"""Transforms for torchio 2: ``make_params`` draws, ``apply_transform`` applies.

Parameters are plain JSON values that name the source, the case and the draw, and stand in a
subject's history; ``apply_transform`` with them gives the same result again.  In a batch every
element has its own.
"""

from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torchio as tio

from medaug.core.errors import ConfigError
from medaug.transforms.changes import (
    SEEDS,
    CarveMixChange,
    Change,
    ContrastChange,
    CopyPasteChange,
    CutMixChange,
    isolated_rng,
    pick,
)
from medaug.transforms.sources import Donor
from medaug.transforms.synthesis import SynthesisChange


@dataclass(eq=False, repr=False)
class _Random(Change, tio.Transform):
    """Changes an image and its label map, element by element, by parameters that are drawn."""

    p: float = 0.3
    """Probability of the change."""
    _: KW_ONLY
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

    def __post_init__(self) -> None:
        tio.Transform.__init__(
            self,
            p=self.p,
            copy=self.copy,
            per_instance=self.per_instance,
            include=self.include,
            exclude=self.exclude,
        )
        self._check(partial(_read, image=self.image, label=self.label))

    @property
    def supports_per_instance_params(self) -> bool:
        """Every element of a batch has its own draw."""
        return True

    def _randint(self, below: int) -> int:
        """A random integer from 0 to below ``below``, from torch's global generator."""
        return int(torch.randint(below, (1,)))

    def make_params(self, batch: Any) -> dict[str, Any]:
        """Draw for every element of a batch; called by torchio."""
        n = self._resolve_n(batch)
        drawn = [_plain(self._sample(self._randint)) for _ in range(n or 1)]
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
            changed = self._change(mine, params)
        if mine.label is not None and changed.label is None and not self.keeps_label:
            raise ConfigError(
                f"{params['source']}: draws no label maps, and the subject's would no longer match "
                "its image; exclude it to leave it as it is"
            )
        return changed


@dataclass(eq=False, repr=False)
class RandomSynthesis(_Random, SynthesisChange):
    """Replace a subject's image and label map by a synthetic pair, with probability ``p``.

    In mode ``replace`` the pair is another case of the shape and spacing of its source, one slice
    thick; in the modes ``vary`` and ``redraw`` it is this case, slice by slice, on its own voxels.

    Raises:
        ConfigError: an argument is out of range, or the mode needs a run.
        DataError: ``source`` is neither a run nor a synthesised folder.
    """

    def _randint(self, below: int) -> int:
        """A random integer from 0 to below ``below``: one seed, reduced."""
        return super()._randint(SEEDS) % below


@dataclass(eq=False, repr=False)
class RandomCutMix(_Random, CutMixChange):
    """Mix by CutMix (Yun et al., ICCV 2019), with probability ``p``: a box of another case."""


@dataclass(eq=False, repr=False)
class RandomCarveMix(_Random, CarveMixChange):
    """Mix by CarveMix (Zhang et al., MICCAI 2021), with probability ``p``: another's lesion."""


@dataclass(eq=False, repr=False)
class RandomCopyPaste(_Random, CopyPasteChange):
    """Mix by copy-paste (Ghiasi et al., CVPR 2021), with probability ``p``: labelled voxels."""


@dataclass(eq=False, repr=False)
class RandomLabelContrast(_Random, ContrastChange):
    """Give all tissues new intensities, with probability ``p``, after SynthSeg (2023).

    Raises:
        ConfigError: an argument is out of range.
    """


def _plain(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters as JSON has them: tuples as lists."""
    if "own" not in params:
        return params
    own = {k: list(v) if isinstance(v, tuple) else v for k, v in params["own"].items()}
    return {**params, "own": own}


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
