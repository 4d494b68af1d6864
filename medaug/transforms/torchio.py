"""torchio 1.x transforms that put a synthetic pair in the place of a scan and its label map.

``RandomSynthesis`` samples parameters, ``Synthesis`` applies them, so that a subject's history
names the very sample and replays it.  All draws come from torch's global generator, as in torchio.
"""

from pathlib import Path
from typing import Any

import torch
import torchio as tio
from torchio.transforms.augmentation import RandomTransform

from medaug.errors import ConfigError, DataError
from medaug.transforms.pairs import POOL, Pairs, key_file, open_pairs
from medaug.transforms.subjects import calm, like, pick
from medaug.types import Sample


class Synthesis(tio.Transform):
    """Replace a subject's image and label map by one synthetic pair, with its affine and HU.

    The other entries of the subject stay.  The pair has the shape and spacing of its source, one
    slice thick, so follow it by ``Resample`` or ``CropOrPad`` where subjects must agree.  Data
    types are those of what is replaced, where they can hold the values.

    Args:
        source: a run folder, a ``.safetensors`` file, or a folder written by
            ``medaug synthesize``.
        index: which sample.
        image: name of the scalar image to replace; may be left out where there is only one.
        label: name of the label map to replace; may be left out where there is only one or none.
        seed: which family of samples a run draws from; without meaning for a folder.
        device: where a run's model is computed.
        fingerprint: the weights expected, as in a history; None for any.
        **kwargs: see ``torchio.Transform``.

    Raises:
        ConfigError: the subject's images do not say which to replace.
        DataError: ``source`` cannot be used, or has other weights than ``fingerprint``.
    """

    def __init__(
        self,
        source: str | Path,
        index: int,
        *,
        image: str | None = None,
        label: str | None = None,
        seed: int = 0,
        device: str = "cpu",
        fingerprint: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        key_file(source)
        self.source, self.index = str(source), int(index)
        self.image, self.label = image, label
        self.seed, self.device, self.fingerprint = seed, device, fingerprint
        self.args_names = ["source", "index", "image", "label", "seed", "device", "fingerprint"]

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Put the pair in place; called by torchio."""
        image, label = pick(subject, self.image, self.label, self.include, self.exclude)
        sample = _draw(self.source, self.index, self.seed, self.device, self.fingerprint)
        if label is not None and sample.label is None:
            raise ConfigError(
                f"{self.source}: draws no label maps, and the subject's {label!r} would no longer "
                f"match its image; exclude=[{label!r}] leaves it as it is"
            )
        fresh = {image: like(subject[image], _volume(sample.image), sample.affine)}
        if label is not None and sample.label is not None:
            fresh[label] = like(subject[label], _volume(sample.label), sample.affine)
        for name, new in fresh.items():
            subject.add_image(new, name)
        return subject


class RandomSynthesis(RandomTransform):
    """Now and then, a synthetic pair in the place of a subject's image and label map.

    See ``Synthesis`` for what is replaced and what stays.  The draw of the sample is uniform: over
    all of a synthesised folder, or over the first ``pool`` samples of a run.  Each process that
    draws from a run decodes each block of samples once, when first needed.

    Args:
        source: a run folder, a ``.safetensors`` file, or a folder written by
            ``medaug synthesize``.
        p: probability of replacing.
        image: name of the scalar image to replace; may be left out where there is only one.
        label: name of the label map to replace; may be left out where there is only one or none.
        seed: which family of samples a run draws from; without meaning for a folder.
        pool: how many samples of a run take part; more variety for more computing.
        device: where a run's model is computed; with worker processes, ``cpu``.
        **kwargs: see ``torchio.Transform``.

    Raises:
        ConfigError: an argument is out of range.
        DataError: ``source`` is neither a run nor a synthesised folder.
    """

    def __init__(
        self,
        source: str | Path,
        p: float = 0.3,
        *,
        image: str | None = None,
        label: str | None = None,
        seed: int = 0,
        pool: int = POOL,
        device: str = "cpu",
        **kwargs: Any,
    ) -> None:
        super().__init__(p=p, **kwargs)
        if pool < 1:
            raise ConfigError(f"pool must be at least 1, got {pool}")
        key_file(source)
        self.source, self.image, self.label = str(source), image, label
        self.seed, self.pool, self.device = seed, pool, device
        self.args_names = ["source", "image", "label", "seed", "pool", "device"]

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Draw a sample and put it in place; called by torchio."""
        pairs = _open(self.source, self.device)
        indices = pairs.indices(self.pool)
        index = indices[int(torch.randint(len(indices), (1,)))]
        fixed = Synthesis(
            self.source,
            index,
            image=self.image,
            label=self.label,
            seed=self.seed,
            device=self.device,
            fingerprint=pairs.fingerprint,
            **self._get_base_args(),
        )
        return fixed(subject)


def _open(source: str, device: str) -> Pairs:
    with calm():
        return open_pairs(source, device)


def _draw(source: str, index: int, seed: int, device: str, fingerprint: str | None) -> Sample:
    pairs = _open(source, device)
    if fingerprint not in (None, pairs.fingerprint):
        raise DataError(
            f"{source}: has weights {pairs.fingerprint} now, and sample {index} was drawn with "
            f"{fingerprint}"
        )
    with calm():
        return pairs.pair(index, seed)


def _volume(array: Any) -> Any:
    """A slice [y, x] as torchio keeps it, (1, x, y, 1)."""
    return array.T[None, :, :, None]
