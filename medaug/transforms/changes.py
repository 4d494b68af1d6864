"""What a transform does to a case, whichever library calls it: arguments, draw and effect.

The transforms of torchio and MONAI derive from these dataclasses, so that each shows its arguments
by name, type and default, and each argument is documented once.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch

from medaug.core.errors import ConfigError, DataError
from medaug.core.geometry import HU_RANGE, spacing
from medaug.core.seeds import derive
from medaug.transforms.carvemix import carvemix
from medaug.transforms.contrast import Texture, check_contrast, randomise_contrast
from medaug.transforms.copypaste import copypaste
from medaug.transforms.cutmix import cutmix
from medaug.transforms.grids import label_middle, onto
from medaug.transforms.pairs import POOL
from medaug.transforms.scan import Scan
from medaug.transforms.sources import Donor, name_source, open_donors

SEEDS = 2**31
"""Seeds of single draws lie below this."""

Anchor = Literal["middle", "label"]
Randint = Callable[[int], int]


@contextmanager
def isolated_rng() -> Iterator[None]:
    """Restore torch's global generator afterwards, and NumPy's usual error handling meanwhile.

    Building networks draws random numbers; torchio makes NumPy stricter inside its transforms.
    """
    usual = np.errstate(divide="warn", over="warn", invalid="warn")
    with torch.random.fork_rng(devices=[]), usual:
        yield


def pick(
    scalars: list[str], maps: list[str], image: str | None, label: str | None
) -> tuple[str, str | None]:
    """Choose a subject's scalar image to change, and its label map, if there is one.

    Args:
        scalars: names of the scalar images.
        maps: names of the label maps.
        image: the scalar image by name; None for the only one.
        label: the label map by name; None for the only one, or none.

    Raises:
        ConfigError: the names do not decide.
    """
    scalar = _choose(scalars, image, "scalar image", "image")
    if scalar is None:
        raise ConfigError("the subject has no scalar image to replace")
    return scalar, _choose(maps, label, "label map", "label") if maps or label else None


def _choose(names: list[str], given: str | None, what: str, argument: str) -> str | None:
    listed = ", ".join(names) or "none"
    if given is not None and given not in names:
        raise ConfigError(f"the subject has no {what} {given!r} (it has: {listed})")
    if given is None and len(names) > 1:
        raise ConfigError(
            f"the subject has several {what}s ({listed}); say which to replace, such as "
            f"{argument}={names[0]!r}"
        )
    return given or (names[0] if names else None)


@dataclass(eq=False, repr=False)
class Change(ABC):
    """A change of a case by parameters that are drawn, recorded as JSON values."""

    own: ClassVar[tuple[str, ...]]
    """Names of the arguments that say how to change a case."""
    keeps_label: ClassVar[bool] = False
    """Whether the label map stays, and a changed case comes without one."""

    @property
    def _reads_label(self) -> bool:
        """Whether the change depends on the case's label map."""
        return True

    @abstractmethod
    def _check(self, read: Callable[[Any], Donor]) -> None:
        """Refuse arguments that are out of range, before anything is opened.

        Args:
            read: an item of a sequence of cases as a donor; a function that can be pickled.

        Raises:
            ConfigError: an argument is out of range.
            DataError: the source is none.
        """

    @abstractmethod
    def _sample(self, randint: Randint, hashed: bool = True) -> dict[str, Any]:
        """Draw the parameters of one change.

        Args:
            randint: a random integer from 0 to below its argument.
            hashed: whether to record the fingerprint of what the source gave, 12 characters, so
                that a replay can tell when it gives something else.
        """

    @abstractmethod
    def _record(self, **drawn: Any) -> dict[str, Any]:
        """All parameters: what was drawn, and the arguments."""

    @abstractmethod
    def _change(self, mine: Donor, params: dict[str, Any]) -> Donor:
        """Change a case by recorded parameters.

        Raises:
            ConfigError: the parameters do not suit the case.
            DataError: the source cannot be used, or gives something else than was recorded.
        """

    def _arguments(self) -> dict[str, Any]:
        """The arguments that say how to change a case."""
        return {name: getattr(self, name) for name in self.own}


def check_pool(pool: int) -> None:
    """Refuse a pool without a sample.

    Raises:
        ConfigError: it is below 1.
    """
    if pool < 1:
        raise ConfigError(f"pool must be at least 1, got {pool}")


@dataclass(eq=False, repr=False)
class MixChange(Change):
    """Mix a case of a source into another.

    The case is drawn uniformly: over all of a folder or sequence, or the first ``pool`` samples of
    a run.  Intensities are mixed as they are, so keep this before transforms that rescale them.

    Raises:
        ConfigError: an argument is out of range, or the two cases do not fit.
        DataError: ``source`` cannot be used.
    """

    function: ClassVar[Callable[..., Scan]]

    source: str | Path | Sequence[Any]
    """A run folder, a ``.safetensors`` file, a folder written by ``medaug synthesize``, a folder of
    images and labels as nnU-Net's, or a sequence of cases: torchio subjects, or MONAI items with
    the same keys, loaded and channel-first, such as a ``CacheDataset``."""
    _: KW_ONLY
    seed: int = 0
    """Random seed of a run's samples."""
    pool: int = POOL
    """How many samples of a run take part."""
    device: str = "cpu"
    """Where a run's model is computed: ``cpu``, ``cuda`` or ``auto``; with worker processes,
    ``cpu``."""
    anchor: Anchor = "middle"
    """What is laid on what: ``middle``, the middles of the two cases, or ``label``, the middles of
    their labels, where both have any."""

    def _check(self, read: Callable[[Any], Donor]) -> None:
        check_pool(self.pool)
        if self.anchor not in get_args(Anchor):
            raise ConfigError(f"anchor must be middle or label, got {self.anchor!r}")
        self.source, self.cases = name_source(self.source, read)

    def _sample(self, randint: Randint, hashed: bool = True) -> dict[str, Any]:
        with isolated_rng():
            donors = open_donors(str(self.source), self.device)
        indices = donors.indices(self.pool)
        index, draw = int(indices[randint(len(indices))]), randint(SEEDS)
        with isolated_rng():
            fingerprint = donors.fingerprint(index, self.seed) if hashed else None
        return self._record(index=index, draw=draw, fingerprint=fingerprint)

    def _record(self, **drawn: Any) -> dict[str, Any]:
        shared = {"source": self.source, "seed": self.seed, "device": self.device}
        return {**shared, "anchor": self.anchor, **drawn, "own": self._arguments()}

    def _change(self, mine: Donor, params: dict[str, Any]) -> Donor:
        source, index, expected = params["source"], params["index"], params["fingerprint"]
        donors = open_donors(source, params["device"])
        if expected is not None:
            found = donors.fingerprint(index, params["seed"])
            if found != expected:
                raise DataError(
                    f"{source}: case {index} is {found} now, and {expected} was mixed in"
                )
        other = donors.donor(index, params["seed"])
        rng = np.random.default_rng(derive(params["draw"], "mix"))
        middle = None
        if params.get("anchor") == "label" and mine.label is not None:
            middle = label_middle(mine.label)
        _, *shape = mine.image.shape
        theirs = onto(
            other.image, other.label, other.affine, tuple(shape), mine.affine, rng, middle
        )
        here = Scan(mine.image, mine.label, theirs.spacing)
        scan = type(self).function(here, theirs, rng, **params["own"])
        return Donor(scan.image, scan.label, mine.affine)


@dataclass(kw_only=True, eq=False, repr=False)
class CutMixChange(MixChange):
    """Put a box of another case in."""

    function = staticmethod(cutmix)
    own: ClassVar[tuple[str, ...]] = ("alpha",)

    alpha: float = 1.0
    """The share of voxels that stays is drawn from Beta(alpha, alpha); above 0."""


@dataclass(kw_only=True, eq=False, repr=False)
class CarveMixChange(MixChange):
    """Put in the region around another case's lesion."""

    function = staticmethod(carvemix)
    own: ClassVar[tuple[str, ...]] = ("labels",)

    labels: Collection[int] | None = None
    """Label ids that are the lesion; None for all but 0."""

    def _check(self, read: Callable[[Any], Donor]) -> None:
        super()._check(read)
        if self.labels is not None:
            self.labels = sorted(int(number) for number in self.labels)


@dataclass(kw_only=True, eq=False, repr=False)
class CopyPasteChange(CarveMixChange):
    """Lay another case's labelled voxels over this one."""

    function = staticmethod(copypaste)
    own: ClassVar[tuple[str, ...]] = ("labels", "shift_mm")

    labels: Collection[int] | None = None
    """Label ids to copy; None for all but 0."""
    shift_mm: float = 0.0
    """Largest shift along each axis, mm."""


@dataclass(kw_only=True, eq=False, repr=False)
class ContrastChange(Change):
    """Give every label and every class of the background a new mean intensity."""

    own: ClassVar[tuple[str, ...]] = (
        "clusters",
        "means",
        "gains",
        "deviations",
        "texture",
        "strength",
        "limits",
    )
    keeps_label = True

    clusters: int = 4
    """Into how many classes of intensity to divide what no label covers; at least 1."""
    means: tuple[float, float] | None = None
    """Range of the new means; None for the 1st to 99th percentile of the image."""
    gains: tuple[float, float] = (0.5, 1.5)
    """Range of the factor on the texture, where that is kept."""
    deviations: tuple[float, float] = (0.0, 30.0)
    """Range of the standard deviation, where the texture is Gaussian."""
    texture: Texture = "kept"
    """``kept``, a voxel's difference from its tissue's mean; or ``gaussian``, noise instead."""
    strength: float = 1.0
    """From 0, no change, to 1, what was drawn."""
    limits: tuple[float, float] = HU_RANGE
    """Lowest and highest intensity of the result; HU unless given."""

    def _check(self, read: Callable[[Any], Donor]) -> None:
        check_contrast(**self._arguments())

    def _sample(self, randint: Randint, hashed: bool = True) -> dict[str, Any]:
        return self._record(draw=randint(SEEDS))

    def _record(self, **drawn: Any) -> dict[str, Any]:
        return {**drawn, "own": self._arguments()}

    def _change(self, mine: Donor, params: dict[str, Any]) -> Donor:
        rng = np.random.default_rng(derive(params["draw"], "contrast"))
        scan = Scan(mine.image, mine.label, spacing(mine.affine))
        return Donor(randomise_contrast(scan, rng, **params["own"]).image, None, mine.affine)
