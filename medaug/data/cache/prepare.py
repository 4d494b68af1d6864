"""Prepare a slice cache: cut every case of a source once, in parallel, resumable."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medaug.core.errors import CacheError, ConfigError, DataError, OutputError
from medaug.core.types import Problem
from medaug.data.cache import changes, shards
from medaug.data.cache.duplicates import Known, identity, others, same_as, twins
from medaug.data.cache.store import (
    INDEX,
    VERSION,
    CachedCase,
    CacheSettings,
    SliceCache,
    fingerprint,
    read_case,
    read_index,
    split_patients,
)
from medaug.data.source import Block, Source
from medaug.runtime.distributed import share
from medaug.runtime.files import exclusive, locked, remove_parts, sealed, write_json
from medaug.runtime.progress import progress

if TYPE_CHECKING:
    from medaug.data.cache.fill import Outcome

__all__ = ["CacheSettings", "CachedCase", "PrepareReport", "SliceCache", "prepare"]


@dataclass(frozen=True)
class PrepareReport:
    """What `prepare` did.

    Attributes:
        done: cases written now.
        skipped: cases that were there already.
        failed: scans that could not be used, with the reason.
        excluded: scans left out by name, with the reason.
        doubtful: scans that are in the cache, with what is doubtful about them.
        changed: cases cut again, now done or failed, with what had changed in the source.
        complete: whether the cache is finished, or waits for other shares.
    """

    cache: Path
    done: list[str]
    skipped: list[str]
    failed: list[Problem]
    excluded: dict[str, str]
    seconds: float
    doubtful: list[Problem] = field(default_factory=list)
    changed: dict[str, str] = field(default_factory=dict)
    complete: bool = True


def prepare(
    source: Source,
    cache: Path,
    settings: CacheSettings,
    workers: int | None = None,
    apart_from: Sequence[Path] = (),
    part: tuple[int, int] = (0, 1),
) -> PrepareReport:
    """Cut every case of a source into a cache, or continue where an earlier call stopped.

    A case whose files in the source have changed since is cut again.

    Args:
        source: from `medaug.data.open_source`.
        cache: a folder, made where needed.
        settings: of the slices and the split.
        workers: processes; None takes one per core, 0 none besides this one.
        apart_from: other caches; a scan that is in one of them is refused.
        part: (i, k) for share i of k, counted from 0; the last of k processes to end finishes the
            cache, which is then that of one process, byte for byte.

    Raises:
        CacheError: the folder holds a cache with other settings, or something else.
        ConfigError: a setting out of range.
        DataError: nothing in the source is usable.
        OutputError: the disk cannot take it.
    """
    started = time.monotonic()
    cache = Path(cache)

    # Refuse what cannot work, before anything is read.
    settings.check(source.kind)
    shards.check(part)
    if settings.colour is not None and getattr(source, "colour", None) is None:
        raise ConfigError(f"colour: {source.name} is kept as it is; leave the setting out")
    if workers is not None and workers < 0:
        raise ConfigError(f"workers: {workers}, accepted are 0 and more")
    before = _earlier(cache)
    index = _description(source, settings)
    if before is not None:
        _check_same(cache, before, index)

    # List the cases of the source.
    work: Mapping[str, Any]
    if source.kind == "ct":
        cases, problems = source.cases()
        work = {case.id: case for case in cases}
    else:
        work, problems = source.blocks(settings), list(source.problems)
        index["sides"] = {id: block.side for id, block in work.items()}
    if not work:
        raise DataError(_nothing_usable(source.name, problems))
    known = before["split"] if before is not None else {}
    index |= {"expected": sorted(work), "failed": {}, "split": known, "fingerprint": ""}
    apart = others(apart_from)

    # Find what is to be cut: cases never cut, damaged in the cache, or changed in the source.
    there = [id for id in index["expected"] if (cache / "cases" / id).is_dir()]
    changed = _damaged(cache, there, source.kind)
    changed |= _changed(cache, {id: work[id] for id in there if id not in changed})
    missing = work.keys() - (set(there) - changed.keys())
    own = shards.mine(index["expected"], part)
    if part[1] > 1 and before is not None and before["complete"]:
        # what has failed stays so, else one share would undo what all have finished
        lasting = missing & before["failed"].keys()
        problems += [Problem(id, before["failed"][id]) for id in sorted(lasting & own)]
        missing -= lasting
    skipped = [id for id in there if id in own and id not in changed]
    changed = {id: why for id, why in changed.items() if id in own}

    # Cut it, and finish the cache if no other share is still at work.
    done: list[str] = []
    other = before is None or not before["complete"] or before["expected"] != index["expected"]
    if missing or other or apart:
        records = shards.Records(cache, part, index)
        with shards.sharing(cache, part):
            if part[1] == 1:
                remove_parts(cache)
            with locked(cache / shards.BRIEF):
                records.begin()
                write_json(cache / INDEX, sealed(index | {"complete": False}))
            todo = {id: work[id] for id in sorted(missing & own)}
            leftovers = None if part[1] == 1 else own
            for outcome in _fill(
                source, cache, settings, todo, changed, leftovers, workers, len(skipped)
            ):
                if outcome.stop:
                    raise OutputError(outcome.stop)
                if outcome.failed:
                    index["failed"][outcome.case] = outcome.nameless
                    problems.append(Problem(outcome.case, outcome.failed))
                else:
                    done.append(outcome.case)
            with locked(cache / shards.BRIEF):
                failed = records.leave(index["failed"])
                if failed is not None:
                    doubles = _remove_twins(cache, index, apart)
                    index["failed"] = failed | doubles
                    problems += [Problem(id, reason) for id, reason in doubles.items()]
                    done, skipped = (
                        [id for id in ids if id not in doubles] for ids in (done, skipped)
                    )
                    if index["failed"].keys() >= work.keys():
                        raise DataError(_nothing_usable(source.name, problems))
                    write_json(cache / INDEX, sealed(_finished(cache, index)))
                    records.clear()
    else:
        shards.sweep(cache)

    # Report.
    if source.kind == "image":
        problems += _left_out(cache, work)
    found = {id: read_case(cache, id, source.kind) for id in sorted([*done, *skipped])}
    return PrepareReport(
        cache=cache,
        done=sorted(done),
        skipped=skipped,
        failed=sorted(problems, key=lambda p: p.case),
        excluded=dict(getattr(source, "excluded", {})),
        seconds=time.monotonic() - started,
        doubtful=[
            Problem(id, f"{check}: {reason}")
            for id, case in found.items()
            if case is not None
            for check, reason in case.doubts.items()
        ],
        changed=changed,
        complete=bool((read_index(cache) or {}).get("complete")),
    )


def _earlier(cache: Path) -> dict[str, Any] | None:
    """The index of the cache that is there already, or None for a folder without files.

    Raises:
        CacheError: something else is there.
    """
    before = read_index(cache)
    if before is None and cache.exists():
        if not cache.is_dir():
            raise CacheError(f"{cache}: a file, not a folder")
        if any(not p.name.startswith(".") for p in cache.iterdir()):
            raise CacheError(f"{cache}: holds files but no slice cache; choose an empty folder")
    return before


def _description(source: Source, settings: CacheSettings) -> dict[str, Any]:
    """What the index says before any case is listed."""
    index: dict[str, Any] = {
        "version": VERSION,
        "source": source.name,
        "kind": source.kind,
        "labels": dict(source.labels),
        "classes": list(source.classes) if source.kind == "image" else [],
        "settings": relevant(source, settings),
    }
    if source.kind == "image":
        more = {"attributes": list(source.attributes), "listing": source.listing()}
        return index | {key: value for key, value in more.items() if value}
    return index | {"modality": source.modality}


def relevant(source: Source, settings: CacheSettings) -> dict[str, Any]:
    """Select the settings that determine what a cache of ``source`` holds."""
    if source.kind == "image":
        return source.relevant(settings)
    return settings.only("size", "fov_mm", "center", "holdout", "seed")


def _left_out(cache: Path, blocks: Mapping[str, Block]) -> list[Problem]:
    """The pictures that could not be decoded; the cache knows their places, not their names."""
    cases = {id: read_case(cache, id, "image") for id in blocks}
    return [
        Problem(blocks[id].names[place], reason)
        for id, case in cases.items()
        if case is not None
        for place, reason in case.left_out.items()
    ]


def _remove_twins(
    cache: Path, index: Mapping[str, Any], apart: Mapping[str, Known]
) -> dict[str, str]:
    """Remove the cases that are the same scan as another one; returns the reasons by id."""
    from medaug.data.cache import fill

    if index["kind"] != "ct":
        return {}
    cases = {id: read_case(cache, id, index["kind"]) for id in index["expected"]}
    first = [id for side in index["split"].values() for id in side]
    scans = {id: identity(case) for id, case in cases.items() if case is not None}
    found = twins(scans, first, apart)
    fill.discard(cache / "cases", found)
    return {id: same_as(other) for id, other in found.items()}


def _damaged(cache: Path, there: Sequence[str], kind: str) -> dict[str, str]:
    """The cases of which a file in the cache is not what was written, with its name."""
    found = {}
    for id in there:
        try:
            case = read_case(cache, id, kind)
            file = "case.json" if case is None else case.damaged()
        except CacheError as error:
            found[id] = str(error).partition(";")[0]
            continue
        if file:
            found[id] = f"{file} in the cache was damaged"
    return found


def _changed(cache: Path, there: Mapping[str, Any]) -> dict[str, str]:
    """The cases whose source is not what they were cut from, with what has changed."""
    cases = cache / "cases"
    moved = [id for id, item in there.items() if changes.moved(cases / id, item)]
    if not moved:
        return {}
    found = {}
    with progress("compare", len(moved), "cases") as bar:
        for id in moved:
            found[id] = changes.since(cases / id, there[id])
            bar.advance(note=id)
    _keep_times(cache, {id: there[id] for id in moved if not found[id]})
    return {id: why for id, why in found.items() if why}


def _keep_times(cache: Path, same: Mapping[str, Any]) -> None:
    """Spare the next call the comparison, if this one can write."""
    with suppress(OutputError), exclusive(cache):
        for id, item in same.items():
            changes.keep(cache / "cases" / id, item)


def _nothing_usable(name: str, problems: Sequence[Problem]) -> str:
    first = f"; the first: {problems[0]}" if problems else ""
    return f"{name}: none of its {len(problems)} scans can be used{first}"


def _check_same(cache: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to mix two sources or two ways of slicing in one cache."""
    pairs = {
        "source": (before["source"], now["source"]),
        "labels": (before["labels"], now["labels"]),
        "modality": (before.get("modality", "CT"), now.get("modality", "CT")),
        **{
            name: (before["settings"].get(name), now["settings"].get(name))
            for name in now["settings"] | before["settings"]
        },
    }
    for name, (cached, requested) in pairs.items():
        if cached != requested:
            raise CacheError(
                f"{cache}: the cache was made with {name} {cached}, asked for {requested}; "
                "give the same, or another cache folder"
            )
    if before.get("listing") != now.get("listing"):
        counts = [found.get("listing", {}).get("pictures", "other") for found in (before, now)]
        raise CacheError(
            f"{cache}: the cache was made of {counts[0]} pictures, and there are {counts[1]} now, "
            "or other ones; give another cache folder"
        )


def _fill(
    source: Source,
    cache: Path,
    settings: CacheSettings,
    todo: Mapping[str, Any],
    changed: Iterable[str],
    leftovers: Iterable[str] | None,
    workers: int | None,
    there: int,
) -> Iterator["Outcome"]:
    """Write cases, yielding what became of each.

    Args:
        source: of the cases.
        cache: the folder.
        settings: of the slices.
        todo: scans or blocks of pictures by id.
        changed: ids of those that are in the cache and no longer right.
        leftovers: ids whose half-written cases are removed; None for all.
        workers: processes; None takes one per core, 0 none besides this one.
        there: cases that need not be written, for the progress bar.
    """
    from medaug.data.cache import fill

    fill.remove_leftovers(cache / "cases", leftovers)
    fill.discard(cache / "cases", changed)
    cores = max(_cores() // share().neighbours, 1)
    count = min(cores if workers is None else workers, _cores(), len(todo))
    if workers is None and count == 1:
        count = 0
    if source.kind == "ct":
        assert settings.size is not None
        write = partial(
            fill.write_scan,
            cases=cache / "cases",
            labels=dict(source.labels),
            size=settings.size,
            fov_mm=settings.fov_mm,
            center=settings.center,
            modality=source.modality,
        )
        results = fill.outcomes(list(todo.values()), write, count)
    else:
        results = fill.outcomes(
            list(todo.items()), partial(fill.write_block, cases=cache / "cases"), count
        )
    unit = "scans" if source.kind == "ct" else "blocks"
    with progress("prepare", there + len(todo), unit, done=there) as bar:
        for outcome in results:
            bar.advance(note=outcome.case)
            yield outcome


def _cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _finished(cache: Path, index: dict[str, Any]) -> dict[str, Any]:
    """The index of a cache whose cases are all there or known to fail."""
    cases = [read_case(cache, id, index["kind"]) for id in index["expected"]]
    digests = {case.id: case.digest for case in cases if case is not None}
    if index["kind"] == "image":
        sides = index.pop("sides")
        split: dict[str, list[str]] = {side: [] for side in ("train", "heldout")}
        for id in sorted(digests):
            split.setdefault(sides[id], []).append(id)
    else:
        settings = index["settings"]
        labeled = [case.id for case in cases if case is not None and case.labeled]
        rest = sorted(digests.keys() - set(labeled))
        known = {side: [id for id in ids if id in labeled] for side, ids in index["split"].items()}
        split = split_patients(labeled, settings["holdout"], settings["seed"], known)
        split["train"] = sorted([*split["train"], *rest])
    whole = {"split": split, "fingerprint": fingerprint(index, digests, split), "complete": True}
    return index | whole
