"""A generator's samples as files: sharded, resumable, extendable, with a manifest.

The promise: for one generator and the settings in ``run.json``, the folder is a function of ``n``.
However the work was cut into shards, runs and kills, and in whatever order, the finished folder
holds the same bytes.  It rests on four rules:

1. Sample i depends on weights, seed, condition and i only, and blocks of consecutive samples are
   always decoded whole.  Shard i of k owns the blocks whose number is i modulo k.
2. ``run.json`` claims the folder before the first sample is written, and says nothing that depends
   on time, place or shard.  Who asks for other settings is refused.  The versions in it are those
   of the command that came first.
3. A file appears whole or not at all.  A sample is finished when it has a row (see
   ``medaug.synthesis.journal``) and all files that the row names, with the checksum that it gives.
    Files that are there already with the right content are not written again.
4. What describes the folder as a whole (``manifest.csv``, ``dataset.json``, ``preview.png``) is
   made from what is on disk when a shard ends, one at a time, so the last one to end leaves it
   complete.
"""

import os
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Unpack

import numpy as np

import medaug
from medaug.core.errors import OutputError, RefusedError
from medaug.core.types import Sample
from medaug.runtime.files import explaining, parse_json, sealed, unsealed, write_bytes, write_json
from medaug.runtime.progress import progress
from medaug.synthesis import journal
from medaug.synthesis.journal import Journal
from medaug.synthesis.manifest import Rows, case_name, describe, describe_real, files_crc32, spell
from medaug.synthesis.request import Blocks, Indices, Job, Options, job_for
from medaug.synthesis.writers import ROLES

# A folder belongs to one family of samples: ``run.json`` says which, and refuses the others.


def claimed(out: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The ``run.json`` of the folder ``out``, or None where it is free to take.

    Raises:
        OutputError: the folder holds something else, or samples made with other ``settings``.
    """
    path = out / "run.json"
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
        run = unsealed(parse_json(path.read_bytes()))
        command, there = run["command"], dict(run["settings"])
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{out}: its run.json is damaged, or was not written by medaug synthesize; "
            "choose a new or empty folder"
        ) from error
    if command != "synthesize":
        raise OutputError(
            f"{out}: holds the result of medaug {command}; choose a new or empty folder"
        )
    for name, asked in settings.items():
        if there.get(name) != asked:
            seen, wanted = (_spelt(name, value) for value in (there.get(name), asked))
            raise OutputError(
                f"{out}: holds samples made with {name} {seen}, asked for {name} {wanted}; "
                "choose another folder, or the settings it was made with"
            )
    return dict(run)


def claim(out: Path, settings: Mapping[str, Any], n: int, about: Mapping[str, Any]) -> None:
    """Take ``out`` for ``n`` samples made with ``settings``; a larger number there stays.

    Args:
        out: the folder, which exists.
        settings: what the samples depend on.
        n: how many samples the folder is to hold.
        about: what else the first to come says of the folder.

    Raises:
        OutputError: as `claimed`.
    """
    run = claimed(out, settings)
    if run is None:
        run = {**about, "command": "synthesize", "settings": settings, "n": 0}
    if run["n"] < n:
        write_json(out / "run.json", sealed(run | {"n": n}))


def _spelt(name: str, value: Any) -> Any:
    if name == "condition":
        return spell(value or {}) or "none"
    if name in ("weights", "real_slices") and value is not None:
        return str(value)[:12]
    return "none" if value is None else value


LEAST_ACCEPTED = 0.2

LEAST_DRAWN = 50

PREVIEW = 16
"""How many samples the preview shows."""


@dataclass(frozen=True)
class SynthesisPlan:
    """What ``synthesize`` would do: counts are of samples in this shard, ``real`` of slices."""

    out: Path
    total: int
    already: int
    settings: dict[str, Any]
    real: int = 0

    @property
    def missing(self) -> int:
        """How many would be written."""
        return self.total - self.already


@dataclass(frozen=True)
class SynthesisReport:
    """What ``synthesize`` did: counts are of samples in this shard, times in seconds.

    ``generate_seconds`` were spent in the generator, ``write_seconds`` beyond it: waiting for
    writers, and for the manifest and the preview.  ``refused`` counts by reason the draws that the
    filter kept from being written.
    """

    written: int
    already: int
    total: int
    out: Path
    seconds: float
    generate_seconds: float
    write_seconds: float
    real: int = 0
    refused: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        beside = f", {self.real} real slices beside them" if self.real else ""
        if self.refused:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.refused.items())
            beside += f"; {sum(self.refused.values())} draws refused ({reasons})"
        if not self.written:
            return f"{self.out}: all {self.total} samples were there already, nothing to do{beside}"
        kept = f", {self.already} were there already" if self.already else ""
        return f"{self.out}: {self.written} samples written in {self.seconds:.0f} s{kept}{beside}"


def plan(generator: Blocks, n: int, out: Path, **options: Unpack[Options]) -> SynthesisPlan:
    """Count what ``synthesize`` with the same arguments would write, and write nothing.

    Raises:
        ConfigError, OutputError: as ``synthesize`` would.
    """
    job = job_for(generator, n, out, options)
    claimed(job.out, job.settings)
    rows = journal.read(out) if out.is_dir() else Rows()
    total = len(job.indices())
    return SynthesisPlan(
        out, total, total - len(job.missing(rows)), job.settings, len(job.real_cases())
    )


def synthesize(generator: Blocks, n: int, out: Path, **options: Unpack[Options]) -> SynthesisReport:
    """Write samples 0 to ``n`` - 1, or one shard's part of them, into the folder ``out``.

    Killed at any moment and called again, it goes on where it stopped; called with a larger ``n``
    it adds what is missing; with a smaller one it changes nothing.

    Args:
        generator: where samples come from, a ``medaug.Generator``.
        n: how many samples the folder is to hold, all shards together.
        out: a folder that is new, empty, or holds part of the same samples.
        **options: any of

            - seed: which family of samples; 0.
            - uncertainty: K, the alternatives drawn for each sample; 8.
            - source: what they show, ``latent``, ``network`` or ``mask``; see
              ``Generator.generate``.
            - condition: what all samples share, such as ``{"class": 3}``.
            - shard: (i, k) for part i of k, counted from 0.
            - format: ``nifti``, ``dicom``, ``png``, or ``auto`` for what suits the generator.
            - compress_level: 0 (none) to 9 (smallest).
            - filter: a ``medaug.synthesis.filter.Filter``; samples that it refuses are drawn anew.
            - with_real: a slice cache whose labelled training slices are to stand beside the
              samples, as cases of their own; NIfTI only, see `medaug.synthesis.real_slices`.
            - ignore_above: ``q95`` or a number of bits: label maps carry nnU-Net's ``ignore``
              where the votes' entropy is higher; NIfTI only, see `medaug.synthesis.ignore_label`.
            - stack: how many slices each case has, drawn along a smooth path, see
              `medaug.synthesis.stacks`; 0 for cases that are slices; NIfTI only.
            - smooth_mm: over which length along z the slices of a stack resemble each other; 10.

    Raises:
        ConfigError: an argument is out of range.
        CacheError, DataError: ``with_real`` is no finished cache, or has no slice to give.
        RefusedError: the filter refuses more than four draws of five.
        OutputError: ``out`` holds something else, or the disk cannot take the samples.
    """
    started = time.monotonic()
    out = Path(out)
    job = job_for(generator, n, out, options)
    claimed(job.out, job.settings)
    with explaining(out):
        out.mkdir(parents=True, exist_ok=True)
    with journal.locked(out):
        claim(out, job.settings, n, _about(job))
        log, rows = journal.enter(out, job.shard, job.generator.block_size)
    try:
        missing, real = job.missing(rows), job.missing_real(rows)
        del rows  # it maps files of the folder
        generate_seconds, refused = _produce(job, log, missing, real)
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
        real=len(job.real_cases()),
        refused=dict(refused),
    )


def _about(job: Job) -> dict[str, Any]:
    made = job.generator
    return {
        "versions": {"medaug": medaug.__version__, "torch": version("torch")},
        "kind": made.kind,
        "labels": job.labels,
        "uncertainty_source": made.uncertainty_of(job.source),
        "data": made.config.get("data", {}),
        "privacy": made.privacy,
        "real": len(job.real.places) if job.real else 0,
        **job.facts,
    }


def _produce(
    job: Job, log: Journal, missing: Indices, real: Sequence[str]
) -> tuple[float, Counter[str]]:
    """Write ``real`` slices and generate ``missing`` samples.

    Compression and disk run in threads beside the generator.  At most two blocks wait to be
    written, which bounds memory whatever ``n`` is.

    Returns:
        The seconds spent generating, and the reasons for which draws were refused.
    """
    size = job.generator.block_size
    waiting: deque[Future[None]] = deque()
    total, seconds = len(job.indices()), 0.0
    drawn, refused = 0, Counter[str]()
    pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="medaug-write")
    copies = [pool.submit(_write_real, job, log, case) for case in real]
    try:
        with progress("synthesize", total, "samples", done=total - len(missing)) as bar:
            for group in np.split(missing, np.flatnonzero(np.diff(missing // size)) + 1):
                if not len(group):
                    break
                wanted = frozenset(group.tolist())
                started = time.monotonic()
                samples = job.generator.block(
                    int(group[0]) // size,
                    seed=job.seed,
                    uncertainty=job.settings["uncertainty"],
                    condition=job.settings["condition"],
                    source=job.source,
                    judge=job.filter.judge if job.filter else None,
                )
                seconds += time.monotonic() - started
                drawn += len(samples)
                for sample in samples:
                    refused.update(sample.origin.get("refused", ()))
                _check_acceptance(drawn, refused)
                for sample in samples:
                    if sample.index in wanted:
                        waiting.append(pool.submit(_write, job, log, sample))
                while len(waiting) > 2 * size or (waiting and waiting[0].done()):
                    waiting.popleft().result()
                    bar.advance()
            while waiting:
                waiting.popleft().result()
                bar.advance()
        for copy in copies:
            copy.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return seconds, refused


def _check_acceptance(kept: int, refused: Counter[str]) -> None:
    """Stop where the filter leaves too little.

    Raises:
        RefusedError: naming what most draws fail, and what to do.
    """
    drawn = kept + refused.total()
    if drawn < LEAST_DRAWN or kept >= LEAST_ACCEPTED * drawn:
        return
    reason, count = refused.most_common(1)[0]
    raise RefusedError(
        f"the filter keeps {kept} of {drawn} draws, fewer than {LEAST_ACCEPTED:.0%}; most fail "
        f"{reason!r} ({count}); train longer, loosen that check (--set filter.KEY=VALUE), or see "
        "what it refuses with --no-filter",
        list(refused.elements()),
    )


def _write(job: Job, log: Journal, sample: Sample) -> None:
    made = job.generator
    origin = {**sample.origin, "seed": job.seed, "weights": made.fingerprint, "labels": made.labels}
    marked = job.ignore.marked(sample) if job.ignore else sample
    names = _write_files(job, replace(marked, origin=origin), case_name(sample.index))
    log.append(describe(sample, made.kind, job.seed, made.fingerprint, names))


def _write_real(job: Job, log: Journal, case: str) -> None:
    assert job.real is not None
    sample = job.real.sample(case)
    log.append(describe_real(sample, job.generator.kind, case, _write_files(job, sample, case)))


def _write_files(job: Job, sample: Sample, case: str) -> dict[str, str]:
    files = job.writer.files(sample, case, job.level)
    for name, content in files.values():
        _write_once(job.out / name, content)
    contents = (files[role][1] for role in ROLES if role in files)
    names = {role: name for role, (name, _) in files.items()}
    return names | {"files_crc32": files_crc32(contents)}


def _write_once(path: Path, content: bytes) -> None:
    if not path.exists() or path.read_bytes() != content:
        write_bytes(path, content)


def _describe_folder(job: Job, rows: Rows) -> None:
    from medaug.runtime.pictures import preview_png

    about = job.writer.about(job.generator.kind, job.labels, len(rows) + len(rows.real))
    for name, content in about.items():
        _write_once(job.out / name, content)
    first = (rows[i] for i in rows.indices[:PREVIEW].tolist())
    shown = [row for row in first if (job.out / row["image"]).exists()]
    if shown:
        samples = [job.writer.read(job.out, row) for row in shown]
        clear = [job.ignore.cleared(sample) for sample in samples] if job.ignore else samples
        _write_once(job.out / "preview.png", preview_png(clear))
