"""Open slice caches on disk: memory-mapped arrays, z first, that training reads.

    cache/
      cache.json                   version, settings, split, what is in it; written first and last
      cases/PANCREAS_0001/
        image.npy                  (z, y, x) int16 HU, MR in thousandths, or uint8 levels;
                                   (z, y, x, 3) where RGB
        label.npy                  (z, y, x) uint8, CT only
        classes.npy                (z,) unsigned, pictures in classes only
        attributes.npy             (z, attributes) bool, pictures with attributes only
        case.json                  affine, labelled pixels per slice, a hash of each file; what is
                                   doubtful, and a likeness to recognise it under another name
        source.json                hashes of what it was cut from

A case appears whole, by one rename, or not at all; so a run that was killed can be continued.
The files depend on the source and the settings alone, byte for byte: not on the workers, not on
interruptions; only source.json knows of the times of the source's files.  Nothing of a patient is
kept but the voxels, the geometry and the case's id; reasons why a scan was refused are kept without
the names of its files.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medaug.core import geometry, seeds
from medaug.core.errors import CacheError, ConfigError
from medaug.core.text import is_file_name
from medaug.core.types import Affine
from medaug.data.cache.arrays import mapped
from medaug.runtime.files import parse_json, unsealed

VERSION = 1
INDEX = "cache.json"
COLOURS = {"grey": 1, "rgb": 3}
"""What a picture is stored as: name to channels."""
NOTES = ("doubts", "likeness")
"""What ``case.json`` holds besides what training sees; the digest leaves it out."""
_KEYS = {
    "version",
    "source",
    "kind",
    "labels",
    "classes",
    "settings",
    "expected",
    "failed",
    "split",
    "fingerprint",
    "complete",
}


@dataclass(frozen=True)
class CacheSettings:
    """How volumes and pictures become slices.

    Pictures use ``size``, and photographs also ``colour`` and, where their data set has no
    partition of its own, ``holdout`` and ``seed``.

    Args:
        size: pixels along each side of a slice; None keeps pictures as they are.
        fov_mm: length of each side of a slice.
        center: what a slice is centred on: ``body``, ``image`` or ``label``.
        holdout: share of the patients held out of training.
        seed: of the split.
        colour: ``grey`` or ``rgb``; None keeps photographs as they are.
    """

    size: int | None = 128
    fov_mm: float = 400.0
    center: str = "body"
    holdout: float = 0.2
    seed: int = 0
    colour: str | None = None

    def check(self, kind: str) -> None:
        """Refuse values out of range for a ``kind`` of source, ``ct`` or ``image``.

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
        if self.colour not in (None, *COLOURS):
            raise ConfigError(f"colour: {self.colour!r}, accepted are {', '.join(COLOURS)}")
        if not 0 <= self.holdout < 1:
            raise ConfigError(f"holdout: {self.holdout:g}, accepted are 0 to below 1")

    def only(self, *names: str) -> dict[str, Any]:
        """Some of the settings, by name."""
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class CachedCase:
    """One scan, or one part of a picture collection, as memory-mapped slices.

    Attributes:
        affine: maps (x, y, z) of the cached grid to RAS+ mm.
        label_pixels: for each label, its pixels in each slice (z,).
        digest: a hash of the case's content.
        labeled: whether it has a label map.
        image_sha256: of its slices.
        files: the names of its arrays.
        left_out: pictures of the source that it lacks, by their place there, with the reason.
        doubts: what is doubtful about it, by check.
        likeness: areas of its tissues along the body; empty where there are none.
        sha256: of each of ``files``; an array is compared with it when it is first used.
    """

    id: str
    path: Path
    affine: Affine
    label_pixels: dict[str, npt.NDArray[np.int64]]
    digest: str
    kind: str
    labeled: bool = False
    image_sha256: str = ""
    files: tuple[str, ...] = ()
    left_out: Mapping[int, str] = field(default_factory=dict)
    doubts: Mapping[str, str] = field(default_factory=dict)
    likeness: Sequence[Sequence[int]] = ()
    sha256: Mapping[str, str] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the arrays, which the unpickled case maps again."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @cached_property
    def image(self) -> npt.NDArray[Any]:
        """Slices (z, y, x): int16 HU, MR in thousandths, or uint8 levels, (z, y, x, 3) if RGB."""
        return self._mapped("image.npy", "iu", (3, 4))

    @cached_property
    def label(self) -> npt.NDArray[np.uint8] | None:
        """Label maps (z, y, x), or None for pictures and scans without a label."""
        return self._mapped("label.npy", "u", (3,)) if self.labeled else None

    @cached_property
    def classes(self) -> npt.NDArray[np.unsignedinteger[Any]] | None:
        """The class id of each picture (z,), or None where there are none."""
        there = "classes.npy" in self.files
        return np.array(self._mapped("classes.npy", "u", (1,))) if there else None

    @cached_property
    def attributes(self) -> npt.NDArray[np.bool_]:
        """Which attributes each picture has (z, attributes); of none where there are none."""
        if "attributes.npy" in self.files:
            return np.array(self._mapped("attributes.npy", "b", (2,)))
        return np.zeros((len(self.image), 0), bool)

    def _mapped(self, name: str, kinds: str, ranks: tuple[int, ...]) -> npt.NDArray[Any]:
        """Map one of its arrays into memory.

        Raises:
            CacheError: damaged, or an array that no cache holds, such as one of Python objects.
        """
        path = self.path / name
        if not self._is_sound(name):
            raise CacheError(
                f"{path}: damaged, its content does not match its checksum; run the same prepare "
                "command again, which cuts the case again"
            )
        found = mapped(path)
        if found.dtype.kind not in kinds or found.ndim not in ranks:
            raise CacheError(
                f"{path}: not an array of a slice cache ({found.dtype} with {found.ndim} axes); "
                f"delete {self.path} and run the same prepare command again"
            )
        return found

    def damaged(self) -> str:
        """The name of a file that is not what was written, or an empty string."""
        return next((name for name in self.files if not self._is_sound(name)), "")

    def _is_sound(self, name: str) -> bool:
        path = self.path / name
        status = path.stat()
        known = self.sha256.get(name)
        return known is None or known == _sha256(path, status.st_size, status.st_mtime_ns)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Pixel size and slice distance along x, y, z."""
        return geometry.spacing(self.affine)


@lru_cache(4096)
def _sha256(path: Path, size: int, written: int) -> str:
    """Hash a file, once in a process as long as its size and time stay."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class SliceCache:
    """A finished slice cache, opened for reading.

    Attributes:
        fingerprint: a hash of all that training can see in it.
        split: ids of the cases under ``train``, ``heldout`` and, of some pictures, ``validation``.
        attributes: names of what each picture has or has not.
        modality: ``CT`` in HU or ``MR`` in thousandths of each scan's range.
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
    attributes: tuple[str, ...] = ()
    modality: str = "CT"

    @property
    def size(self) -> int:
        """Pixels a side of its slices."""
        return int(next(iter(self.cases.values())).image.shape[2])

    @property
    def channels(self) -> int:
        """3 where its pictures are RGB, else 1."""
        return 3 if next(iter(self.cases.values())).image.ndim == 4 else 1

    @property
    def content(self) -> str:
        """What the slices are, as runs and outputs name it: ``ct``, ``mr`` or ``image``."""
        return "mr" if self.modality == "MR" else self.kind

    @property
    def holds(self) -> str:
        """The same in words: CT, MR or pictures."""
        return "pictures" if self.kind == "image" else self.modality

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
        for id in index["expected"]:
            if not is_file_name(id):
                raise CacheError(f"{path}: {INDEX} names a case {id!r}, which cannot be a folder")
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
            attributes=tuple(index.get("attributes", ())),
            modality=index.get("modality", "CT"),
        )


def read_index(path: Path) -> dict[str, Any] | None:
    """Read ``cache.json``; None where there is none.

    Raises:
        CacheError: damaged, or of another version.
    """
    try:
        index = parse_json((path / INDEX).read_text())
        version = index["version"]
        if version == VERSION:
            index = unsealed(index)
            if not index.keys() >= _KEYS:
                raise KeyError(*(_KEYS - index.keys()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CacheError(
            f"{path}: {INDEX} is damaged; delete the cache and prepare it again"
        ) from error
    if version != VERSION:
        raise CacheError(
            f"{path}: the cache has version {version}, this medaug reads {VERSION}; "
            "delete it and prepare it again"
        )
    return dict(index)


def fingerprint(
    index: Mapping[str, Any], digests: Mapping[str, str], split: Mapping[str, Sequence[str]]
) -> str:
    """Hash all that training can see in a cache.

    Args:
        index: the content of ``cache.json``.
        digests: of the cases, by id.
        split: ids by side.
    """
    seen = {name: index[name] for name in ("version", "kind", "labels", "classes", "settings")}
    if index.get("attributes"):
        seen["attributes"] = index["attributes"]
    if index.get("modality", "CT") != "CT":
        seen["modality"] = index["modality"]
    canonical = json.dumps([seen, digests, split], sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def split_patients(
    ids: Sequence[str],
    holdout: float,
    seed: int,
    known: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, list[str]]:
    """Hold out the patients whose names rank lowest under a seed; order and count play no part.

    Args:
        ids: of patients, people or pictures.
        holdout: share to hold out, from 0 to 1.
        seed: of the ranking.
        known: an earlier split, whose patients stay on their side, so that none that was held out
            enters training when scans are added.

    Returns:
        ``train`` and ``heldout``, the latter ``round(holdout * len(ids))`` patients, or fewer
        where the earlier split leaves no more to choose from.
    """
    known = known or {}
    there, settled = set(ids), {id for side in known.values() for id in side}
    kept = [id for id in known.get("heldout", ()) if id in there]
    free = [id for id in ids if id not in settled]
    ranked = sorted(free, key=lambda id: seeds.derive(seed, "split", id))
    out = {*kept, *ranked[: max(round(holdout * len(ids)) - len(kept), 0)]}
    return {"train": sorted(there - out), "heldout": sorted(out)}


def read_case(path: Path, id: str, kind: str) -> CachedCase | None:
    """Read the case ``id`` of the cache at ``path``; None where it is not there.

    Raises:
        CacheError: damaged.
    """
    folder = path / "cases" / id
    again = f"delete {folder} and run the same prepare command again"
    try:
        content = unsealed_case(parse_json((folder / "case.json").read_bytes()))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise CacheError(f"{folder}: case.json is damaged; {again}") from error
    for name, expected in content["bytes"].items():
        file = folder / name
        found = file.stat().st_size if file.is_file() else 0
        if found != expected:
            raise CacheError(f"{file}: holds {found} bytes, should hold {expected}; {again}")
    return CachedCase(
        id=id,
        path=folder,
        affine=np.array(content["affine"]),
        label_pixels={name: np.array(n) for name, n in content["label_pixels"].items()},
        digest=content["digest"],
        kind=kind,
        labeled="label.npy" in content["bytes"],
        image_sha256=content["sha256"]["image.npy"],
        files=tuple(content["bytes"]),
        left_out={int(place): reason for place, reason in content.get("left_out", {}).items()},
        doubts=content.get("doubts", {}),
        likeness=content.get("likeness", ()),
        sha256=content["sha256"],
    )


def sealed_case(content: Mapping[str, Any]) -> dict[str, Any]:
    """Add to the content of ``case.json`` its digest, and a checksum that covers the notes too."""
    bare = {key: value for key, value in content.items() if key not in ("digest", "check")}
    seen = {key: value for key, value in bare.items() if key not in NOTES}
    digested = {**bare, "digest": _hash(seen)}
    return {**digested, "check": _hash(digested)}


def unsealed_case(content: Any) -> dict[str, Any]:
    """Check and return what `sealed_case` made; older content has no ``check``.

    Raises:
        ValueError: it does not match its digest or its checksum.
    """
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    sound = sealed_case(content)
    if (content.get("digest"), content.get("check", sound["check"])) != (
        sound["digest"],
        sound["check"],
    ):
        raise ValueError("the content does not match its digest")
    return {key: value for key, value in content.items() if key != "check"}


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
