"""Train from a name or path: settle the config, prepare the cache the first time, then train."""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from medaug.core import registry
from medaug.core.batch import Shape
from medaug.core.config import DEFAULT_MODEL, Config, read_yaml, resolve
from medaug.core.errors import ConfigError
from medaug.core.modality import MR
from medaug.core.text import tell
from medaug.data import open_source
from medaug.data.cache.prepare import CacheSettings, PrepareReport, SliceCache, prepare
from medaug.data.cache.shards import wait
from medaug.data.cache.store import INDEX
from medaug.data.source import Source
from medaug.runtime.distributed import share
from medaug.training.loop import TrainReport, fit
from medaug.training.privacy import check_supported

PICTURES: dict[str, Any] = {"data": {"size": None, "masks": "none", "augment": None}}
"""Settings for pictures: the size of their source, no masks, no warps."""
UNITLESS: dict[str, Any] = {"data": {"window_hu": list(MR.window)}}
"""Settings for MR, which is cached in thousandths of each scan's range."""


def train(
    data: str,
    settings: Mapping[str, Any] | None = None,
    *,
    source: Source | SliceCache | None = None,
    root: str | Path | None = None,
    cache: str | Path | None = None,
    run: str | Path | None = None,
    device: str = "auto",
    init: str | Path | None = None,
    workers: int | None = None,
    unlabeled: str | Path | None = None,
    labels: Sequence[str] | None = None,
    modality: Literal["CT", "MR"] | None = None,
    names: str | None = None,
) -> tuple[PrepareReport, TrainReport]:
    """Prepare ``data`` where that is not done yet, then train; the same call resumes both.

    Args:
        data: the name of a source, or the path of scans, pictures or a finished cache.
        settings: sections of the config that change the defaults, such as
            ``{"train": {"batch": 32}}``.
        source: what ``data`` names, if it is open already; else it is opened by the arguments
            ``root``, ``labels``, ``modality`` and ``names``.
        root: where the data of a named source is; default ``$MEDAUG_DATA/DATA``, then
            ``data/DATA``.
        cache: the slice cache; by default a folder for each size and field of view.
        run: the run folder; default ``runs/DATA-MODEL``.
        device: ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:1``.
        init: weights to start from, a file or a run; default: noise.
        workers: processes that prepare; default one per core.
        unlabeled: a folder of scans without labels, or a cache of them, that joins training.
        labels: those to use of the scans, such as ``["pancreas", "liver"]``; default all.
        modality: ``CT`` or ``MR``, where the files do not say or hold both.
        names: label names for label maps that carry none: a collection or a json file.

    Raises:
        MedaugError: anything the user can correct.
    """
    if source is None:
        source = open_data(data, root, labels=labels, modality=modality, names=names)
    planned = plan(source, data, settings or {}, cache=cache, run=run)
    opened, prepared = _prepared(source, planned, workers)
    more = None if unlabeled is None else _unlabeled(Path(unlabeled), opened, workers)
    trained = fit(planned.config, opened, planned.run, device=device, init=init, unlabeled=more)
    return prepared, trained


@dataclass(frozen=True)
class TrainPlan:
    """What ``train`` would do.

    Attributes:
        config: all settings.
        cache: the folder of the slice cache.
        run: the run folder.
    """

    config: Config
    cache: Path
    run: Path


def plan(
    source: Source | SliceCache,
    data: str,
    settings: Mapping[str, Any],
    *,
    cache: str | Path | None = None,
    run: str | Path | None = None,
) -> TrainPlan:
    """Settle config and folders for a source; nothing is written.

    Args:
        source: open.
        data: the name or path by which the user called it.
        settings: sections of the config that change the defaults.
        cache: the slice cache, or None for the default.
        run: the run folder, or None for the default.

    Raises:
        ConfigError: a setting that is not accepted.
    """
    config = resolve_for(source, data, settings)
    cache_settings(config).check(source.kind)
    if config.train.privacy is not None:
        check_supported(config.model, Shape(1, 1, config.data.size or 32))
    return TrainPlan(
        config,
        Path(cache or default_cache(source, config)),
        Path(run or default_run(config)),
    )


def short_name(data: str, source: Source | SliceCache) -> str:
    """Name a cache, a run and a config: by the source, or by the folder of a cache or of pictures.

    Scans are named by their layout and a hash of their path, since folders of scans are often named
    after patients, and everything made from the data would repeat that name.
    """
    if data in registry.SOURCES:
        return data
    path = Path(data).resolve()
    if isinstance(source, SliceCache) or source.kind == "image":
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", path.name) or "data"
    layout = source.name.replace(" ", "-")
    return f"{layout}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


def resolve_for(source: Source | SliceCache, data: str, settings: Mapping[str, Any]) -> Config:
    """Return the config for a source or a cache: what suits it, changed by the user's settings.

    Args:
        source: open.
        data: the name or path by which the user called it.
        settings: sections of the config that change the defaults.

    Raises:
        ConfigError: a setting that is not accepted, or that differs from that of a finished cache.
    """
    base = PICTURES if source.kind == "image" else {}
    if isinstance(source, SliceCache) or source.kind == "ct":
        base = UNITLESS if source.modality == "MR" else base
    if not isinstance(source, SliceCache):
        own = {}
        if source.kind == "image":
            own = {"size": source.size, "colour": source.colour}
        return resolve(base, {"data": {"name": short_name(data, source), **own}}, settings)
    keys = ("size", "colour") if source.kind == "image" else ("size", "fov_mm", "center")
    sizes = source.settings.only(*keys)
    config = resolve(base, {"data": {"name": short_name(data, source), **sizes}}, settings)
    for key, value in sizes.items():
        if getattr(config.data, key) != value:
            raise ConfigError(
                f"{source.path}: the cache has data.{key} {value}, "
                f"{getattr(config.data, key)} was asked; name the scans instead of the cache"
            )
    return config


def open_data(
    data: str,
    root: str | Path | None = None,
    *,
    labels: Sequence[str] | None = None,
    modality: Literal["CT", "MR"] | None = None,
    names: str | None = None,
) -> Source | SliceCache:
    """Open a source by name or path, or a finished slice cache by its path.

    Args:
        data: the name or path.
        root: where the data of a named source is; default ``$MEDAUG_DATA/DATA``, then
            ``data/DATA``.
        labels: those to use of the scans; default all.
        modality: ``CT`` or ``MR``, where the files do not say or hold both.
        names: label names for label maps that carry none: a collection or a json file.

    Raises:
        ConfigError: labels, modality or names for a finished cache, or that the source does not
            have.
        DataError, CacheError: nothing usable there.
    """
    if root is None and (Path(data) / INDEX).is_file():
        given = {"labels": labels, "modality": modality, "names": names}
        if unused := [name for name, value in given.items() if value is not None]:
            raise ConfigError(
                f"{data}: {unused[0]} is for scans, and this is a finished cache, whose labels "
                "--set data.labels=[...] selects; name the scans, or leave it out"
            )
        return SliceCache.open(Path(data))
    place = None if root is None else Path(root)
    return open_source(data, place, labels=labels, modality=modality, names=names)


def cache_settings(config: Config) -> CacheSettings:
    """The settings of a config that decide what a cache holds."""
    data = config.data
    return CacheSettings(size=data.size, fov_mm=data.fov_mm, center=data.center, colour=data.colour)


def default_cache(source: Source | SliceCache, config: Config) -> Path:
    """The default folder of the cache for ``config``: below ``$MEDAUG_CACHE``, else ``cache``."""
    if isinstance(source, SliceCache):
        return source.path
    data = config.data
    name = data.name
    if source.kind != "image":
        name += f"-{data.size}px-{data.fov_mm:g}mm"
        name += "" if data.center == "body" else f"-{data.center}"
        name += "" if source.modality == "CT" else f"-{source.modality.lower()}"
        chosen = getattr(source, "taken", None) or ()
        name += "".join(f"-{re.sub(r'[^A-Za-z0-9_.-]+', '-', label.name)}" for label in chosen)
    else:
        name += "" if data.size is None else f"-{data.size}px"
        name += "-grey" if data.colour == "grey" else ""
    return Path(os.environ.get("MEDAUG_CACHE", "cache")) / name


def default_run(config: Config) -> Path:
    """The default run folder: ``runs/DATA-MODEL``.

    A run of ``spatial_vaegan`` begun under its old name is resumed.
    """
    run = Path("runs") / f"{config.data.name}-{config.model.name}"
    old = run.with_name(f"{config.data.name}-vaegan")
    if config.model.name != DEFAULT_MODEL or run.exists() or not (old / "config.yaml").is_file():
        return run
    if (read_yaml(old / "config.yaml").get("model") or {}).get("form") != "phased":
        return run
    tell(f"run: {old}, begun when spatial_vaegan was called vaegan, in its form phased")
    return old


def slices(
    data: str,
    settings: Mapping[str, Any] | None = None,
    *,
    root: str | Path | None = None,
    cache: str | Path | None = None,
    workers: int | None = None,
    fill: bool = True,
) -> SliceCache:
    """Open the slice cache of ``data``, preparing it where that is not done yet.

    Args:
        data: the name of a source, or the path of scans, pictures or a finished cache.
        settings: sections of the config that change the defaults.
        root: where the data of a named source is; default ``$MEDAUG_DATA/DATA``, then
            ``data/DATA``.
        cache: the slice cache; by default a folder for each size and field of view.
        workers: processes that prepare; default one per core.
        fill: whether to prepare; else the cache must be finished.

    Raises:
        MedaugError: anything the user can correct.
    """
    source = open_data(data, root)
    planned = plan(source, data, settings or {}, cache=cache)
    if not fill:
        return source if isinstance(source, SliceCache) else SliceCache.open(planned.cache)
    return _prepared(source, planned, workers)[0]


def _prepared(
    source: Source | SliceCache, planned: TrainPlan, workers: int | None
) -> tuple[SliceCache, PrepareReport]:
    """Finish the cache of a source; returns it and what was done."""
    if isinstance(source, SliceCache):
        return source, PrepareReport(source.path, [], list(source.cases), [], {}, 0.0)
    part = share().pair
    prepared = prepare(source, planned.cache, cache_settings(planned.config), workers, (), part)
    for name, what in prepared.changed.items():
        tell(f"cut anew: {name}: {what}")
    for problem in prepared.failed:
        tell(f"left out: {problem}")
    wait(planned.cache)
    return SliceCache.open(planned.cache), prepared


def _unlabeled(path: Path, labeled: SliceCache, workers: int | None) -> SliceCache:
    """Prepare the scans in ``path`` with the settings of ``labeled``, in a cache next to it."""
    if (path / INDEX).is_file():
        return SliceCache.open(path)
    if labeled.kind != "ct":
        raise ConfigError(f"unlabeled: {path} joins CT scans only, and {labeled.path} has pictures")
    from medaug.data.sources.unlabeled import Unlabeled

    source = Unlabeled(path, cast(Literal["CT", "MR"], labeled.modality))
    suffix = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    cache = labeled.path.parent / f"{labeled.path.name}-unlabeled-{suffix}"
    settings = replace(labeled.settings, holdout=0.0)
    report = prepare(source, cache, settings, workers, (), share().pair)
    for problem in report.failed:
        tell(f"left out: {problem}")
    wait(cache)
    return SliceCache.open(cache)
