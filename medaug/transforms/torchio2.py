"""The transforms in torchio 2's form: ``make_params`` samples, ``apply_transform`` applies.

Parameters are plain JSON values that name the source, the case and the draw, and stand in a
subject's history; ``apply_transform`` with them gives the same result again.  In a batch every
element has its own.
"""

from abc import abstractmethod
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torchio as tio

from medaug.core.errors import ConfigError
from medaug.core.geometry import HU_RANGE, spacing
from medaug.core.seeds import derive
from medaug.transforms.carvemix import carvemix
from medaug.transforms.contrast import Texture, check_contrast, randomise_contrast
from medaug.transforms.copypaste import copypaste
from medaug.transforms.cutmix import cutmix
from medaug.transforms.pairs import POOL, open_pairs
from medaug.transforms.scan import Scan, isolated_rng, pick
from medaug.transforms.sources import (
    Anchor,
    Cases,
    Donor,
    Draw,
    check_anchor,
    check_donors,
    mixed,
    open_donors,
)
from medaug.transforms.synthesis import SMOOTH_MM, STRENGTH, Mode, Recipe, synthetic

SEEDS = 2**31


class _OnCases(tio.Transform):
    """Changes an image and its label map, element by element, by parameters that are drawn.

    Args:
        p: probability of the change.
        image: name of the scalar image; may be left out where there is only one.
        label: name of its label map; may be left out where there is only one or none.
        **kwargs: see ``torchio.Transform``.
    """

    def __init__(self, p: float, image: str | None, label: str | None, **kwargs: Any) -> None:
        super().__init__(p=p, **kwargs)
        self.image, self.label = image, label

    @property
    def supports_per_instance_params(self) -> bool:
        """Every element of a batch has its own draw."""
        return True

    @abstractmethod
    def draw(self) -> dict[str, Any]:
        """The parameters of one element, JSON values."""

    @abstractmethod
    def change(self, mine: Donor, params: dict[str, Any]) -> Donor:
        """One element by its parameters; without a label map where that stays."""

    def make_params(self, batch: Any) -> dict[str, Any]:
        """Draw for every element of a batch; called by torchio."""
        n = self._resolve_n(batch)
        drawn = [self.draw() for _ in range(n or 1)]
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


class RandomSynthesis(_OnCases):
    """Now and then, a synthetic pair in the place of a subject's image and label map.

    The form for torchio 2 of the transform that `medaug.transforms.torchio1` describes, with the
    same arguments.
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
        super().__init__(p, image, label, **kwargs)
        if pool < 1:
            raise ConfigError(f"pool must be at least 1, got {pool}")
        self.source, self.mode, self.pool = str(source), mode, pool
        self.strength, self.smooth_mm, self.seed, self.device = strength, smooth_mm, seed, device
        self.recipe().check()

    def recipe(self) -> Recipe:
        """What of which source."""
        return Recipe(self.source, self.mode, self.seed, self.device, self.strength, self.smooth_mm)

    def draw(self) -> dict[str, Any]:
        """See ``_OnCases``."""
        with isolated_rng():
            pairs = open_pairs(self.source, self.device)
        index = _integer(SEEDS)
        if self.mode == "replace":
            indices = pairs.indices(self.pool)
            index = int(indices[index % len(indices)])
        names = ("source", "mode", "strength", "smooth_mm", "seed", "device")
        told = {name: getattr(self, name) for name in names}
        return told | {"index": index, "fingerprint": pairs.fingerprint}

    def change(self, mine: Donor, params: dict[str, Any]) -> Donor:
        """See ``_OnCases``."""
        recipe = Recipe(**{k: v for k, v in params.items() if k not in ("index", "fingerprint")})
        drawn = synthetic(mine, recipe, params["index"], params["fingerprint"])
        if mine.label is not None and drawn.label is None:
            raise ConfigError(
                f"{recipe.source}: draws no label maps, and the subject's would no longer match "
                "its image; exclude it to leave it as it is"
            )
        return drawn


class _RandomMix(_OnCases):
    """Now and then, a case of a source mixed in.

    Arguments as in `medaug.transforms.torchio1`.
    """

    def __init__(
        self,
        source: str | Path | Sequence[Any],
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
        super().__init__(p, image, label, **kwargs)
        if pool < 1:
            raise ConfigError(f"pool must be at least 1, got {pool}")
        check_anchor(anchor)
        self.seed, self.pool, self.device, self.anchor = seed, pool, device, anchor
        self.cases: Cases | None = None
        if isinstance(source, str | Path):
            check_donors(str(source))
            self.source = str(source)
        else:
            self.cases = Cases(source, partial(_read, image=image, label=label))
            self.source = self.cases.name

    @abstractmethod
    def own(self) -> dict[str, Any]:
        """The rival's own arguments, JSON values."""

    @abstractmethod
    def rival(self) -> Callable[..., Scan]:
        """The rival as a function."""

    def draw(self) -> dict[str, Any]:
        """See ``_OnCases``."""
        with isolated_rng():
            donors = open_donors(self.source, self.device)
        indices = donors.indices(self.pool)
        told: dict[str, Any] = {
            "source": self.source,
            "index": int(indices[_integer(len(indices))]),
        }
        told |= {"draw": _integer(SEEDS), "seed": self.seed, "device": self.device}
        with isolated_rng():
            told["fingerprint"] = donors.fingerprint(told["index"], self.seed)
        return told | {"own": self.own()}

    def change(self, mine: Donor, params: dict[str, Any]) -> Donor:
        """See ``_OnCases``."""
        drawn = Draw(**{k: v for k, v in params.items() if k != "own"})
        scan = mixed(mine, partial(self.rival(), **params["own"]), drawn)
        return Donor(scan.image, scan.label, mine.affine)


class RandomCutMix(_RandomMix):
    """Now and then CutMix (Yun et al. 2019): a box of another case."""

    def __init__(self, *args: Any, alpha: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.alpha = alpha

    def own(self) -> dict[str, Any]:
        """See ``_RandomMix``."""
        return {"alpha": self.alpha}

    def rival(self) -> Callable[..., Scan]:
        """See ``_RandomMix``."""
        return cutmix


class RandomCarveMix(_RandomMix):
    """Now and then CarveMix (Zhang et al. 2021): the region around another case's lesion."""

    def __init__(self, *args: Any, labels: Collection[int] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.labels = _ids(labels)

    def own(self) -> dict[str, Any]:
        """See ``_RandomMix``."""
        return {"labels": self.labels}

    def rival(self) -> Callable[..., Scan]:
        """See ``_RandomMix``."""
        return carvemix


class RandomCopyPaste(_RandomMix):
    """Now and then copy-paste (Ghiasi et al. 2021): another case's labelled voxels on top."""

    def __init__(
        self,
        *args: Any,
        labels: Collection[int] | None = None,
        shift_mm: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.labels, self.shift_mm = _ids(labels), shift_mm

    def own(self) -> dict[str, Any]:
        """See ``_RandomMix``."""
        return {"labels": self.labels, "shift_mm": self.shift_mm}

    def rival(self) -> Callable[..., Scan]:
        """See ``_RandomMix``."""
        return copypaste


class RandomLabelContrast(_OnCases):
    """Now and then new intensities for all tissues, after SynthSeg (Billot et al. 2023).

    The form for torchio 2; arguments as in `medaug.transforms.torchio1`.
    """

    def __init__(
        self,
        p: float = 0.3,
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
        super().__init__(p, image, label, **kwargs)
        check_contrast(clusters, means, gains, deviations, texture, strength, limits)
        self.clusters, self.means, self.gains, self.deviations = clusters, means, gains, deviations
        self.texture, self.strength, self.limits = texture, strength, limits

    def draw(self) -> dict[str, Any]:
        """See ``_OnCases``."""
        names = ("clusters", "means", "gains", "deviations", "texture", "strength", "limits")
        own = {name: getattr(self, name) for name in names}
        return {
            "draw": _integer(SEEDS),
            "own": {k: list(v) if isinstance(v, tuple) else v for k, v in own.items()},
        }

    def change(self, mine: Donor, params: dict[str, Any]) -> Donor:
        """See ``_OnCases``."""
        rng = np.random.default_rng(derive(params["draw"], "contrast"))
        scan = Scan(mine.image, mine.label, spacing(mine.affine))
        return Donor(randomise_contrast(scan, rng, **params["own"]).image, None, mine.affine)


def _integer(below: int) -> int:
    return int(torch.randint(below, (1,)))


def _ids(labels: Collection[int] | None) -> list[int] | None:
    return None if labels is None else sorted(int(number) for number in labels)


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
