"""torchio 1.x transforms that put a synthetic pair in the place of a scan and its label map.

``RandomSynthesis`` samples parameters, ``Synthesis`` applies them, so that a subject's history
names the very sample and replays it.  All draws come from torch's global generator, as in torchio.
"""

from pathlib import Path
from typing import Any

import torch
import torchio as tio
from torchio.transforms.augmentation import RandomTransform

from medaug.errors import ConfigError
from medaug.transforms.calm import calm
from medaug.transforms.pairs import POOL, open_pairs
from medaug.transforms.subjects import arrays, like, pick
from medaug.transforms.synthesis import SMOOTH_MM, STRENGTH, Mode, Recipe, synthetic


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
        with calm():
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
        with calm():
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
