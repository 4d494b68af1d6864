"""Open second cases for transforms that mix two: from a run, a folder, or a user's sequence.

A transform keeps the *name* of its source, which is cheap to pickle.  A sequence has no name on
disk: it gets one from its content, under which this process and its workers find it again.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from medaug.core.errors import DataError
from medaug.core.types import Affine, Case, Sample
from medaug.data.formats.readers import read_labels, read_volume
from medaug.data.sources.collections import labelled, open_collection
from medaug.transforms.pairs import Pairs, key_file, open_pairs

KEPT_BYTES = 2**30
"""Bytes of cases read from a folder that a process keeps."""

_NAMED = "cases:"


@dataclass(frozen=True)
class Donor:
    """A case: ``image`` (channels, x, y, z), ``label`` (x, y, z) or None, and their affine."""

    image: npt.NDArray[Any]
    label: npt.NDArray[Any] | None
    affine: Affine

    @classmethod
    def of(cls, sample: Sample) -> "Donor":
        """A synthetic case, a slice being a volume one slice thick."""
        image, label = (
            None if array is None else array.T if sample.slices else array.T[:, :, None]
            for array in (sample.image, sample.label)
        )
        assert image is not None
        return cls(image[None], label, sample.affine)

    @cached_property
    def content(self) -> str:
        """12 characters of a hash of everything."""
        content = hashlib.blake2b(np.asarray(self.affine, np.float64).tobytes())
        for array in (self.image, self.label):
            content.update(repr(None if array is None else (array.shape, array.dtype.str)).encode())
            content.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
        return content.hexdigest()[:12]


class Donors(Protocol):
    """A source of second cases."""

    def indices(self, pool: int) -> Sequence[int]:
        """The cases to draw from: ``pool`` of a model, all of a folder or sequence."""
        ...

    def donor(self, index: int, seed: int) -> Donor:
        """Case ``index``; ``seed`` is the random seed of a model's samples."""
        ...

    def fingerprint(self, index: int, seed: int) -> str:
        """What the case is, 12 characters: its model's weights, or its own content."""
        ...


class Cases:
    """A user's sequence of cases, known by a name within this process and its workers.

    Copies of a transform share it; pickling carries the cases along.

    Args:
        items: what ``read`` takes, such as torchio subjects or MONAI's dictionaries.
        read: an item as a donor; a function that can be pickled.

    Raises:
        DataError: there are no items.
    """

    def __init__(self, items: Sequence[Any], read: Callable[[Any], Donor]) -> None:
        if not len(items):
            raise DataError("the list of cases to mix with is empty")
        self.items, self.read = items, read
        ends = [read(items[at]).content for at in (0, len(items) - 1)]
        self.name = f"{_NAMED}{len(items)}-{'-'.join(ends)}"
        _CASES.add(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _CASES.add(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Cases":
        return self

    def indices(self, pool: int) -> Sequence[int]:
        """All of them."""
        return range(len(self.items))

    def donor(self, index: int, seed: int) -> Donor:
        """Case ``index``; ``seed`` plays no part."""
        if not 0 <= index < len(self.items):
            raise DataError(f"{self.name}: has {len(self.items)} cases, and not number {index}")
        return self.read(self.items[index])

    def fingerprint(self, index: int, seed: int) -> str:
        """12 characters of a hash of the case."""
        return self.donor(index, seed).content


_CASES: WeakSet[Cases] = WeakSet()


def _known(name: str) -> Cases | None:
    return next((cases for cases in _CASES if cases.name == name), None)


def check_donors(source: str) -> None:
    """Refuse what `open_donors` cannot open, at little cost.

    Raises:
        DataError: neither a run, a folder of cases nor a sequence that is still there.
    """
    if source.startswith(_NAMED):
        if _known(source) is None:
            raise DataError(
                f"{source}: that list of cases is not in this process; make the transform that "
                "was given it first"
            )
        return
    path = Path(source)
    try:
        key_file(path)
    except DataError as error:
        if not path.is_dir() or labelled(path) is None:
            raise DataError(f"{error}, or a folder of images and labels as nnU-Net's") from error


def open_donors(source: str, device: str = "cpu") -> Donors:
    """Open the cases of ``source``, once per process.

    Raises:
        DataError, WeightsError: ``source`` is no source of cases, or cannot be read.
    """
    check_donors(source)
    if cases := _known(source):
        return cases
    try:
        key_file(source)
    except DataError:
        return _opened(source)
    return _Pairs(open_pairs(source, device))


@lru_cache(maxsize=4)
def _opened(folder: str) -> Donors:
    return _Folder(Path(folder))


class _Pairs:
    """Synthetic pairs as donors."""

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs

    def indices(self, pool: int) -> Sequence[int]:
        return self._pairs.indices(pool)

    def donor(self, index: int, seed: int) -> Donor:
        return Donor.of(self._pairs.pair(index, seed))

    def fingerprint(self, index: int, seed: int) -> str:
        return self._pairs.fingerprint


class _Folder:
    """NIfTI images and label maps, read when drawn and kept while memory lasts."""

    def __init__(self, root: Path) -> None:
        self._root = root
        source = open_collection(root)
        if source.modality != "CT":
            raise DataError(f"{root}: holds {source.modality}, and what is mixed in is CT in HU")
        self._ids = list(source.labels.values())
        self._cases, problems = source.cases()
        if not self._cases:
            raise DataError(f"{root}: no case can be used; {problems[0]}")
        self._kept: OrderedDict[int, Donor] = OrderedDict()

    def indices(self, pool: int) -> Sequence[int]:
        return range(len(self._cases))

    def donor(self, index: int, seed: int) -> Donor:
        if not 0 <= index < len(self._cases):
            raise DataError(f"{self._root}: has {len(self._cases)} cases, and not number {index}")
        if index not in self._kept:
            self._kept[index] = self._read(self._cases[index])
            while len(self._kept) > 1 and sum(map(_size, self._kept.values())) > KEPT_BYTES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(index)
        return self._kept[index]

    def fingerprint(self, index: int, seed: int) -> str:
        return self.donor(index, seed).content

    def _read(self, case: Case) -> Donor:
        try:
            image = read_volume(case.image[0])
            label = None if case.label is None else read_labels(case.label, self._ids)[0]
        except DataError as error:
            raise DataError(f"{self._root}: case {case.id}: {error}") from error
        return Donor(image.voxels[None], label, image.affine)


def _size(donor: Donor) -> int:
    return donor.image.nbytes + (0 if donor.label is None else donor.label.nbytes)


def name_source(source: Any, read: Callable[[Any], Donor]) -> tuple[str, Cases | None]:
    """Name a source of second cases, and return what keeps a sequence alive under its name.

    Args:
        source: a run folder, a ``.safetensors`` file, a folder written by ``medaug synthesize``, a
            folder of images and labels as nnU-Net's, or a sequence of cases.
        read: an item of such a sequence as a donor; a function that can be pickled.

    Raises:
        DataError: ``source`` is none of these.
    """
    if isinstance(source, str | Path):
        check_donors(str(source))
        return str(source), None
    cases = Cases(source, read)
    return cases.name, cases
