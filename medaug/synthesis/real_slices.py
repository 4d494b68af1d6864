"""Real slices beside synthetic ones: those that training saw, never a held-out patient's."""

import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from medaug.core.config import DataConfig
from medaug.core.errors import ConfigError, DataError
from medaug.core.types import Sample
from medaug.data.cache.store import CachedCase, SliceCache


@dataclass(frozen=True)
class RealSlices:
    """The labelled training slices of a cache.

    Attributes:
        fingerprint: of all that training can see in the cache.
        places: case name, such as ``real_PANCREAS_0001_z012``, to the scan's id and the slice.
        labels: name to id of the labels that are kept; the others become background.
    """

    fingerprint: str
    places: dict[str, tuple[str, int]]
    labels: dict[str, int]
    cache: SliceCache = field(repr=False)

    def sample(self, case: str) -> Sample:
        """The slice called ``case`` as a sample without alternatives, HU as they are in the cache.

        Its affine is that of the slice: (x, y, z=0) to RAS+ mm.
        """
        patient, z = self.places[case]
        scan = self.cache.cases[patient]
        assert scan.label is not None
        label = np.array(scan.label[z])
        label[~np.isin(label, list(self.labels.values()))] = 0
        image = np.array(scan.image[z])
        affine = np.array(scan.affine, dtype=np.float64)
        affine[:3, 3] += z * affine[:3, 2]
        return Sample(
            index=-1,
            image=image,
            label=label,
            affine=affine,
            alternatives=image[None][:0],
            alternative_labels=None,
            std=np.zeros(image.shape, np.float32),
            entropy=None,
            origin={"patient": patient},
        )


def real_slices(path: Path, labels: Mapping[str, int], data: DataConfig, format: str) -> RealSlices:
    """The training slices of the cache at ``path`` that show ``labels``.

    A slice counts as in training: at least ``data.min_label_pixels`` pixels of ``labels``.

    Args:
        path: a slice cache.
        labels: name to id of the labels that the synthetic masks have.
        data: the settings of the generator's training.
        format: of the folder.

    Raises:
        CacheError: no finished cache there.
        ConfigError: other labels in the cache, no masks to go with, or another format than NIfTI.
        DataError: no slice qualifies.
    """
    if format != "nifti":
        raise ConfigError(f"with_real: real slices go with format nifti, got {format}")
    if not labels:
        raise ConfigError("with_real: this model draws no masks, so real masks do not fit beside")
    cache = SliceCache.open(path)
    for name, number in labels.items():
        if cache.labels.get(name) != number:
            there = ", ".join(f"{key}: {value}" for key, value in cache.labels.items()) or "none"
            raise ConfigError(
                f"with_real: the model has the label {name}: {number}, and {cache.path} has {there}"
            )
    places: dict[str, tuple[str, int]] = {}
    for patient in sorted(cache.split["train"]):
        for z in _showing(cache.cases[patient], labels, data.min_label_pixels):
            case = f"real_{_plain(patient)}_z{z:03d}"
            if case in places:
                raise DataError(
                    f"{cache.path}: the scans {places[case][0]!r} and {patient!r} would share the "
                    f"case name {case}; rename one"
                )
            places[case] = patient, int(z)
    if not places:
        raise DataError(
            f"{cache.path}: no training slice shows {data.min_label_pixels} pixels of "
            f"{', '.join(labels)}"
        )
    return RealSlices(cache.fingerprint, places, dict(labels), cache)


def _showing(case: CachedCase, labels: Collection[str], least: int) -> list[int]:
    if case.label is None or not all(name in case.label_pixels for name in labels):
        return []
    pixels = sum(np.asarray(case.label_pixels[name]) for name in labels)
    return [int(z) for z in np.flatnonzero(np.asarray(pixels) >= least)]


def _plain(patient: str) -> str:
    """An id that file names, the manifest and a shell's command line can hold."""
    return re.sub(r"[^\w.+-]", "-", unicodedata.normalize("NFC", patient))
