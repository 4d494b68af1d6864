"""Synthetic image and label pairs by index, drawn by a model or read from a folder.

A transform keeps the *name* of its source, which is cheap to pickle.  Models and manifests are
opened when first used, once per process, and blocks of samples are kept, so that a worker pays for
each block once.
"""

from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from medaug.core.errors import ConfigError, DataError
from medaug.core.types import Sample, is_rgb
from medaug.runtime.files import parse_json, unsealed
from medaug.synthesis import journal
from medaug.synthesis.manifest import check_files
from medaug.synthesis.writers import open_writer

if TYPE_CHECKING:
    from medaug.synthesis.generator import Generator

KEPT = 512
"""Slices kept per source and process: 15 MB at 64 x 64, 60 MB at 128 x 128 pixels."""

POOL = 256
"""How many samples of a model a transform draws from by default."""


class Pairs(Protocol):
    """A source of pairs; a pair is a ``Sample`` without alternatives."""

    @property
    def fingerprint(self) -> str:
        """What made the pairs: the weights' fingerprint, 12 characters."""
        ...

    def indices(self, pool: int) -> Sequence[int]:
        """The samples to draw from: ``pool`` of a model, all of a folder."""
        ...

    def pair(self, index: int, seed: int) -> Sample:
        """Sample ``index``; ``seed`` is the random seed of a model's samples."""
        ...


def key_file(source: str | Path) -> Path:
    """Find the file that makes ``source`` what it is: a weight file, or a manifest.

    Raises:
        DataError: neither a run, a weight file nor a synthesised folder.
    """
    path = Path(source)
    if path.suffix == ".safetensors" and path.is_file():
        return path
    for name in ("model.safetensors", "manifest.csv"):
        if (path / name).is_file():
            return path / name
    found = "holds neither weights nor a manifest" if path.is_dir() else "no such file or folder"
    if path.is_file():
        found = "not a weight file"
    raise DataError(
        f"{path}: {found}; give a run folder, its .safetensors file, or a folder written by "
        "medaug synthesize"
    )


_known: dict[str, Path] = {}


def seen_key(source: str) -> tuple[Path, int]:
    """Find the key file of ``source``, once a process, and when it changed last, ns."""
    try:
        key = _known[source]
        return key, key.stat().st_mtime_ns
    except (KeyError, OSError):
        key = _known[source] = key_file(source)
        return key, key.stat().st_mtime_ns


def open_pairs(source: str | Path, device: str = "cpu") -> Pairs:
    """Open the pairs of ``source``, once per process and again when its files change.

    Raises:
        DataError, WeightsError: ``source`` is not one, or cannot be read.
        ConfigError: ``device`` is a GPU in a data loader's worker, or the model draws RGB.
    """
    key, changed_ns = seen_key(str(source))
    if key.name == "manifest.csv":
        return _written(key, changed_ns)
    return _drawn(key, device_here(device), changed_ns)


def open_generator(source: str | Path, device: str = "cpu") -> "Generator":
    """Open the model of a run or weight file; `open_pairs` of the same source shares it.

    Raises:
        DataError, WeightsError: ``source`` is neither run nor weight file, or cannot be read.
        ConfigError: ``device`` is a GPU in a data loader's worker.
    """
    key = key_file(source)
    return _loaded(key, device_here(device), key.stat().st_mtime_ns)


def device_here(device: str) -> str:
    """Resolve ``device``: ``auto`` is ``cpu`` in a data loader's worker; CUDA is not touched.

    Raises:
        ConfigError: ``device`` is a GPU in a worker.
    """
    from torch.utils.data import get_worker_info

    if device == "cpu" or get_worker_info() is None:
        return device
    if device == "auto":
        return "cpu"
    raise ConfigError(
        f"device={device!r}: a data loader's worker cannot draw on a GPU; give a folder written "
        "by medaug synthesize, use device='cpu', or set num_workers=0"
    )


@lru_cache(maxsize=4)
def _written(key: Path, changed_ns: int) -> Pairs:
    return _Written(key.parent)


@lru_cache(maxsize=4)
def _drawn(key: Path, device: str, changed_ns: int) -> Pairs:
    generator = _loaded(key, device, changed_ns)
    if generator.channels == 3:
        raise ConfigError(f"{key}: draws RGB pictures, and transforms take grey slices")
    return _Drawn(generator)


@lru_cache(maxsize=4)
def _loaded(key: Path, device: str, changed_ns: int) -> "Generator":
    from medaug.synthesis.generator import Generator

    return Generator.from_pretrained(key, device=device)


class _Drawn:
    """Pairs that a model draws, a block at a time."""

    def __init__(self, generator: "Generator") -> None:
        self._generator = generator
        self._kept: OrderedDict[tuple[int, int], Sample] = OrderedDict()

    @property
    def fingerprint(self) -> str:
        return self._generator.fingerprint[:12]

    def indices(self, pool: int) -> Sequence[int]:
        return range(pool)

    def pair(self, index: int, seed: int) -> Sample:
        if (seed, index) not in self._kept:
            number = index // self._generator.block_size
            for sample in self._generator.block(number, seed=seed, uncertainty=0):
                self._kept[seed, sample.index] = sample
            while len(self._kept) > max(KEPT, self._generator.block_size):
                self._kept.popitem(last=False)
        return self._kept[seed, index]


class _Written:
    """Pairs that ``medaug synthesize`` wrote."""

    def __init__(self, folder: Path) -> None:
        try:
            run = unsealed(parse_json((folder / "run.json").read_bytes()))
            form, self._seed = run["settings"]["format"], int(run["settings"]["seed"])
            slices = int(run["settings"].get("stack") or 1)
            self._fingerprint = str(run["settings"]["weights"])[:12]
            kind = run["kind"]
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise DataError(f"{folder}: not a folder written by medaug synthesize") from error
        self._rows = journal.read(folder)
        if not self._rows:
            raise DataError(f"{folder}: its manifest lists no samples; finish medaug synthesize")
        if form == "png" and kind != "image":
            raise DataError(
                f"{folder}: holds PNG pictures, which have no HU; write it with --format nifti"
            )
        self._folder, self._indices = folder, sorted(self._rows)
        _, self._writer = open_writer(form)
        self._read = lru_cache(maxsize=max(1, KEPT // slices))(self._load)

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def indices(self, pool: int) -> Sequence[int]:
        return self._indices

    def pair(self, index: int, seed: int) -> Sample:
        return self._read(index)

    def _load(self, index: int) -> Sample:
        if index not in self._rows:
            raise DataError(f"{self._folder}: sample {index} is not in its manifest")
        row = self._rows[index]
        check_files(self._folder, row)
        sample = self._writer.read(self._folder, row | {"std": ""})
        if is_rgb(sample.image):
            raise ConfigError(f"{self._folder}: holds RGB pictures; transforms take grey slices")
        return sample
