"""A user's own label maps as layouts: every axial slice of every NIfTI file that shows a label."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel
import numpy as np
import torch
from nibabel.spatialimages import SpatialImage
from torch import Tensor

from medaug.core.errors import ConfigError, DataError, reason
from medaug.core.geometry import resample_labels
from medaug.core.modality import CT
from medaug.core.seeds import derive
from medaug.core.types import LabelMap
from medaug.data.formats.volumes import DAMAGE, open_nifti, voxels
from medaug.synthesis.masks.deformed import deform, derive_name

AROUND = CT.tissues["soft"]
"""What a real slice's own labels become where it lends its tissues; the id is medium in MR."""

NEAREST = 5
"""A mask without tissues is laid into one of this many real slices that suit it best."""


class OwnMasks:
    """The label maps below a folder, brought to the model's grid, taken in turn.

    Args:
        folder: holds ``*.nii`` or ``*.nii.gz``, slices or volumes in any orientation.
        labels: name to id of the labels the model was trained with.
        tissues: name to id of the tissues it was trained with, or empty.
        size: pixels a side.
        fov_mm: length of a side; the middle of a file's grid becomes the middle of the slice.
        real: real layout maps (n, h, w) that lend their tissues to masks without; None where the
            training's cache is not at hand.
        strength: of a random deformation; 0 keeps the masks as they are.

    Raises:
        ConfigError: a strength out of range.
        DataError: no masks there, an id that is not known, or no tissues to be had.
    """

    def __init__(
        self,
        folder: Path,
        labels: Mapping[str, int],
        tissues: Mapping[str, int],
        size: int,
        fov_mm: float,
        real: Tensor | None,
        strength: float = 0.0,
    ) -> None:
        if not 0 <= strength <= 4:
            raise ConfigError(f"mask_strength must be 0 to 4, got {strength:g}")
        self.folder, self.strength = folder, strength
        self.labels = dict(labels)
        files = sorted(p for p in folder.rglob("*.nii*") if not p.name.startswith("."))
        if not files:
            raise DataError(f"{folder}: no label maps in it (looked for *.nii and *.nii.gz)")
        stacks = [self._slices(file, {**labels, **tissues}, size, fov_mm) for file in files]
        self.own = torch.from_numpy(np.concatenate(stacks))
        if not len(self.own):
            raise DataError(f"{folder}: none of its {len(files)} label maps shows a label")
        tissued = torch.isin(self.own, torch.tensor([*tissues.values()], dtype=torch.uint8))
        self.bare = ~tissued.flatten(1).any(1) if tissues else torch.zeros(len(self.own)).bool()
        self.real = real
        if self.bare.any() and real is None:
            raise DataError(
                f"{folder}: its masks hold no tissues (ids {', '.join(map(str, tissues.values()))} "
                f"for {', '.join(tissues)}), which this run was trained with, and the cache that "
                "could lend them is not there"
            )
        content = [self.own.numpy().tobytes()]
        content += [] if real is None or not self.bare.any() else [real.numpy().tobytes()]
        self.fingerprint = derive_name(hashlib.sha256(b"".join(content)).hexdigest(), strength)

    @property
    def how(self) -> str:
        """See ``Layouts.how``."""
        return "a mask of the user's" + (
            f" deformed at strength {self.strength:g}" if self.strength else ""
        )

    def maps(self, seed: int, indices: Sequence[int], attempt: int = 0) -> Tensor:
        """See ``Layouts.maps``."""
        found = torch.stack([self._filled(seed, index, attempt) for index in indices])
        if not self.strength:
            return found
        return deform(found, seed, indices, f"layout {attempt}", self.strength)

    def _filled(self, seed: int, index: int, attempt: int) -> Tensor:
        place = index % len(self.own)
        own = self.own[place]
        if not self.bare[place] or self.real is None:
            return own
        near = self._suited(place)
        lent = self.real[near[derive(seed, "tissues", index, attempt) % len(near)]].clone()
        lent[torch.isin(lent, self._ids())] = AROUND
        return torch.where(own > 0, own, lent)

    def _ids(self) -> Tensor:
        return torch.tensor(list(self.labels.values()), dtype=torch.uint8)

    def _suited(self, place: int) -> Tensor:
        """The real slices whose own labels lie most like those of mask ``place``."""
        if not hasattr(self, "_real_places"):
            assert self.real is not None
            self._real_places = _places(torch.isin(self.real, self._ids()))
            self._own_places = _places(torch.isin(self.own, self._ids()))
        apart = torch.cdist(self._own_places[place : place + 1], self._real_places)[0]
        return apart.topk(min(NEAREST, len(apart)), largest=False).indices

    def _slices(self, file: Path, known: Mapping[str, int], size: int, fov_mm: float) -> LabelMap:
        try:
            image = open_nifti(file)
            image = nibabel.as_closest_canonical(SpatialImage(voxels(image), image.affine))
            volume = np.asarray(image.dataobj)
        except DAMAGE as error:
            raise DataError(f"{file}: not a readable NIfTI file ({reason(error)})") from error
        volume = volume.reshape(*volume.shape[:2], -1)
        for value in np.unique(volume):
            if value not in (0, *known.values()):
                names = ", ".join(f"{number} {name}" for name, number in known.items())
                raise DataError(f"{file}: label id {value:g} is not known to this run ({names})")
        shown = np.isin(volume, list(self.labels.values())).any((0, 1))
        center = ((volume.shape[0] - 1) / 2, (volume.shape[1] - 1) / 2)
        kept = volume[:, :, shown].astype(np.uint8)
        if not kept.shape[2]:
            return np.zeros((0, size, size), np.uint8)
        affine = np.asarray(image.affine, np.float64)
        return np.ascontiguousarray(resample_labels(kept, affine, center, fov_mm, size))


def _places(masks: Tensor) -> Tensor:
    """Centre and root of the area of masks (n, h, w), in shares of a side, (n, 3)."""
    _, h, w = masks.shape
    area = masks.flatten(1).sum(1).float().clamp_min(1)
    down = (masks.sum(2).float() @ torch.arange(h).float()) / area / h
    across = (masks.sum(1).float() @ torch.arange(w).float()) / area / w
    return torch.stack([down, across, (area / (h * w)).sqrt()], 1)
