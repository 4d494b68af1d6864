"""Find scans that are in a collection already, or in another one, under another name."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from medaug.data.cache.store import CachedCase, SliceCache
from medaug.data.checks.likeness import Likeness, same_scan, unpacked


@dataclass(frozen=True)
class Known:
    """By what a scan is recognised.

    Attributes:
        sha256: of its voxels, or empty where they cannot be compared.
        likeness: areas of its tissues along the body.
    """

    sha256: str
    likeness: Likeness


def identity(case: CachedCase) -> Known:
    """By what a cached scan is recognised."""
    return Known(case.image_sha256, unpacked(case.likeness))


def others(caches: Iterable[Path]) -> dict[str, Known]:
    """List the scans of other caches, by the name of the cache's source and their own.

    Raises:
        CacheError: a folder is no finished cache.
    """
    found: dict[str, Known] = {}
    for path in caches:
        cache = SliceCache.open(path)
        found |= {f"{cache.source}/{id}": identity(case) for id, case in cache.cases.items()}
    return found


def twins(
    scans: Mapping[str, Known], first: Collection[str], apart: Mapping[str, Known]
) -> dict[str, str]:
    """Find scans that are the same as another one, by id, with the name of the other.

    The one that stays is the one in ``apart``, else the one in ``first``, else the first by name;
    so neither workers nor interruptions decide, and a scan that was held out stays held out.

    Args:
        scans: to compare, by id.
        first: ids that are in the split already.
        apart: scans of other caches, by name.
    """
    kept = dict(apart)
    found: dict[str, str] = {}
    for id in sorted(scans, key=lambda id: (id not in first, id)):
        scan = scans[id]
        for name, other in kept.items():
            same = scan.sha256 == other.sha256 if scan.sha256 else False
            if same or same_scan(scan.likeness, other.likeness):
                found[id] = name
                break
        else:
            kept[id] = scan
    return found


def same_as(other: str) -> str:
    """The sentence about a scan that is the same as ``other``."""
    return f"the same scan as {other}, under another name"
