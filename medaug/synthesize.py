"""A generator's samples as files: sharded, resumable, extendable, with a manifest.

The promise: for one generator, seed, condition and format, the folder is a function of ``n``.
However the work was cut into shards, runs and kills, and in whatever order, the finished folder
holds the same bytes.  It rests on four rules:

1. Sample i depends on weights, seed, condition and i only, and blocks of consecutive samples are
   always decoded whole.  Shard i of k owns the blocks whose number is i modulo k.
2. ``run.json`` claims the folder before the first sample is written, and says nothing that depends
   on time, place or shard.  Who asks for other settings is refused.  The versions in it are those
   of the command that came first.
3. A file appears whole or not at all.  A sample is finished when it has a row (see
   ``medaug.journal``) and all files that the row names.  Files that are there already with the
   right content are not written again.
4. What describes the folder as a whole (``manifest.csv``, ``dataset.json``, ``preview.png``) is
   made from what is on disk when a shard ends, one at a time, so the last one to end leaves it
   complete.
"""

import json
import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import medaug
from medaug import journal
from medaug.errors import ConfigError, OutputError
from medaug.files import explaining, write_bytes
from medaug.journal import Journal, Row, Rows, case_name
from medaug.progress import progress
from medaug.types import Sample
from medaug.writers import ROLES, Writer, open_writer

PREVIEW = 16
"""How many samples the preview shows."""

COMPRESS_LEVEL = 1
"""Level 1 takes 1 ms for a 64 x 64 sample with 8 alternatives and leaves 40 kB; level 6 takes
2.7 times as long to save 5 %, since what remains is noise."""

Asked = Mapping[str, str | float]
"""What all samples share, by name."""


class Blocks(Protocol):
    """What ``synthesize`` needs of a generator."""

    @property
    def fingerprint(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def labels(self) -> dict[str, int]: ...
    @property
    def uncertainty_source(self) -> str: ...
    @property
    def config(self) -> dict[str, Any]: ...
    @property
    def block_size(self) -> int: ...
    def fix(self, condition: Asked | None) -> dict[str, float]: ...
    def block(
        self, number: int, seed: int = 0, uncertainty: int = 8, condition: Asked | None = None
    ) -> list[Sample]: ...


@dataclass(frozen=True)
class SynthesisPlan:
    """What ``synthesize`` would do: counts are of samples in this shard."""

    out: Path
    total: int
    already: int
    settings: dict[str, Any]

    @property
    def missing(self) -> int:
        """How many would be written."""
        return self.total - self.already


@dataclass(frozen=True)
class SynthesisReport:
    """What ``synthesize`` did: counts are of samples in this shard, times in seconds.

    ``generate_seconds`` were spent in the generator, ``write_seconds`` beyond it: waiting for
    writers, and for the manifest and the preview.
    """

    written: int
    already: int
    total: int
    out: Path
    seconds: float
    generate_seconds: float
    write_seconds: float

    def __str__(self) -> str:
        if not self.written:
            return f"{self.out}: all {self.total} samples were there already, nothing to do"
        kept = f", {self.already} were there already" if self.already else ""
        return f"{self.out}: {self.written} samples written in {self.seconds:.0f} s{kept}"


@dataclass(frozen=True)
class _Job:
    generator: Blocks
    n: int
    out: Path
    shard: tuple[int, int]
    writer: Writer
    level: int
    settings: dict[str, Any]

    @property
    def seed(self) -> int:
        return int(self.settings["seed"])

    def indices(self) -> list[int]:
        """The samples of this shard, ascending."""
        number, count = self.shard
        size = self.generator.block_size
        blocks = range(number, -(-self.n // size), count)
        return [i for b in blocks for i in range(b * size, min(b * size + size, self.n))]

    def missing(self, rows: Rows) -> list[int]:
        """The samples of this shard that lack a row, or a file that their row names."""
        there = _listing(self.out)
        return [i for i in self.indices() if i not in rows or not _named(rows[i]) <= there]


def plan(
    generator: Blocks,
    n: int,
    out: Path,
    *,
    seed: int = 0,
    uncertainty: int = 8,
    condition: Asked | None = None,
    shard: tuple[int, int] = (0, 1),
    format: str = "auto",
    compress_level: int = COMPRESS_LEVEL,
) -> SynthesisPlan:
    """Count what ``synthesize`` with the same arguments would write, and write nothing.

    Raises:
        ConfigError, OutputError: as ``synthesize`` would.
    """
    job = _job(generator, n, out, seed, uncertainty, condition, shard, format, compress_level)
    _claimed(job)
    rows = journal.read(out) if out.is_dir() else Rows({})
    total = len(job.indices())
    return SynthesisPlan(out, total, total - len(job.missing(rows)), job.settings)


def synthesize(
    generator: Blocks,
    n: int,
    out: Path,
    *,
    seed: int = 0,
    uncertainty: int = 8,
    condition: Asked | None = None,
    shard: tuple[int, int] = (0, 1),
    format: str = "auto",
    compress_level: int = COMPRESS_LEVEL,
) -> SynthesisReport:
    """Write samples 0 to ``n`` - 1, or one shard's part of them, into the folder ``out``.

    Killed at any moment and called again, it goes on where it stopped; called with a larger ``n``
    it adds what is missing; with a smaller one it changes nothing.

    Args:
        generator: where samples come from, a ``medaug.Generator``.
        n: how many samples the folder is to hold, all shards together.
        out: a folder that is new, empty, or holds part of the same samples.
        seed: which family of samples.
        uncertainty: K, the alternatives drawn for each sample.
        condition: what all samples share, such as ``{"class": 3}``; see ``Generator.generate``.
        shard: (i, k) for part i of k, counted from 0.
        format: ``nifti``, ``png``, or ``auto`` for what suits the generator's kind.
        compress_level: 0 (none) to 9 (smallest).

    Raises:
        ConfigError: an argument is out of range.
        OutputError: ``out`` holds something else, or the disk cannot take the samples.
    """
    started = time.monotonic()
    out = Path(out)
    job = _job(generator, n, out, seed, uncertainty, condition, shard, format, compress_level)
    _claimed(job)
    with explaining(out):
        out.mkdir(parents=True, exist_ok=True)
    with journal.locked(out):
        _claim(job)
        log, rows = journal.enter(out, shard, generator.block_size)
    try:
        missing = job.missing(rows)
        generate_seconds = _produce(job, log, missing)
        with journal.locked(out):
            _describe_folder(job, journal.leave(out, log))
    finally:
        log.close()
    seconds, total = time.monotonic() - started, len(job.indices())
    return SynthesisReport(
        written=len(missing),
        already=total - len(missing),
        total=total,
        out=out,
        seconds=seconds,
        generate_seconds=generate_seconds,
        write_seconds=seconds - generate_seconds,
    )


def _job(
    generator: Blocks,
    n: int,
    out: Path,
    seed: int,
    uncertainty: int,
    condition: Asked | None,
    shard: tuple[int, int],
    format: str,
    level: int,
) -> _Job:
    if n < 1:
        raise ConfigError(f"n must be at least 1, got {n}")
    if uncertainty < 0:
        raise ConfigError(f"uncertainty must be at least 0, got {uncertainty}")
    if not 0 <= level <= 9:
        raise ConfigError(f"compress_level must be 0 to 9, got {level}")
    number, count = shard
    if count < 1 or not 0 <= number < count:
        last = f"0/{count} to {count - 1}/{count}" if count > 1 else "0/1"
        raise ConfigError(f"shard {number}/{count}: the first number counts from 0, so {last}")
    name, writer = open_writer(format, generator.kind)
    settings = {
        "weights": generator.fingerprint,
        "seed": seed,
        "uncertainty": uncertainty,
        "condition": generator.fix(condition),
        "format": name,
        "compress_level": level,
    }
    return _Job(generator, n, Path(out), shard, writer, level, settings)


def _named(row: Row) -> set[str]:
    return {row[role] for role in ROLES if row[role]}


def _claimed(job: _Job) -> dict[str, Any] | None:
    """The ``run.json`` of the folder, or None where it is free to take.

    Raises:
        OutputError: the folder holds something else.
    """
    out, path = job.out, job.out / "run.json"
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file, and a folder is wanted")
    if not path.exists():
        foreign = sorted(p.name for p in out.iterdir() if p.name[0] != ".") if out.exists() else []
        if foreign:
            raise OutputError(
                f"{out}: holds files that medaug did not write, such as {foreign[0]}; "
                "choose a new or empty folder"
            )
        return None
    try:
        run = json.loads(path.read_bytes())
        command, there = run["command"], dict(run["settings"])
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{out}: its run.json was not written by medaug synthesize; "
            "choose a new or empty folder"
        ) from error
    if command != "synthesize":
        raise OutputError(
            f"{out}: holds the result of medaug {command}; choose a new or empty folder"
        )
    for name, asked in job.settings.items():
        if there.get(name) != asked:
            pair = (there.get(name), asked)
            seen, wanted = (_spelt(name, value) for value in pair)
            raise OutputError(
                f"{out}: holds samples made with {name} {seen}, asked for {name} {wanted}; "
                "choose another folder, or the settings it was made with"
            )
    return dict(run)


def _spelt(name: str, value: Any) -> Any:
    if name == "condition":
        return journal.spell(value or {}) or "none"
    return str(value)[:12] if name == "weights" else value


def _claim(job: _Job) -> None:
    run = _claimed(job)
    if run is None:
        run = {
            "command": "synthesize",
            "versions": {"medaug": medaug.__version__, "torch": version("torch")},
            "settings": job.settings,
            "n": 0,
            "kind": job.generator.kind,
            "labels": job.generator.labels,
            "uncertainty_source": job.generator.uncertainty_source,
            "data": job.generator.config.get("data", {}),
        }
    if run["n"] < job.n:
        content = json.dumps(run | {"n": job.n}, indent=2, sort_keys=True) + "\n"
        write_bytes(job.out / "run.json", content.encode())


def _produce(job: _Job, log: Journal, missing: Sequence[int]) -> float:
    """Generate and write the ``missing`` samples; returns the seconds spent generating.

    Compression and disk run in threads beside the generator.  At most two blocks wait to be
    written, which bounds memory whatever ``n`` is.
    """
    size = job.generator.block_size
    wanted = frozenset(missing)
    waiting: deque[Future[None]] = deque()
    total, seconds = len(job.indices()), 0.0
    pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="medaug-write")
    try:
        with progress("synthesize", total, "samples", done=total - len(missing)) as bar:
            for number in sorted({index // size for index in missing}):
                started = time.monotonic()
                samples = job.generator.block(
                    number,
                    seed=job.seed,
                    uncertainty=job.settings["uncertainty"],
                    condition=job.settings["condition"],
                )
                seconds += time.monotonic() - started
                for sample in samples:
                    if sample.index in wanted:
                        waiting.append(pool.submit(_write, job, log, sample))
                while len(waiting) > 2 * size or (waiting and waiting[0].done()):
                    waiting.popleft().result()
                    bar.advance()
            while waiting:
                waiting.popleft().result()
                bar.advance()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return seconds


def _write(job: _Job, log: Journal, sample: Sample) -> None:
    files = job.writer.files(sample, case_name(sample.index), job.level)
    for name, content in files.values():
        _write_once(job.out / name, content)
    names = {role: name for role, (name, _) in files.items()}
    made = job.generator
    log.append(journal.describe(sample, made.kind, job.seed, made.fingerprint, names))


def _write_once(path: Path, content: bytes) -> None:
    if not path.exists() or path.read_bytes() != content:
        write_bytes(path, content)


def _describe_folder(job: _Job, rows: Rows) -> None:
    from medaug.preview import preview_png

    about = job.writer.about(job.generator.kind, job.generator.labels, len(rows))
    for name, content in about.items():
        _write_once(job.out / name, content)
    first = (rows[i] for i in list(rows)[:PREVIEW])
    shown = [row for row in first if (job.out / row["image"]).exists()]
    if shown:
        picture = preview_png([job.writer.read(job.out, row) for row in shown])
        _write_once(job.out / "preview.png", picture)


def _listing(folder: Path) -> set[str]:
    """The files one level down, as ``folder/name``, from one directory scan each."""
    if not folder.is_dir():
        return set()
    return {
        f"{place.name}/{entry.name}"
        for place in folder.iterdir()
        if place.is_dir()
        for entry in os.scandir(place)
    }
