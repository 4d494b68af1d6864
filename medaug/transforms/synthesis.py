"""One synthetic case by its address, whichever library's pipeline asks for it."""

from dataclasses import dataclass
from typing import Literal, get_args

from medaug.core.errors import ConfigError, DataError
from medaug.transforms.pairs import open_generator, open_pairs, seen_key
from medaug.transforms.sources import Donor

Mode = Literal["replace", "vary", "redraw"]

STRENGTH = 0.5
SMOOTH_MM = 10.0


@dataclass(frozen=True)
class Recipe:
    """What of which source, in which way.

    Attributes:
        source: a run folder, a ``.safetensors`` file, or a folder written by
            ``medaug synthesize``.
        mode: ``replace`` by another synthetic case; ``vary``, an alternative of this very case
            through the run's encoder; ``redraw``, another image for the same label map, from a run
            in layout mode.
        seed: which family of draws of a run; without meaning for a folder.
        device: where a run's model is computed.
        strength: how far ``vary`` goes, above 0, little, to 1, all that the prior allows.
        smooth_mm: over which length along z the draws of ``vary`` and ``redraw`` resemble each
            other; 0 for slices drawn each on its own.
    """

    source: str
    mode: Mode = "replace"
    seed: int = 0
    device: str = "cpu"
    strength: float = STRENGTH
    smooth_mm: float = SMOOTH_MM

    def check(self) -> None:
        """Refuse what cannot work, before anything is opened.

        Raises:
            ConfigError: an argument is out of range, or the mode needs a run.
            DataError: ``source`` is neither a run nor a synthesised folder.
        """
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


def synthetic(mine: Donor, recipe: Recipe, index: int, fingerprint: str | None) -> Donor:
    """Draw ``index``: another case, or this one drawn anew.

    Args:
        mine: the case; its label map is None where that is not to change.
        recipe: see there; checked.
        index: which sample of the source, or which draw of this case.
        fingerprint: of the weights expected; None for any.

    Returns:
        The synthetic case, without a label map where the source draws none.

    Raises:
        DataError: the source cannot be used, or has other weights.
        ConfigError: the mode does not suit the source or the case.
    """
    pairs = open_pairs(recipe.source, recipe.device)
    found = pairs.fingerprint
    if fingerprint not in (None, found):
        raise DataError(
            f"{recipe.source}: has weights {found} now, and sample {index} was drawn with "
            f"{fingerprint}"
        )
    if recipe.mode == "replace":
        return Donor.of(pairs.pair(index, recipe.seed))
    from medaug.transforms.variation import Address, redraw, vary

    model = open_generator(recipe.source, recipe.device)
    where = Address(recipe.seed, index, recipe.smooth_mm)
    if recipe.mode == "redraw":
        return redraw(mine, model, where)
    return vary(mine, model, where, recipe.strength)
