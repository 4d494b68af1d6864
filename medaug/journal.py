"""Which samples of a folder are finished: kept through kills, and beside other processes.

``manifest.csv`` holds one row for each finished sample, in the order of their indices.  Rows reach
it in two steps, so that finishing a sample costs one short append:

1. A process that writes shard i of k opens ``.journal-i-of-k`` and holds a lock on it while it
   lives.  Once all files of a sample are in place, its row is appended there in a single write.
2. At its end, and whenever a process finds the journal of one that died, the rows are merged into
   the manifest, which is replaced whole, and the journal is removed.

Every step that touches more than one's own journal happens under the lock of the folder.  So at
any moment a row is in the manifest, in a journal, or in both; a kill loses at most the rows of
files just written (which are then found in place and kept) and leaves at most a broken last line
(which is ignored) and hidden leftovers of half-written files (which the next process that owns
their shard removes).  Locks belong to the operating system and die with their process.
"""

import errno
import fcntl
import os
import re
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from medaug.data.continuity import continuity
from medaug.errors import OutputError
from medaug.files import explaining, turn, write_bytes
from medaug.modality import CT, MR
from medaug.types import Sample

Row = dict[str, str]

MANIFEST = "manifest.csv"
COLUMNS = (
    "index", "case", "origin", "patient", "kind", "class", "condition", "seed", "fingerprint",
    "image", "label", "std", "entropy", "samples", "masks",
    "spacing_x_mm", "spacing_y_mm", "mask_area_mm2",
    "slices", "spacing_z_mm", "mask_volume_mm3", "adjoining_hu", "adjoining_dice",
    "uncertainty_source", "mean_std", "mean_std_in_mask", "mean_entropy_bits", "mask", "refused",
)  # fmt: skip
"""Columns of the manifest, in order.

``origin`` is ``synthetic`` or ``real``; real cases have no index, but the ``patient`` they are of.
``mean_std`` is the standard deviation averaged over the whole case, ``mean_std_in_mask`` over its
mask, both in the image's unit (HU or grey levels).  ``mean_entropy_bits`` averages the vote entropy
over the pixels that at least one draw labels.  ``condition`` is what the model was told beside the
class, such as ``liver=1;height=0.25``.  ``mask`` says where a mask that was given comes from,
``refused`` why the filter refused earlier draws of the sample, one reason each.  A case that is a
stack has ``slices``, their distance, and the volume of its mask in the place of the area;
``adjoining_hu`` and ``adjoining_dice`` are averages over its pairs of neighbouring slices, see
`medaug.data.continuity`.  What does not apply is empty.  No value holds a comma, a quote or a line
end.
"""

_LOCK = ".medaug.lock"
_JOURNAL = re.compile(r"\.journal-(\d+)-of-(\d+)")
_LEFTOVER = re.compile(r"\.(syn_\d+|real_.+_z\d+(?=(?:_0000)?\.nii\.gz\.)|)[^/]*\.part")


def case_name(index: int) -> str:
    """The case id of a sample."""
    return f"syn_{index:06d}"


def in_shard(case: str, number: int, count: int) -> bool:
    """Whether the real case called ``case`` belongs to shard ``number`` of ``count``."""
    return zlib.crc32(case.encode()) % count == number


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for a moment; other processes wait."""
    with turn(folder / _LOCK):
        yield


Lines = Mapping[int | str, bytes]
"""Rows as they are on disk: of samples by index, of real cases by name."""


class Rows(Mapping[int, Row]):
    """Finished samples by index, kept as the lines of the manifest: 0.4 kB a sample.

    Attributes:
        real: the rows of the real cases beside them, by name.
    """

    def __init__(self, lines: Lines) -> None:
        self._lines = {i: lines[i] for i in sorted(key for key in lines if isinstance(key, int))}
        names = sorted(key for key in lines if isinstance(key, str))
        self.real: dict[str, Row] = {name: _row(lines[name]) for name in names}

    def __getitem__(self, index: int) -> Row:
        return _row(self._lines[index])

    def __iter__(self) -> Iterator[int]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)


def describe_real(sample: Sample, kind: str, case: str, names: Mapping[str, str]) -> Row:
    """The row of a real slice, whose files are ``names`` by role."""
    patient = re.sub(r'[,"\r\n]', "_", str(sample.origin["patient"]))
    values = {"case": case, "origin": "real", "patient": patient, "kind": kind}
    return _filled(values | _measured(sample, kind) | dict(names))


def describe(
    sample: Sample, kind: str, seed: int, fingerprint: str, names: Mapping[str, str]
) -> Row:
    """The row of ``sample``, whose files are ``names`` by role."""
    values = {
        "index": str(sample.index),
        "case": case_name(sample.index),
        "origin": "synthetic",
        "kind": kind,
        "class": str(sample.origin.get("class", "")),
        "condition": spell(sample.origin.get("condition", {})),
        "seed": str(seed),
        "fingerprint": fingerprint[:12],
        **_measured(sample, kind),
        **names,
    }
    values["mask"] = _plain(str(sample.origin.get("mask", "")))
    values["refused"] = ";".join(sample.origin.get("refused", ()))
    mask = None if sample.label is None else sample.label > 0
    if len(sample.alternatives):
        values["uncertainty_source"] = str(sample.origin.get("source", "latent"))
        values["mean_std"] = f"{sample.std.mean(dtype=np.float64):.4f}"
        if mask is not None and mask.any():
            values["mean_std_in_mask"] = f"{sample.std[mask].mean(dtype=np.float64):.4f}"
        if sample.entropy is not None and sample.alternative_labels is not None:
            voted = (sample.alternative_labels > 0).any(0)
            mean = sample.entropy[voted].mean(dtype=np.float64) if voted.any() else 0.0
            values["mean_entropy_bits"] = f"{mean:.4f}"
    return _filled(values)


def _measured(sample: Sample, kind: str) -> Row:
    x_mm, y_mm, z_mm = np.linalg.norm(sample.affine[:3, :3], axis=0)
    values = {"spacing_x_mm": f"{x_mm:.6f}", "spacing_y_mm": f"{y_mm:.6f}"}
    area = None if sample.label is None else (sample.label > 0).sum() * x_mm * y_mm
    if not sample.slices:
        return values if area is None else {**values, "mask_area_mm2": f"{area:.2f}"}
    values |= {"slices": str(sample.slices), "spacing_z_mm": f"{z_mm:.6f}"}
    if area is not None:
        values["mask_volume_mm3"] = f"{area * z_mm:.2f}"
    found = continuity(sample.image, sample.label, MR if kind == "mr" else CT)
    for name, each in (("adjoining_hu", found.hu), ("adjoining_dice", found.dice)):
        if np.isfinite(each).any():
            values[name] = f"{np.nanmean(each):.4f}"
    return values


def _filled(values: Row) -> Row:
    return {column: values.get(column, "") for column in COLUMNS}


def _row(line: bytes) -> Row:
    return dict(zip(COLUMNS, line.decode().rstrip("\n").split(","), strict=True))


def spell(condition: Mapping[str, float]) -> str:
    """A condition as one value of the manifest."""
    text = ";".join(f"{name}={value:g}" for name, value in condition.items())
    return _plain(text)


def _plain(text: str) -> str:
    return re.sub(r'[,"\r\n]', "_", text)


def read(folder: Path) -> Rows:
    """All finished rows, wherever they are; nothing is changed.

    Raises:
        OutputError: the manifest is not one of this version.
    """
    lines: dict[int | str, bytes] = {}
    for path in _journals(folder):
        with suppress(FileNotFoundError):  # merged meanwhile, so the manifest read below has it
            lines |= _lines(path)
    return Rows(_manifest(folder) | lines)


class Journal:
    """The rows of one shard while it is being written; made by ``enter``, which holds the lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._guard = threading.Lock()
        with explaining(path):
            self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        fcntl.flock(self._handle, fcntl.LOCK_EX)

    def append(self, row: Row) -> None:
        """Add one finished sample; safe to call from several threads."""
        line = _line(row[column] for column in COLUMNS)
        with self._guard, explaining(self.path):
            if os.write(self._handle, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Let go of the journal; its rows stay for the next process to find."""
        os.close(self._handle)


def enter(folder: Path, shard: tuple[int, int], block_size: int) -> tuple[Journal, Rows]:
    """Open the journal of ``shard`` and gather what is finished; call under ``locked``.

    Journals of dead processes are merged, and leftovers of half-written files of this shard's
    blocks are removed.

    Raises:
        OutputError: a living process writes the same share, or another division into shards.
    """
    number, count = shard
    stale = []
    for path in _journals(folder):
        if _dead(path):
            stale.append(path)
            continue
        other, of = _JOURNAL.fullmatch(path.name).groups()  # type: ignore[union-attr]
        if int(of) != count or int(other) == number:
            raise OutputError(
                f"{folder}: another process is writing shard {other}/{of} there, which overlaps "
                f"shard {number}/{count}; wait for it to end"
            )
    rows = _merge(folder, stale)

    def owned(case: str) -> bool:
        if case.startswith("syn_"):
            return int(case.removeprefix("syn_")) // block_size % count == number
        return not case or in_shard(case, number, count)

    _sweep(folder, owned)
    return Journal(folder / f".journal-{number}-of-{count}"), rows


def leave(folder: Path, journal: Journal) -> Rows:
    """Merge the journal into the manifest and remove it; call under ``locked``.

    Returns:
        All finished rows by index, those of other processes that still write excepted.
    """
    stale = [path for path in _journals(folder) if path == journal.path or _dead(path)]
    rows = _merge(folder, stale)
    if not (folder / MANIFEST).exists():
        write_bytes(folder / MANIFEST, _line(COLUMNS))
    return rows


def _merge(folder: Path, journals: list[Path]) -> Rows:
    there = _manifest(folder)
    merged = dict(there)
    for path in journals:
        merged |= _lines(path)
    if merged != there:
        order = sorted(merged, key=lambda key: (isinstance(key, str), key))
        table = b"".join([_line(COLUMNS), *(merged[key] for key in order)])
        write_bytes(folder / MANIFEST, table)
    for path in journals:
        path.unlink()
    return Rows(merged)


def _journals(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _JOURNAL.fullmatch(path.name))


def _dead(path: Path) -> bool:
    handle = os.open(path, os.O_WRONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def _sweep(folder: Path, owned: Callable[[str], bool]) -> None:
    for place in (folder, *(path for path in folder.iterdir() if path.is_dir())):
        for path in place.glob(".*.part"):
            match = _LEFTOVER.fullmatch(path.name)
            if match and owned(match[1]):
                path.unlink(missing_ok=True)


def _line(values: Iterable[str]) -> bytes:
    return (",".join(values) + "\n").encode()


def _lines(path: Path) -> dict[int | str, bytes]:
    """The whole lines of a journal or manifest that are rows: by index, or name where real."""
    found: dict[int | str, bytes] = {}
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n") or line.count(b",") != len(COLUMNS) - 1:
            continue
        index, case, origin = line.split(b",", 3)[:3]
        if index.isdigit() and case == case_name(int(index)).encode():
            found[int(index)] = line
        elif not index and origin == b"real":
            found[case.decode()] = line
    return found


def _manifest(folder: Path) -> dict[int | str, bytes]:
    path = folder / MANIFEST
    if not path.exists():
        return {}
    with path.open("rb") as file:
        if file.readline() != _line(COLUMNS):
            raise OutputError(
                f"{path}: not a manifest of this version (its first line lists other columns); "
                "choose another folder"
            )
    return _lines(path)
