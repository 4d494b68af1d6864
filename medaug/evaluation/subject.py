"""What a report is to be about, settled before anything is read, drawn or written."""

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
from medaug.evaluation.settings import EvaluateConfig
from medaug.evaluation.slices import from_folder
from medaug.evaluation.slices.foreign import open_foreign
from medaug.evaluation.slices.from_run import open_run
from medaug.evaluation.slices.seen import Exposure, exposure
from medaug.evaluation.slices.synthetic import Frame, Synthetic
from medaug.synthesis.generator import Generator
from medaug.training.run import trained_on, weights_path


@dataclass(frozen=True)
class Setting:
    """Synthetic slices, real ones, and how they are compared.

    Attributes:
        synthetic: what is judged.
        cache: the real slices.
        frame: what both share.
        labels: the labels that count.
        exposure: the scans that whatever drew the slices was trained on.
        config: cap and bounds.
        seed: of every draw in the evaluation.
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
        """A hash of all that the figures depend on; bounds are not among it."""
        frame = self.frame
        asked = {
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
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def generator(self) -> Generator | None:
        """The run's generator, or None without a run."""
        if self.run is None:
            return None
        return Generator.from_pretrained(self.run, self.device)

    def about(self) -> dict[str, Any]:
        """Plain values that say what was compared, by fingerprints: folders may name patients."""
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


def settle(
    run: Path | None,
    synthetic: Path | None,
    against: Path | None,
    n: int,
    seed: int,
    uncertainty: int,
    config: EvaluateConfig,
    device: str,
) -> Setting:
    """Find both sides and what they share.

    Raises:
        ConfigError: neither a run nor a folder, nothing to hold it against, or labels that the
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
            _drew(run, found, device)
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


def _drew(run: Path, found: Synthetic, device: str) -> None:
    """Refuse a run that did not draw the samples, or has been trained on since.

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
    asked: Sequence[str] | None, masks: Mapping[str, int], cache: SliceCache
) -> Sequence[str]:
    """The labels that count: those asked for, those that both sides have, or all of the cache."""
    if asked is not None:
        return list(asked)
    if not masks:
        return list(cache.labels)
    shared = [name for name in cache.labels if name in masks]
    if not shared:
        raise ConfigError(
            f"the synthetic masks show {', '.join(masks)}, and {cache.path} has "
            f"{', '.join(cache.labels) or 'no labels'}; name the labels alike in dataset.json"
        )
    return shared
