"""What one call of ``synthesize`` is to do: its arguments, checked, and what is still missing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict

import numpy as np
import numpy.typing as npt

from medaug.core.config import DataConfig
from medaug.core.errors import ConfigError
from medaug.core.types import Sample
from medaug.synthesis import journal
from medaug.synthesis.ignore_label import IGNORE, IgnoreAbove, ignore_above
from medaug.synthesis.manifest import Row, Rows, found_crc32
from medaug.synthesis.real_slices import RealSlices, real_slices
from medaug.synthesis.writers import Writer, open_writer

COMPRESS_LEVEL = 1
"""Level 1 takes 1 ms for a 64 x 64 sample with 8 alternatives and leaves 40 kB; level 6 takes
2.7 times as long to save 5 %, since what remains is noise."""

SMOOTH_MM = 10.0
"""At 10 mm, slices of a phantom's stack 3 mm apart differed in HU nearly as much as real ones (15
against 17); at 20 mm by less than half of it."""

Judge = Callable[[npt.NDArray[Any], npt.NDArray[Any] | None], Sequence[str]]
"""Images (n, y, x) and label maps to a reason for refusal each, empty where there is none."""

Indices = npt.NDArray[np.int64]

Asked = Mapping[str, str | float]
"""What all samples share, by name."""


class Blocks(Protocol):
    """What ``synthesize`` needs of a generator."""

    @property
    def fingerprint(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def channels(self) -> int: ...
    @property
    def labels(self) -> dict[str, int]: ...
    @property
    def config(self) -> dict[str, Any]: ...
    @property
    def privacy(self) -> dict[str, Any] | None: ...
    @property
    def block_size(self) -> int: ...
    def fix(self, condition: Asked | None) -> dict[str, float]: ...
    def depends_on(self, source: str, uncertainty: int) -> Mapping[str, str | bool | None]: ...
    def uncertainty_of(self, source: str) -> str: ...
    def block(
        self,
        number: int,
        seed: int = 0,
        uncertainty: int = 8,
        condition: Asked | None = None,
        source: str = "latent",
        judge: Judge | None = None,
    ) -> list[Sample]: ...


class Judging(Protocol):
    """What ``synthesize`` needs of a filter."""

    @property
    def fingerprint(self) -> str: ...
    def judge(self, image: npt.NDArray[Any], label: npt.NDArray[Any] | None) -> list[str]: ...


@dataclass(frozen=True)
class Job:
    """One shard's share of a folder.

    Attributes:
        level: of compression.
        settings: what the folder is a function of, beside ``n``.
        source: of the alternatives.
        filter: what judges samples before they are written.
        real: the real slices that stand beside the samples.
        ignore: where label maps are to say ``ignore``.
        facts: what else ``run.json`` says of the samples.
    """

    generator: Blocks
    n: int
    out: Path
    shard: tuple[int, int]
    writer: Writer
    level: int
    settings: dict[str, Any]
    source: str
    filter: Judging | None
    real: RealSlices | None
    ignore: IgnoreAbove | None
    facts: dict[str, Any]

    @property
    def labels(self) -> dict[str, int]:
        """Name to id of all that the label maps hold."""
        extra = {IGNORE: self.ignore.label} if self.ignore else {}
        return {**self.generator.labels, **extra}

    @property
    def seed(self) -> int:
        return int(self.settings["seed"])

    def indices(self) -> Indices:
        """The samples of this shard, ascending."""
        number, count = self.shard
        size = self.generator.block_size
        blocks = np.arange(number, -(-self.n // size), count)
        every = (blocks[:, None] * size + np.arange(size)).ravel()
        return every[every < self.n]

    def missing(self, rows: Rows) -> Indices:
        """The samples of this shard that lack a row, or whose files are not what it says."""
        own = self.indices()
        done = np.intersect1d(own, rows.indices, assume_unique=True).tolist()
        whole = np.array([index for index in done if self._whole(rows[index])], np.int64)
        return np.setdiff1d(own, whole, assume_unique=True)

    def real_cases(self) -> list[str]:
        """The real slices of this shard."""
        places = self.real.places if self.real else {}
        return [case for case in places if journal.in_shard(case, *self.shard)]

    def missing_real(self, rows: Rows) -> list[str]:
        """The real slices of this shard that lack a row, or whose files are not what it says."""
        done = rows.real
        return [c for c in self.real_cases() if c not in done or not self._whole(done[c])]

    def _whole(self, row: Row) -> bool:
        """Whether the files of a row are there and have its checksum."""
        return found_crc32(self.out, row) == row["files_crc32"]


class Options(TypedDict, total=False):
    """What ``synthesize`` can be asked beside how many and where; see there."""

    seed: int
    uncertainty: int
    source: str
    condition: Asked | None
    shard: tuple[int, int]
    format: str
    compress_level: int
    filter: Judging | None
    with_real: Path | None
    ignore_above: str | float | None
    stack: int
    smooth_mm: float


def job_for(generator: Blocks, n: int, out: Path, options: Options) -> Job:
    """The job for the arguments of ``synthesize``; nothing is written.

    Raises:
        ConfigError, CacheError, DataError: an argument that ``synthesize`` refuses.
    """
    seed, uncertainty = options.get("seed", 0), options.get("uncertainty", 8)
    shard, level = options.get("shard", (0, 1)), options.get("compress_level", COMPRESS_LEVEL)
    source, judging = options.get("source", "latent"), options.get("filter")
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
    name, writer = open_writer(options.get("format", "auto"), generator.kind)
    if name != "png" and generator.channels == 3:
        raise ConfigError(f"format {name} takes grey slices, and these samples are RGB; take png")
    stack, smooth_mm, facts = options.get("stack", 0), options.get("smooth_mm", SMOOTH_MM), {}
    if stack:
        from medaug.synthesis.stacks import stacked

        if name != "nifti":
            raise ConfigError(f"stack: a volume in one file goes with format nifti, got {name}")
        if options.get("with_real") is not None:
            raise ConfigError(
                "stack: the real cases of with_real are slices; leave one of them out"
            )
        stacks = stacked(generator, stack, smooth_mm)
        generator, facts = stacks, {"adjoining_real": stacks.adjoining or None}
    labels, real, marks = generator.labels, None, None
    ignore, with_real = options.get("ignore_above"), options.get("with_real")
    if ignore is not None:
        marks = ignore_above(ignore, labels, uncertainty, name)
    if with_real is not None:
        trained = DataConfig.model_validate(generator.config.get("data", {}))
        real = real_slices(with_real, labels, trained, name)
    settings = {
        "weights": generator.fingerprint,
        "seed": seed,
        "uncertainty": uncertainty,
        "condition": generator.fix(options.get("condition")),
        "format": name,
        "compress_level": level,
        "real_slices": real and real.fingerprint,
        "ignore_above": marks and str(marks),
        "filter": judging and judging.fingerprint,
        "stack": stack or None,
        "smooth_mm": float(smooth_mm) if stack else None,
        **generator.depends_on(source, uncertainty),
    }
    return Job(
        generator, n, Path(out), shard, writer, level, settings, source, judging, real, marks, facts
    )
