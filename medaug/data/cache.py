"""The slice cache: volumes sliced once into memory-mapped arrays, z first, that training reads.

    cache/
      cache.json                   version, settings, split, what is in it; written first and last
      cases/PANCREAS_0001/
        image.npy                  (z, y, x) int16 HU, or uint8 grey levels
        label.npy                  (z, y, x) uint8, CT only
        classes.npy                (z,) uint8, pictures only
        case.json                  affine, labelled pixels per slice, a hash of each file

A case appears whole, by one rename, or not at all; so a run that was killed goes on where it was.
The files depend on the source and the settings alone, byte for byte: not on the workers, not on
interruptions.  Nothing of a patient is kept but the voxels, the geometry and the case's id.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medaug import geometry
from medaug.data import Source
from medaug.errors import CacheError, ConfigError, DataError, OutputError
from medaug.files import write_json
from medaug.progress import progress
from medaug.types import Affine, Problem

if TYPE_CHECKING:
    from medaug.data.filling import Outcome

VERSION = 1
INDEX = "cache.json"


@dataclass(frozen=True)
class CacheSettings:
    """How volumes become slices; pictures use ``size`` alone.

    Args:
        size: pixels along each side of a slice; None keeps pictures as they are.
        fov_mm: length of each side of a slice.
        center: what a slice is centred on: ``body``, ``image`` or ``label``.
        holdout: share of the patients held out of training.
        seed: of the split.
    """

    size: int | None = 128
    fov_mm: float = 400.0
    center: str = "body"
    holdout: float = 0.2
    seed: int = 0

    def check(self, kind: str) -> None:
        """Refuse values that cannot be meant.

        Raises:
            ConfigError: naming the setting, its value and the accepted range.
        """
        if self.size is None and kind == "ct":
            raise ConfigError("size: CT slices need a number of pixels, such as 128")
        if self.size is not None and not 8 <= self.size <= 1024:
            raise ConfigError(f"size: {self.size} pixels, accepted are 8 to 1024")
        if not 10 <= self.fov_mm <= 1000:
            raise ConfigError(f"fov_mm: {self.fov_mm:g} mm, accepted are 10 to 1000")
        if self.center not in ("body", "image", "label"):
            raise ConfigError(f"center: {self.center!r}, accepted are body, image, label")
        if not 0 <= self.holdout < 1:
            raise ConfigError(f"holdout: {self.holdout:g}, accepted are 0 to below 1")

    def relevant(self, kind: str) -> dict[str, Any]:
        """The settings that decide the content of a cache of this kind."""
        return asdict(self) if kind == "ct" else {"size": self.size}


@dataclass(frozen=True)
class CachedCase:
    """One scan, or one part of a picture collection, as memory-mapped slices.

    Attributes:
        affine: maps (x, y, z) of the cached grid to RAS+ mm.
        label_pixels: for each label, its pixels in each slice (z,).
        digest: a hash of the case's content.
    """

    id: str
    path: Path
    affine: Affine
    label_pixels: dict[str, npt.NDArray[np.int64]]
    digest: str
    kind: str

    @cached_property
    def image(self) -> npt.NDArray[Any]:
        """Slices (z, y, x): int16 HU, or uint8 grey levels."""
        return np.load(self.path / "image.npy", mmap_mode="r")

    @cached_property
    def label(self) -> npt.NDArray[np.uint8] | None:
        """Label maps (z, y, x), or None for pictures."""
        return np.load(self.path / "label.npy", mmap_mode="r") if self.kind == "ct" else None

    @cached_property
    def classes(self) -> npt.NDArray[np.uint8] | None:
        """The class id of each picture (z,), or None for CT."""
        return np.load(self.path / "classes.npy") if self.kind == "image" else None

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Pixel size and slice distance along x, y, z."""
        return geometry.spacing(self.affine)


@dataclass(frozen=True)
class SliceCache:
    """A finished slice cache, opened for reading.

    Attributes:
        fingerprint: a hash of all that training can see in it.
        split: ids of the cases under ``train`` and ``heldout``.
    """

    path: Path
    source: str
    kind: str
    labels: dict[str, int]
    classes: tuple[str, ...]
    settings: CacheSettings
    fingerprint: str
    split: dict[str, list[str]]
    cases: dict[str, CachedCase]

    @classmethod
    def open(cls, path: Path) -> "SliceCache":
        """Open the cache at ``path``; arrays are mapped when first used.

        Raises:
            CacheError: no cache there, one of another version, or a half-written one.
        """
        path = Path(path)
        index = read_index(path)
        if index is None:
            what = "not a slice cache" if path.is_dir() else "no such folder"
            raise CacheError(f"{path}: {what}; make one with medaug prepare")
        there = {id: read_case(path, id, index["kind"]) for id in index["expected"]}
        cases = {id: case for id, case in there.items() if case is not None}
        settled = len(cases) + len(index["failed"].keys() - cases.keys())
        if not index["complete"] or settled < len(there):
            raise CacheError(
                f"{path}: the cache is half-written: {len(cases)} of {len(there)} cases; "
                "run the same prepare command again to finish it"
            )
        return cls(
            path=path,
            source=index["source"],
            kind=index["kind"],
            labels=dict(sorted(index["labels"].items(), key=lambda item: item[1])),
            classes=tuple(index["classes"]),
            settings=CacheSettings(**index["settings"]),
            fingerprint=index["fingerprint"],
            split=index["split"],
            cases=cases,
        )


def read_index(path: Path) -> dict[str, Any] | None:
    """The content of ``cache.json``, or None where there is none.

    Raises:
        CacheError: damaged, or of another version.
    """
    try:
        index = json.loads((path / INDEX).read_text())
        version = index["version"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise CacheError(
            f"{path}: {INDEX} is damaged; delete the cache and prepare it again"
        ) from error
    if version != VERSION:
        raise CacheError(
            f"{path}: the cache has version {version}, this medaug reads {VERSION}; "
            "delete it and prepare it again"
        )
    return dict(index)


def read_case(path: Path, id: str, kind: str) -> CachedCase | None:
    """The case called ``id`` in the cache at ``path``, or None where it is not there."""
    folder = path / "cases" / id
    try:
        content: Mapping[str, Any] = json.loads((folder / "case.json").read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise CacheError(
            f"{folder}: case.json is damaged; delete the folder and prepare again"
        ) from error
    return CachedCase(
        id=id,
        path=folder,
        affine=np.array(content["affine"]),
        label_pixels={name: np.array(n) for name, n in content["label_pixels"].items()},
        digest=content["digest"],
        kind=kind,
    )


@dataclass(frozen=True)
class PrepareReport:
    """What `prepare` did.

    Attributes:
        done: cases written now.
        skipped: cases that were there already.
        failed: scans that could not be used, with the reason.
        excluded: scans left out by name, with the reason.
    """

    cache: Path
    done: list[str]
    skipped: list[str]
    failed: list[Problem]
    excluded: dict[str, str]
    seconds: float


def prepare(
    source: Source, cache: Path, settings: CacheSettings, workers: int | None = None
) -> PrepareReport:
    """Slice every case of ``source`` into ``cache``, or go on where an earlier call stopped.

    Args:
        source: from `medaug.data.open_source`.
        cache: a folder, made where needed.
        settings: of the slices and the split.
        workers: processes; None takes one per core, 0 none besides this one.

    Raises:
        CacheError: the folder holds a cache with other settings, or something else.
        ConfigError: a setting out of range.
        DataError: nothing in the source is usable.
        OutputError: the disk cannot take it.
    """
    started = time.monotonic()
    cache = Path(cache)
    settings.check(source.kind)
    if workers is not None and workers < 0:
        raise ConfigError(f"workers: {workers}, accepted are 0 and more")
    before = read_index(cache)
    if before is None:
        if cache.exists() and not cache.is_dir():
            raise CacheError(f"{cache}: a file, not a folder")
        if cache.is_dir() and any(not p.name.startswith(".") for p in cache.iterdir()):
            raise CacheError(f"{cache}: holds files but no slice cache; choose an empty folder")
    index: dict[str, Any] = {
        "version": VERSION,
        "source": source.name,
        "kind": source.kind,
        "labels": dict(source.labels),
        "classes": list(source.classes) if source.kind == "image" else [],
        "settings": settings.relevant(source.kind),
    }
    if before is not None:
        _check_same(cache, before, index)
    problems: list[Problem] = []
    work: Mapping[str, Any]
    if source.kind == "ct":
        cases, problems = source.cases()
        work = {case.id: case for case in cases}
    else:
        work = source.parts()
    if not work:
        raise DataError(_nothing_usable(source.name, problems))

    index |= {"expected": sorted(work), "failed": {}, "split": {}, "fingerprint": ""}
    there = [id for id in index["expected"] if read_case(cache, id, source.kind) is not None]
    todo = {id: work[id] for id in index["expected"] if id not in there}
    done: list[str] = []
    if todo or before is None or not before["complete"] or before["expected"] != sorted(work):
        write_json(cache / INDEX, index | {"complete": False})
        for outcome in _fill(source, cache, settings, todo, workers, len(there)):
            if outcome.stop:
                raise OutputError(outcome.stop)
            if outcome.failed:
                index["failed"][outcome.case] = outcome.failed
            else:
                done.append(outcome.case)
        problems += [Problem(id, reason) for id, reason in index["failed"].items()]
        if not done and not there:
            raise DataError(_nothing_usable(source.name, problems))
        write_json(cache / INDEX, _finished(cache, index))
    return PrepareReport(
        cache=cache,
        done=sorted(done),
        skipped=there,
        failed=sorted(problems, key=lambda p: p.case),
        excluded=dict(getattr(source, "excluded", {})),
        seconds=time.monotonic() - started,
    )


def _nothing_usable(name: str, problems: Sequence[Problem]) -> str:
    first = f"; the first: {problems[0]}" if problems else ""
    return f"{name}: none of its {len(problems)} scans can be used{first}"


def _check_same(cache: Path, before: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Refuse to mix two sources or two ways of slicing in one cache."""
    pairs = {
        "source": (before["source"], asked["source"]),
        "labels": (before["labels"], asked["labels"]),
        **{name: (before["settings"][name], value) for name, value in asked["settings"].items()},
    }
    for name, (cached, wanted) in pairs.items():
        if cached != wanted:
            raise CacheError(
                f"{cache}: the cache was made with {name} {cached}, asked for {wanted}; "
                "give the same, or another cache folder"
            )


def _fill(
    source: Source,
    cache: Path,
    settings: CacheSettings,
    todo: Mapping[str, Any],
    workers: int | None,
    there: int,
) -> Iterator["Outcome"]:
    """Write the cases in ``todo``, yielding what became of each."""
    from medaug.data import filling

    filling.remove_leftovers(cache / "cases")
    if source.kind == "ct":
        assert settings.size is not None
        cut = filling.Slice(
            cache / "cases", source.labels, settings.size, settings.fov_mm, settings.center
        )
        count = min(len(os.sched_getaffinity(0)) if workers is None else workers, len(todo))
        if workers is None and count == 1:
            count = 0
        results = filling.outcomes(list(todo.values()), cut, count)
    else:
        results = filling.pictures(cache / "cases", todo, settings.size)
    unit = "scans" if source.kind == "ct" else "parts"
    with progress("prepare", there + len(todo), unit, done=there) as bar:
        for outcome in results:
            bar.advance(note=outcome.case)
            yield outcome


def _finished(cache: Path, index: dict[str, Any]) -> dict[str, Any]:
    """The index of a cache whose cases are all there or known to fail."""
    cases = [read_case(cache, id, index["kind"]) for id in index["expected"]]
    digests = {case.id: case.digest for case in cases if case is not None}
    if index["kind"] == "image":
        split = {"train": ["train"], "heldout": ["test"]}
    else:
        settings = index["settings"]
        split = split_patients(list(digests), settings["holdout"], settings["seed"])
    seen = {name: index[name] for name in ("version", "kind", "labels", "classes", "settings")}
    canonical = json.dumps([seen, digests, split], sort_keys=True)
    fingerprint = hashlib.sha256(canonical.encode()).hexdigest()
    return index | {"split": split, "fingerprint": fingerprint, "complete": True}


def split_patients(ids: Sequence[str], holdout: float, seed: int) -> dict[str, list[str]]:
    """Hold out the patients whose names rank lowest under ``seed``; order and count play no part.

    Returns:
        ``train`` and ``heldout``, the latter ``round(holdout * len(ids))`` patients.
    """
    from medaug import seeds

    ranked = sorted(ids, key=lambda id: seeds.derive(seed, "split", id))
    held = round(holdout * len(ranked))
    return {"train": sorted(ranked[held:]), "heldout": sorted(ranked[:held])}
