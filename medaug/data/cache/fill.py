"""Fill a slice cache: cases cut in parallel and written whole."""

import ctypes
import glob
import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from medaug.core.errors import DataError, MedaugError, OutputError
from medaug.core.modality import modality_of
from medaug.core.types import Affine, Case
from medaug.data.cache import changes
from medaug.data.cache.slicing import cut
from medaug.data.cache.store import sealed_case
from medaug.data.checks.likeness import packed
from medaug.data.source import Block
from medaug.runtime.files import explaining
from medaug.runtime.resources import lacking

PART = ".part-"
_SIGNAL_WHEN_PARENT_DIES = 1  # PR_SET_PDEATHSIG


@dataclass(frozen=True)
class Outcome:
    """What became of one case.

    Attributes:
        case: its id.
        failed: why it could not be cut; empty if it could.
        stop: why no case can be written, such as a full disk; empty if it can.
        nameless: ``failed`` without the names of the user's files, for what is kept.
    """

    case: str
    failed: str = ""
    stop: str = ""
    nameless: str = ""


def write_case(
    folder: Path,
    arrays: Mapping[str, npt.NDArray[Any]],
    affine: Affine,
    labels: Mapping[str, int],
    left_out: Mapping[int, str] | None = None,
    notes: Mapping[str, Any] | None = None,
    source: Mapping[str, str | None] | None = None,
) -> None:
    """Write a case to ``folder``, which appears whole or not at all.

    Args:
        folder: its place.
        arrays: by the name of their file, z first.
        affine: maps (x, y, z) of the cached grid to RAS+ mm.
        labels: name to id of what ``arrays["label"]`` may hold.
        left_out: pictures of the source that it lacks, by their place there, with the reason.
        notes: what ``case.json`` holds besides what training sees; the digest leaves it out.
        source: hashes of what it was made of, from `medaug.data.cache.changes.record`.

    Raises:
        OutputError: the disk is full or cannot be written.
    """
    with explaining(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = folder.parent / f"{PART}{folder.name}-{os.getpid()}"
        try:
            part.mkdir()
            hashes = {
                f"{name}.npy": _write_array(part / f"{name}.npy", array)
                for name, array in sorted(arrays.items())
            }
            marks = arrays.get("label")
            content: dict[str, Any] = {
                "affine": np.asarray(affine, float).tolist(),
                "bytes": {name: (part / name).stat().st_size for name in hashes},
                "label_pixels": {
                    name: np.count_nonzero(marks == value, axis=(1, 2)).tolist()
                    for name, value in labels.items()
                    if marks is not None
                },
                "sha256": hashes,
            }
            if left_out:
                content["left_out"] = dict(left_out)
            content = sealed_case(content | dict(notes or {}))
            for name, record in (("case.json", content), (changes.RECORD, source)):
                if record is not None:
                    with (part / name).open("wb") as stream:
                        stream.write((json.dumps(record, sort_keys=True) + "\n").encode())
                        _sync(stream)
            try:
                part.rename(folder)
            except OSError:
                if not folder.is_dir():  # else a killed run's last worker has written it just now
                    raise
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _write_array(path: Path, array: npt.NDArray[Any]) -> str:
    """Write ``array`` as a ``.npy`` file and return its SHA-256.

    The bytes go through plain writes: NumPy's own way hides that a disk is full.
    """
    array = np.ascontiguousarray(array)
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(
            stream, np.lib.format.header_data_from_array_1_0(array)
        )
        stream.write(array.data.cast("B"))
        _sync(stream)
    with path.open("rb") as written:
        return hashlib.file_digest(written, "sha256").hexdigest()


def _sync(stream: IO[bytes]) -> None:
    """Have what was written on the disk, so that a rename never precedes it."""
    stream.flush()
    os.fsync(stream.fileno())


def remove_leftovers(cases: Path, ids: Iterable[str] | None = None) -> None:
    """Remove what killed runs left half-written, of the cases ``ids`` or of all."""
    for pattern in ["*"] if ids is None else [f"{glob.escape(id)}-*" for id in ids]:
        for part in cases.glob(f"{PART}{pattern}"):
            shutil.rmtree(part, ignore_errors=True)


def discard(cases: Path, ids: Iterable[str]) -> None:
    """Remove cases, each whole or not at all."""
    for id in ids:
        going = cases / f"{PART}{id}-old"
        (cases / id).rename(going)
        shutil.rmtree(going, ignore_errors=True)


def write_scan(
    case: Case,
    cases: Path,
    labels: Mapping[str, int],
    size: int,
    fov_mm: float,
    center: str,
    modality: str,
) -> Outcome:
    """Cut and write one scan; what is wrong with it becomes its outcome.

    Args:
        case: the scan.
        cases: the folder of all cases.
        labels: name to id of what its label map may hold.
        size: pixels along each side of a slice.
        fov_mm: length of each side.
        center: what a slice is centred on: ``body``, ``image`` or ``label``.
        modality: ``CT`` or ``MR``.
    """
    try:
        seen = changes.stamp(case)
        found = cut(case, labels, size, fov_mm, center, modality_of(modality))
        arrays: dict[str, npt.NDArray[Any]] = {"image": found.image}
        if found.labels is not None:
            arrays["label"] = found.labels
        notes = {
            "doubts": {finding.check: finding.reason for finding in found.doubtful},
            "likeness": packed(found.likeness),
        }
        source = changes.record(case, seen)
        write_case(cases / case.id, arrays, found.affine, labels, notes=notes, source=source)
    except Exception as error:  # the other cases may be fine, so the reason is kept
        return _outcome(case.id, error, case)
    return Outcome(case.id)


def write_block(item: tuple[str, Block], cases: Path) -> Outcome:
    """Decode and write one block of pictures; what is wrong with all of it becomes its outcome.

    Args:
        item: the id of its case, and the block.
        cases: the folder of all cases.
    """
    id, block = item
    try:
        seen = changes.stamp(block)
        found = block.read()
        arrays: dict[str, npt.NDArray[Any] | None] = {
            "image": found.images,
            "classes": found.classes,
            "attributes": found.attributes,
        }
        there = {key: array for key, array in arrays.items() if array is not None}
        source = changes.record(block, seen)
        write_case(cases / id, there, np.eye(4), {}, found.left_out, source=source)
    except Exception as error:  # as in `write_scan`
        return _outcome(id, error)
    return Outcome(id)


def _outcome(id: str, error: Exception, case: Case | None = None) -> Outcome:
    """What an exception makes of a case: ours are sentences, others are named by their type."""
    if reason := lacking(error):
        return Outcome(id, stop=reason)
    if isinstance(error, OutputError):
        return Outcome(id, stop=str(error))
    if isinstance(error, MedaugError):
        kept = str(error) if case is None else nameless(case, str(error))
        return Outcome(id, failed=str(error), nameless=kept)
    kind = f"unexpected {type(error).__name__}"
    return Outcome(id, failed=f"{kind}: {error}", nameless=kind)


def nameless(case: Case, reason: str) -> str:
    """``reason`` with the names of the case's files replaced by what the files are.

    Files may be named after patients; the names are for the user's screen, not for what is kept.
    """
    marks = case.label.files if case.label is not None else ()
    roles = {str(file): "the label" for file in marks}
    for number, file in enumerate(case.image, start=1):
        roles[str(file)] = f"file {number} of the image" if len(case.image) > 1 else "the image"
    roles |= {Path(file).name: role for file, role in roles.items()}
    for name in sorted(roles, key=len, reverse=True):
        reason = reason.replace(name, roles[name])
    return reason


class _Work(Dataset[Outcome]):
    """Items that a function turns into outcomes, by number."""

    def __init__(self, items: Sequence[Any], write: Callable[[Any], Outcome]) -> None:
        self.items, self.write = items, write

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Outcome:
        return self.write(self.items[index])


def outcomes(
    items: Sequence[Any], write: Callable[[Any], Outcome], workers: int
) -> Iterator[Outcome]:
    """Call ``write`` on each of ``items``, yielding the outcomes as they come.

    Processes start before this returns, so that none is forked beneath a progress bar's thread.

    Args:
        items: scans, or blocks of pictures with their ids.
        write: writes one of them; it is pickled.
        workers: processes; 0 takes this one.

    Raises:
        DataError: a worker died.
    """
    loader = DataLoader(
        _Work(items, write),
        num_workers=workers,
        batch_size=None,
        in_order=False,
        prefetch_factor=1 if workers else None,
        generator=torch.Generator(),
        worker_init_fn=partial(_die_with, os.getpid()),
    )
    return _watched(iter(loader))


def _die_with(parent: int, worker: int) -> None:
    """Have this worker end with its parent, killed or not.

    The check that torch makes misses a parent that dies while its workers start.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SIGNAL_WHEN_PARENT_DIES, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _watched(running: Iterator[Outcome]) -> Iterator[Outcome]:
    try:
        yield from running
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"a worker died ({reason}); run the same command with fewer workers"
        ) from error
