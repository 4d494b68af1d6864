"""What fills a slice cache: cases cut in parallel by the MONAI pipeline and written whole."""

import ctypes
import glob
import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import DataLoader, Dataset
from monai.transforms import Transform

from medaug.core.errors import DataError, MedaugError, OutputError
from medaug.core.modality import modality_of
from medaug.core.types import Affine, Case
from medaug.data.cache import changes
from medaug.data.cache.slicing import as_item, pipeline
from medaug.data.cache.store import sealed_case
from medaug.data.checks.likeness import packed
from medaug.data.source import Block
from medaug.runtime.files import explaining
from medaug.runtime.resources import lacking

PART = ".part-"
_SIGNAL_WHEN_PARENT_DIES = 1  # PR_SET_PDEATHSIG


@dataclass(frozen=True)
class Outcome:
    """What became of one case: a reason it failed, or a reason to stop.

    Attributes:
        nameless: the reason without the names of the user's files, for what is kept.
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
        arrays: by the name of their file.
        affine: see `CachedCase`.
        labels: name to id of what ``arrays["label"]`` may hold.
        left_out: see `CachedCase`.
        notes: what ``case.json`` says beside what training sees; the digest leaves it out.
        source: what it was made of, see `medaug.data.cache.changes`.

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
            for name, told in (("case.json", content), (changes.RECORD, source)):
                if told is not None:
                    with (part / name).open("wb") as stream:
                        stream.write((json.dumps(told, sort_keys=True) + "\n").encode())
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


class Slice(Transform):
    """Cuts and writes one case; whatever is wrong with it becomes its outcome."""

    def __init__(
        self,
        cases: Path,
        labels: Mapping[str, int],
        size: int,
        fov_mm: float,
        center: str,
        modality: str = "CT",
    ) -> None:
        self.cases, self.labels = cases, dict(labels)
        self.how = size, fov_mm, center, modality_of(modality)

    def __call__(self, data: Case) -> Outcome:
        """Run the pipeline on the files of ``data`` and write the result."""
        try:
            seen = changes.stamp(data)
            cut = pipeline(data, self.labels, *self.how)(as_item(data))
            image, label = cut["image"], cut["label"]
            arrays = {
                name: volume.as_tensor()[0].numpy().transpose(2, 1, 0)
                for name, volume in (("image", image), ("label", label))
            }
            affine = np.asarray(image.affine, dtype=np.float64)
            if data.label is None:
                del arrays["label"]
            notes = {
                "doubts": {finding.check: finding.reason for finding in cut["findings"]},
                "likeness": packed(cut["likeness"]),
            }
            source = changes.record(data, seen)
            where = self.cases / data.id
            write_case(where, arrays, affine, self.labels, notes=notes, source=source)
        except Exception as error:  # another case may be fine: the reason is told, the others go on
            return _outcome(data.id, error, data)
        return Outcome(data.id)


@dataclass(frozen=True)
class Named:
    """A block of pictures and the case that it becomes."""

    name: str
    block: Block


class Develop(Transform):
    """Decodes and writes one block of pictures; what is wrong with all of it is its outcome."""

    def __init__(self, cases: Path) -> None:
        self.cases = cases

    def __call__(self, data: Named) -> Outcome:
        """Read the block and write it under its name."""
        try:
            seen = changes.stamp(data.block)
            found = data.block.read()
            arrays: dict[str, npt.NDArray[Any] | None] = {
                "image": found.images,
                "classes": found.classes,
                "attributes": found.attributes,
            }
            there = {key: array for key, array in arrays.items() if array is not None}
            source = changes.record(data.block, seen)
            write_case(self.cases / data.name, there, np.eye(4), {}, found.left_out, source=source)
        except Exception as error:  # as above
            return _outcome(data.name, error)
        return Outcome(data.name)


def _outcome(id: str, error: BaseException, case: Case | None = None) -> Outcome:
    """The outcome for ``error``, or for the one of ours that MONAI has wrapped in it."""
    if reason := lacking(error):
        return Outcome(id, stop=reason)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OutputError):
            return Outcome(id, stop=str(cause))
        if isinstance(cause, MedaugError):
            told = str(cause) if case is None else nameless(case, str(cause))
            return Outcome(id, failed=str(cause), nameless=told)
        cause, last = cause.__cause__, cause
    kind = f"unexpected {type(last).__name__}"
    return Outcome(id, failed=f"{kind}: {last}", nameless=kind)


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


def _die_with(parent: int, worker: int) -> None:
    """Have this worker end with its parent, killed or not.

    The check that torch makes misses a parent that dies while its workers start.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SIGNAL_WHEN_PARENT_DIES, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _only(outcome: Outcome) -> Outcome:
    return outcome


def outcomes(cases: Sequence[Any], slicer: Transform, workers: int) -> Iterator[Outcome]:
    """Have ``slicer`` write ``cases`` in ``workers`` processes (0: in this one).

    Outcomes are yielded as they come.

    Processes start before this returns, so that none is forked beneath a progress bar's thread.

    Raises:
        DataError: a worker died.
    """
    loader = DataLoader(
        Dataset(list(cases), slicer),
        num_workers=workers,
        batch_size=None,
        collate_fn=_only,
        in_order=False,
        prefetch_factor=1 if workers else None,
        generator=torch.Generator(),
        worker_init_fn=partial(_die_with, os.getpid()),
    )
    return _watched(iter(loader))


def _watched(running: Iterator[Outcome]) -> Iterator[Outcome]:
    try:
        yield from running
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"a worker died ({reason}); run the same command with fewer workers"
        ) from error
