"""Replace a case by a synthetic one or redraw it by a trained model."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from medaug.core.errors import ConfigError, DataError
from medaug.transforms.changes import SEEDS, Change, Randint, check_pool, isolated_rng
from medaug.transforms.pairs import POOL, open_generator, open_pairs, seen_key
from medaug.transforms.sources import Donor

Mode = Literal["replace", "vary", "redraw"]


@dataclass(eq=False, repr=False)
class SynthesisChange(Change):
    """Replace a case by a synthetic one, or draw this very case again."""

    own: ClassVar[tuple[str, ...]] = ("source", "mode", "strength", "smooth_mm", "seed", "device")

    source: str | Path
    """A run folder, a ``.safetensors`` file, or, to replace, a folder written by
    ``medaug synthesize``."""
    _: KW_ONLY
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
    pool: int = POOL
    """How many samples of a run take part in ``replace``; more variety for more computing."""
    device: str = "cpu"
    """Where a run's model is computed: ``cpu``, ``cuda`` or ``auto``; with worker processes,
    ``cpu``."""

    @property
    def _reads_label(self) -> bool:
        return self.mode != "replace"

    def _check(self, read: Callable[[Any], Donor]) -> None:
        check_pool(self.pool)
        self.source = str(self.source)
        key, _ = seen_key(self.source)
        if self.mode not in get_args(Mode):
            raise ConfigError(f"mode must be replace, vary or redraw, got {self.mode!r}")
        if self.mode != "replace" and key.name == "manifest.csv":
            raise ConfigError(
                f"{self.source}: mode {self.mode!r} draws with a model; give a run folder or its "
                ".safetensors file, not a written folder"
            )
        if not 0 < self.strength <= 1:
            raise ConfigError(f"strength must be above 0 and at most 1, got {self.strength}")
        if not self.smooth_mm >= 0:
            raise ConfigError(f"smooth_mm must not be negative, got {self.smooth_mm}")

    def _sample(self, randint: Randint, hashed: bool = True) -> dict[str, Any]:
        with isolated_rng():
            pairs = open_pairs(self.source, self.device)
        if self.mode == "replace":
            indices = pairs.indices(self.pool)
            index = int(indices[randint(len(indices))])
        else:
            index = randint(SEEDS)
        return self._record(index=index, fingerprint=pairs.fingerprint if hashed else None)

    def _record(self, **drawn: Any) -> dict[str, Any]:
        return {**self._arguments(), **drawn}

    def _change(self, mine: Donor, params: dict[str, Any]) -> Donor:
        source, index, expected = params["source"], params["index"], params["fingerprint"]
        pairs = open_pairs(source, params["device"])
        if expected not in (None, pairs.fingerprint):
            raise DataError(
                f"{source}: has weights {pairs.fingerprint} now, and sample {index} was drawn with "
                f"{expected}"
            )
        if params["mode"] == "replace":
            return Donor.of(pairs.pair(index, params["seed"]))
        from medaug.transforms.variation import Address, redraw, vary

        model = open_generator(source, params["device"])
        where = Address(params["seed"], index, params["smooth_mm"])
        if params["mode"] == "redraw":
            return redraw(mine, model, where)
        return vary(mine, model, where, params["strength"])
