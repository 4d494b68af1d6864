"""Find what a report compares, before anything is read, drawn or written."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import medaug
from medaug.core.errors import ConfigError, DataError, RunError
from medaug.core.modality import Modality, modality_of
from medaug.data.cache.prepare import SliceCache
from medaug.evaluation.features.spaces import Spaces, spaces_of
from medaug.evaluation.settings import EvaluateConfig
from medaug.evaluation.slices import from_folder
from medaug.evaluation.slices.evidence import Evidence
from medaug.evaluation.slices.foreign import open_foreign
from medaug.evaluation.slices.from_run import open_run
from medaug.evaluation.slices.seen import Exposure, Seen, exposure
from medaug.evaluation.slices.synthetic import Frame, Synthetic
from medaug.synthesis.generator import Generator
from medaug.training.run import trained_on, weights_path


@dataclass(frozen=True)
class Setting:
    """Synthetic slices, real ones, and how they are compared.

    Attributes:
        synthetic: the slices that are evaluated.
        cache: the real slices.
        frame: what both share.
        labels: the labels that count.
        exposure: the scans that the generator of the slices was trained on.
        config: limits and bounds.
        seed: of all random draws in the evaluation.
        run: the run folder, for its training curves and its generator, or None.
        device: where networks compute.
    """

    synthetic: Synthetic
    cache: SliceCache
    frame: Frame
    labels: Sequence[str]
    exposure: Exposure
    config: EvaluateConfig
    seed: int
    run: Path | None
    device: str

    @cached_property
    def key(self) -> str:
        """A hash of all that the figures depend on; not of the bounds."""
        frame = self.frame
        facts = {
            "medaug": medaug.__version__,
            "synthetic": self.synthetic.fingerprint,
            "cache": self.cache.fingerprint,
            "window_hu": frame.window_hu,
            "labels": list(self.labels),
            "least": frame.least,
            "slices": self.config.slices,
            "extractors": [_digest(path) for path in self.config.extractors],
            "seed": self.seed,
            "run": None if self.run is None else _digest(_weights(self.run)),
            "seen": [case.image_sha256 for case in self.exposure.cases],
            "unknown": list(self.exposure.unknown),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def about(self) -> dict[str, Any]:
        """What is compared, as plain values; by fingerprints, since folders may name patients."""
        cache, frame = self.cache, self.frame
        return {
            "judged": {"what": self.synthetic.what, **self.synthetic.facts},
            "against": {
                "fingerprint": cache.fingerprint,
                "source": cache.source,
                "train": cache.split["train"],
                "heldout": cache.split["heldout"],
            },
            "settings": {
                "modality": frame.modality.name,
                "unit": frame.modality.unit,
                "window_hu": list(frame.window_hu),
                "labels": list(self.labels),
                "min_label_pixels": frame.least,
                "size": frame.size,
                "pixel_mm": frame.pixel_mm,
                "slices": self.config.slices,
                "seed": self.seed,
            },
        }


def _weights(run: Path) -> Path:
    """The weight file of a run folder, or the file itself."""
    return weights_path(run) if run.is_dir() else run


def _digest(path: Path) -> str:
    """sha256 of a file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


@dataclass
class Subject:
    """What the parts of a report share; what is costly is made when the first of them needs it.

    Attributes:
        evidence: the slices in memory.
        setting: where they come from.
        folder: where features are kept between calls, or None.
    """

    evidence: Evidence
    setting: Setting
    folder: Path | None = None

    @cached_property
    def generator(self) -> Generator | None:
        """Of the run, or None where only a folder was given."""
        run = self.setting.run
        return None if run is None else Generator.from_pretrained(run, self.setting.device)

    @cached_property
    def seen(self) -> Seen:
        """The slices among which copies are sought."""
        return self.setting.exposure.slices(self.evidence.window_hu)

    @cached_property
    def spaces(self) -> Spaces:
        """The feature spaces, whose encoder is trained on the training slices."""
        config = self.setting.config
        return spaces_of(self.evidence, self.folder, config.extractors, most=config.slices)


def open_setting(
    run: Path | None,
    synthetic: Path | None,
    against: Path | None,
    n: int,
    seed: int,
    uncertainty: int,
    config: EvaluateConfig,
    device: str,
) -> Setting:
    """Find the synthetic and the real slices, and what they share.

    Args:
        run: a run folder or weight file, or None.
        synthetic: a folder of synthetic slices, or None for samples of the run.
        against: a slice cache, or None for that of the run.
        n: number of samples drawn from a run.
        seed: of all random draws.
        uncertainty: alternatives of each sample drawn from a run.
        config: limits, window, labels and bounds.
        device: where networks compute.

    Raises:
        ConfigError: neither a run nor a folder, nothing to compare it with, or labels that the
            two sides do not share.
        MedaugError: a side that cannot be used.
    """
    if run is None and synthetic is None:
        raise ConfigError("evaluate: name what is to be judged, a run or a folder of slices")
    if seed < 0:
        raise ConfigError(f"seed must be at least 0, got {seed}")
    if synthetic is not None and not synthetic.is_dir():
        what = "a file, not a folder" if synthetic.exists() else "no such folder"
        raise DataError(f"{synthetic}: {what}")
    cache = _cache(run, against)
    if synthetic is None:
        assert run is not None
        found = open_run(run, Generator.from_pretrained(run, device), n, seed, uncertainty)
    elif from_folder.looks_like(synthetic):
        found = from_folder.open_synthesised(synthetic)
        if run is not None:
            _check_weights(run, found, device)
    else:
        found = open_foreign(synthetic, cache.labels)
    modality = modality_of(cache.modality)
    if cache.kind == "ct" and found.modality not in (None, modality.name):
        raise ConfigError(
            f"{found.what}: {found.modality}, and {cache.path} holds {modality.name}; hold them "
            f"against slices of {found.modality}"
        )
    window = config.window_hu or found.window_hu or modality.window
    _check_window(window, modality)
    least = config.min_label_pixels
    least = least if least is not None else 1 if found.least is None else found.least
    labels = _labels(config.labels, found.labels, cache)
    frame = Frame.of(cache, window, labels, least)
    return Setting(found, cache, frame, labels, exposure(cache, run), config, seed, run, device)


def _check_weights(run: Path, found: Synthetic, device: str) -> None:
    """Refuse a run that did not make the samples, or has been trained further since.

    Raises:
        ConfigError: its weights are not those that the folder names.
    """
    if Generator.from_pretrained(run, device).fingerprint != found.facts["settings"]["weights"]:
        raise ConfigError(
            f"{found.what}: drawn by other weights than those {run} holds now; name the run that "
            "drew them, or leave the run out"
        )


def _check_window(window: tuple[float, float], modality: Modality) -> None:
    low, high = modality.limits
    if not low <= window[0] < window[1] <= high:
        raise ConfigError(
            f"config evaluate.window_hu: {list(window)}, and {modality.name} slices are in "
            f"{modality.unit}; give two values from {low} to {high}, the lower one first"
        )


def _cache(run: Path | None, against: Path | None) -> SliceCache:
    if against is not None:
        return SliceCache.open(against)
    if run is None:
        raise ConfigError(
            "name the cache of real slices that the folder is held against, --against"
        )
    if not run.exists():
        raise RunError(f"{run}: no such run or weight file")
    cache = trained_on(run)
    if cache is None:
        raise ConfigError(
            f"{run}: the cache it was trained on is not there any more, or has changed; name one "
            "with --against"
        )
    return cache


def _labels(
    requested: Sequence[str] | None, masks: Mapping[str, int], cache: SliceCache
) -> Sequence[str]:
    """The labels that count: those requested, those that both sides have, or all of the cache."""
    if requested is not None:
        return list(requested)
    if not masks:
        return list(cache.labels)
    shared = [name for name in cache.labels if name in masks]
    if not shared:
        raise ConfigError(
            f"the synthetic masks show {', '.join(masks)}, and {cache.path} has "
            f"{', '.join(cache.labels) or 'no labels'}; name the labels alike in dataset.json"
        )
    return shared
