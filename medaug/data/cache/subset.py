"""Make a cache of some patients of another one, from which nothing of the others can be reached.

The slices are links to those of the whole cache, which must stay where it is.
"""

import hashlib
import io
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medaug.core.errors import CacheError
from medaug.core.types import LabelMap
from medaug.data.cache.store import (
    INDEX,
    CachedCase,
    SliceCache,
    fingerprint,
    read_index,
    sealed_case,
    unsealed_case,
)
from medaug.runtime.files import explaining, parse_json, sealed, write_bytes, write_json


def part(
    whole: SliceCache,
    place: Path,
    labeled: Collection[str],
    bare: Collection[str] = (),
    guessed: Mapping[str, LabelMap] | None = None,
) -> SliceCache:
    """Make a cache of some patients of a CT cache, all for training, or open it where it is.

    Args:
        whole: where their slices are.
        place: a folder, new or of an earlier call with the same patients.
        labeled: ids of those that come with their label maps.
        bare: ids of those that come without.
        guessed: ids of those that come with other label maps (z, y, x), and the maps.

    Raises:
        CacheError: patients that are not there or have no label, or a folder of other patients.
        OutputError: the disk cannot take it.
    """
    guessed = guessed or {}
    for name in (*labeled, *bare, *guessed):
        if name not in whole.cases:
            raise CacheError(f"{whole.path}: holds no case {name}")
    for name in labeled:
        if not whole.cases[name].labeled:
            raise CacheError(f"{whole.path}: the case {name} has no label")
    before = read_index(whole.path)
    assert before is not None
    ids = sorted({*labeled, *bare, *guessed})
    maps = {name: _npy(marks) for name, marks in guessed.items()}
    facts = {name: _facts(whole.cases[name], name in labeled) for name in ids}
    for name, marks in guessed.items():
        facts[name] = _relabeled(facts[name], marks, maps[name], whole.labels)
    split = {"train": ids, "heldout": []}
    index: dict[str, Any] = before | {"expected": ids, "failed": {}, "split": split}
    digests = {name: found["digest"] for name, found in facts.items()}
    index["fingerprint"] = fingerprint(index, digests, split)
    there = read_index(place)
    if there is not None and there["fingerprint"] != index["fingerprint"]:
        raise CacheError(f"{place}: holds other patients; choose another folder")
    with explaining(place):
        for name in ids:
            _link(whole.cases[name], place / "cases" / name, facts[name], maps.get(name))
    write_json(place / INDEX, sealed(index))
    return SliceCache.open(place)


def _facts(case: CachedCase, labeled: bool) -> dict[str, Any]:
    """The content of ``case.json``, with or without its label map."""
    content = unsealed_case(parse_json((case.path / "case.json").read_text()))
    if labeled or not case.labeled:
        return sealed_case(content)
    for what in ("bytes", "sha256"):
        content[what].pop("label.npy")
    content["label_pixels"] = {}
    return sealed_case(content)


def _relabeled(
    facts: Mapping[str, Any], marks: LabelMap, npy: bytes, labels: Mapping[str, int]
) -> dict[str, Any]:
    """``facts`` of a case without its label map, for another one."""
    pixels = {name: (marks == id).sum((1, 2)).tolist() for name, id in labels.items()}
    return sealed_case(
        {
            **facts,
            "bytes": {**facts["bytes"], "label.npy": len(npy)},
            "label_pixels": pixels,
            "sha256": {**facts["sha256"], "label.npy": hashlib.sha256(npy).hexdigest()},
        }
    )


def _npy(marks: LabelMap) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(marks, np.uint8), allow_pickle=False)
    return stream.getvalue()


def _link(case: CachedCase, folder: Path, facts: dict[str, Any], marks: bytes | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in facts["bytes"]:
        file = folder / name
        file.unlink(missing_ok=True)
        if name == "label.npy" and marks is not None:
            write_bytes(file, marks)
        else:
            file.symlink_to((case.path / name).resolve())
    write_json(folder / "case.json", facts)
