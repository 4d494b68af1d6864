"""Replace or redraw a case by a trained model, whichever library's pipeline asks for it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from medaug.core.errors import ConfigError, DataError
from medaug.transforms.pairs import open_generator, open_pairs, seen_key
from medaug.transforms.sources import SEEDS, Donor, check_pool

Mode = Literal["replace", "vary", "redraw"]


@dataclass(kw_only=True, eq=False, repr=False)
class SynthesisArguments:
    """Arguments that ``RandomSynthesis``, ``Synthesis`` and ``RandSynthesisd`` share."""

    mode: Mode = "replace"
    """``replace`` by another synthetic case; ``vary``, an alternative of this very case, by a run
    with an encoder; ``redraw``, another image for the same label map, by a run in layout mode."""
    strength: float = 0.5
    """How far ``vary`` goes: above 0, little, to 1, all that the prior allows."""
    smooth_mm: float = 10.0
    """Length along z, in mm, over which slices of ``vary`` and ``redraw`` resemble each other in
    their draw; 0 draws each slice on its own."""
    seed: int = 0
    """Random seed of a run's samples; a written folder has no use for it."""
    device: str = "cpu"
    """Where a run's model is computed: ``cpu``, ``cuda`` or ``auto``; with worker processes,
    ``cpu``."""

    def check(self, source: str) -> None:
        """Refuse what cannot work, before anything is opened.

        Raises:
            ConfigError: an argument is out of range, or the mode needs a run.
            DataError: ``source`` is neither a run nor a synthesised folder.
        """
        key, _ = seen_key(source)
        if self.mode not in get_args(Mode):
            raise ConfigError(f"mode must be replace, vary or redraw, got {self.mode!r}")
        if self.mode != "replace" and key.name == "manifest.csv":
            raise ConfigError(
                f"{source}: mode {self.mode!r} draws with a model; give a run folder or its "
                ".safetensors file, not a written folder"
            )
        if not 0 < self.strength <= 1:
            raise ConfigError(f"strength must be above 0 and at most 1, got {self.strength}")
        if not self.smooth_mm >= 0:
            raise ConfigError(f"smooth_mm must not be negative, got {self.smooth_mm}")

    def draw_index(self, source: str, pool: int, randint: Callable[[int], int]) -> int:
        """Draw which sample of ``source`` replaces a case, or which draw of the case itself.

        Args:
            source: a run, a weight file, or a written folder.
            pool: how many samples of a run take part in ``replace``.
            randint: a random integer from 0 to below its argument.
        """
        if self.mode != "replace":
            return randint(SEEDS)
        indices = open_pairs(source, self.device).indices(pool)
        return int(indices[randint(len(indices))])

    def synthetic(self, mine: Donor, source: str, index: int, fingerprint: str | None) -> Donor:
        """Draw sample ``index``: another case, or this one again.

        Args:
            mine: the case; its label map is None where that is not to change.
            source: a run, a weight file, or a written folder.
            index: which sample of the source, or which draw of this case.
            fingerprint: of the weights expected, 12 characters; None for any.

        Returns:
            The synthetic case, without a label map where the source draws none.

        Raises:
            DataError: the source cannot be used, or has other weights.
            ConfigError: the mode does not suit the source or the case.
        """
        pairs = open_pairs(source, self.device)
        if fingerprint not in (None, pairs.fingerprint):
            raise DataError(
                f"{source}: has weights {pairs.fingerprint} now, and sample {index} was drawn with "
                f"{fingerprint}"
            )
        if self.mode == "replace":
            return Donor.of(pairs.pair(index, self.seed))
        from medaug.transforms.variation import Address, redraw, vary

        model = open_generator(source, self.device)
        where = Address(self.seed, index, self.smooth_mm)
        if self.mode == "redraw":
            return redraw(mine, model, where)
        return vary(mine, model, where, self.strength)


def check_synthesis(arguments: SynthesisArguments, source: str | Path, pool: int) -> str:
    """The name of ``source``, once it, ``pool`` and the arguments are found to fit.

    Raises:
        ConfigError: an argument is out of range, or the mode needs a run.
        DataError: ``source`` is neither a run nor a synthesised folder.
    """
    check_pool(pool)
    arguments.check(str(source))
    return str(source)
