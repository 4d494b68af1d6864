"""Scans that are in a cache already, or in another one, under another name."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from medaug.data.checks.likeness import Likeness, same_scan, unpacked
from medaug.data.stored import CachedCase, SliceCache


def others(caches: Iterable[Path]) -> dict[str, CachedCase]:
    """The cases of other caches, by the name of the cache's source and their own.

    Raises:
        CacheError: a folder is no finished cache.
    """
    found: dict[str, CachedCase] = {}
    for path in caches:
        cache = SliceCache.open(path)
        found |= {f"{cache.source}/{id}": case for id, case in cache.cases.items()}
    return found


def twins(
    cases: Mapping[str, CachedCase], first: Collection[str], apart: Mapping[str, CachedCase]
) -> dict[str, str]:
    """Cases that are the same scan as another, and which.

    The one that stays is the one in ``apart``, else the one in ``first``, else the first by name;
    so neither workers nor interruptions decide, and who was held out stays held out.
    """
    kept: dict[str, tuple[CachedCase, Likeness]] = {
        name: (case, unpacked(case.likeness)) for name, case in apart.items()
    }
    found: dict[str, str] = {}
    for id in sorted(cases, key=lambda id: (id not in first, id)):
        case, seen = cases[id], unpacked(cases[id].likeness)
        for name, (other, known) in kept.items():
            if case.image_sha256 == other.image_sha256 or same_scan(seen, known):
                found[id] = name
                break
        else:
            kept[id] = (case, seen)
    return found
