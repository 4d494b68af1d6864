"""From a name to a trained run: what the commands do, as functions.

``resolve_for`` lays the user's wishes over what suits the source; ``train`` prepares the cache the
first time and then trains; ``demo`` walks the whole road on the phantom.
"""

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
"""What suits pictures: the size their source names, no mask, no warps."""

UNITLESS: dict[str, Any] = {"data": {"window_hu": list(MR.window)}}
"""What suits MR, which is cached in thousandths of each scan's range."""


@dataclass(frozen=True)
class TrainPlan:
    """What ``train`` would do: the resolved config and the folders."""

    config: Config
    cache: Path
    run: Path


def short_name(data: str, source: Source | SliceCache) -> str:
    """A name for a cache, a run and a config: the source's own, or the folder of cache or pictures.

    The path of scans is told by their layout and a hash, since folders of scans are named after
    patients, and all that is made from the data would carry the name on.
    """
    if data in registry.SOURCES:
        return data
    path = Path(data).resolve()
    if isinstance(source, SliceCache) or source.kind == "image":
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", path.name) or "data"
    layout = source.name.replace(" ", "-")
    return f"{layout}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


def resolve_for(source: Source | SliceCache, data: str, wishes: Mapping[str, Any]) -> Config:
    """The config for a source or a cache: what suits it, then the user's wishes.

    Raises:
        ConfigError: a wish that is not accepted, or that a finished cache cannot grant.
    """
    base = PICTURES if source.kind == "image" else {}
    if isinstance(source, SliceCache) or source.kind == "ct":
        base = UNITLESS if source.modality == "MR" else base
    if not isinstance(source, SliceCache):
        own = {}
        if source.kind == "image":
            own = {"size": source.size, "colour": source.colour}
        return resolve(base, {"data": {"name": short_name(data, source), **own}}, wishes)
    keys = ("size", "colour") if source.kind == "image" else ("size", "fov_mm", "center")
    sizes = source.settings.only(*keys)
    config = resolve(base, {"data": {"name": short_name(data, source), **sizes}}, wishes)
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
    """A source by name or path, or a finished slice cache by its path.

    ``labels``, ``modality`` and ``names`` are those of ``medaug.data.open_source``.

    Raises:
        ConfigError: one of them for a finished cache, or one that the source cannot grant.
        DataError, CacheError: nothing usable there.
    """
    if root is None and (Path(data) / INDEX).is_file():
        told = {"labels": labels, "modality": modality, "names": names}
        if asked := [name for name, value in told.items() if value is not None]:
            raise ConfigError(
                f"{data}: {asked[0]} is for scans, and this is a finished cache, whose labels "
                "--set data.labels=[...] selects; name the scans, or leave it out"
            )
        return SliceCache.open(Path(data))
    place = None if root is None else Path(root)
    return open_source(data, place, labels=labels, modality=modality, names=names)


def cache_settings(config: Config) -> CacheSettings:
    """The part of a config that decides what a cache holds."""
    data = config.data
    return CacheSettings(size=data.size, fov_mm=data.fov_mm, center=data.center, colour=data.colour)


def default_cache(source: Source | SliceCache, config: Config) -> Path:
    """Where the cache for ``config`` is kept: below ``$MEDAUG_CACHE`` or ``cache``."""
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
    """The run folder that no ``--run`` names: ``runs/DATA-MODEL``.

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


def plan(
    source: Source | SliceCache,
    data: str,
    wishes: Mapping[str, Any],
    *,
    cache: str | Path | None = None,
    run: str | Path | None = None,
) -> TrainPlan:
    """Settle config and folders for a source; nothing is written.

    Raises:
        ConfigError: a wish that is not accepted.
    """
    config = resolve_for(source, data, wishes)
    cache_settings(config).check(source.kind)
    if config.train.privacy is not None:
        check_supported(config.model, Shape(1, 1, config.data.size or 32))
    return TrainPlan(
        config,
        Path(cache or default_cache(source, config)),
        Path(run or default_run(config)),
    )


def train(
    data: str,
    wishes: Mapping[str, Any] | None = None,
    *,
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
    """Prepare ``data`` where that is not done yet, then train; called again, both go on.

    Args:
        data: the name of a source, or the path of scans, pictures or a finished cache.
        wishes: config sections laid over the defaults, such as ``{"train": {"batch": 32}}``.
        root: where the data called by name is.
        cache: the slice cache; its own folder for each size and field where None.
        run: the run folder; ``runs/DATA-MODEL`` where None.
        device: ``auto``, ``cpu`` or ``cuda``.
        init: weights to start from.
        workers: processes that prepare.
        unlabeled: a folder of scans without labels, or a cache of such, that joins training.
        labels: those to take of the scans, such as ``["pancreas", "liver"]``.
        modality: of the scans, where their files do not say or hold both.
        names: label names for maps without, see ``medaug.data.open_source``.

    Raises:
        MedaugError: anything the user can correct.
    """
    return train_on(
        open_data(data, root, labels=labels, modality=modality, names=names),
        data,
        wishes or {},
        cache=cache,
        run=run,
        device=device,
        init=init,
        workers=workers,
        unlabeled=unlabeled,
    )


def train_on(
    source: Source | SliceCache,
    data: str,
    wishes: Mapping[str, Any],
    *,
    cache: str | Path | None = None,
    run: str | Path | None = None,
    device: str = "auto",
    init: str | Path | None = None,
    workers: int | None = None,
    unlabeled: str | Path | None = None,
) -> tuple[PrepareReport, TrainReport]:
    """``train`` on a source that is open already; ``data`` is its name."""
    planned = plan(source, data, wishes, cache=cache, run=run)
    opened, prepared = _filled(source, planned, workers)
    bare = None if unlabeled is None else _unlabeled(Path(unlabeled), opened, workers)
    trained = fit(planned.config, opened, planned.run, device=device, init=init, unlabeled=bare)
    return prepared, trained


def slices(
    data: str,
    wishes: Mapping[str, Any] | None = None,
    *,
    root: str | Path | None = None,
    cache: str | Path | None = None,
    workers: int | None = None,
    fill: bool = True,
) -> SliceCache:
    """The slice cache of ``data``, prepared where that is not done yet.

    Args:
        data: the name of a source, or the path of scans, pictures or a finished cache.
        wishes: settings of the config, such as ``{"data": {"size": 64}}``.
        root: where the data called by name is.
        cache: the slice cache; its own folder for each size and field where None.
        workers: processes that prepare.
        fill: whether to prepare; else the cache must be there.

    Raises:
        MedaugError: anything the user can correct.
    """
    source = open_data(data, root)
    planned = plan(source, data, wishes or {}, cache=cache)
    if not fill:
        return source if isinstance(source, SliceCache) else SliceCache.open(planned.cache)
    return _filled(source, planned, workers)[0]


def _filled(
    source: Source | SliceCache, planned: TrainPlan, workers: int | None
) -> tuple[SliceCache, PrepareReport]:
    """The finished cache of a source, and what was done for it."""
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


def _unlabeled(path: Path, beside: SliceCache, workers: int | None) -> SliceCache:
    """The cache of the scans in ``path``, cut like ``beside`` and kept next to it."""
    if (path / INDEX).is_file():
        return SliceCache.open(path)
    if beside.kind != "ct":
        raise ConfigError(f"unlabeled: {path} joins CT scans only, and {beside.path} has pictures")
    from medaug.data.sources.unlabeled import Unlabeled

    source = Unlabeled(path, cast(Literal["CT", "MR"], beside.modality))
    told = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    cache = beside.path.parent / f"{beside.path.name}-unlabeled-{told}"
    settings = replace(beside.settings, holdout=0.0)
    report = prepare(source, cache, settings, workers, (), share().pair)
    for problem in report.failed:
        tell(f"left out: {problem}")
    wait(cache)
    return SliceCache.open(cache)
