"""Conditions of a model: a class, then binary attributes, then a slice's height.

As numbers, a condition is the class one-hot, each attribute as 0 or 1, and the height in [-1, 1].
The user fixes some values of a sample.  Of the others, classes take turns, and attributes and
height come together from one slice of the training set, so that they fit each other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medaug.core.config import DataConfig
from medaug.core.errors import ConfigError
from medaug.core.seeds import generator
from medaug.data.cache.store import SliceCache

HEIGHT = "height"
KEPT_ROWS = 256
NEAR = 0.1
"""Rows this close to what was fixed are equally good."""

Asked = Mapping[str, str | float]


@dataclass(frozen=True)
class Condition:
    """The names of a condition, and values that occur together.

    Attributes:
        classes: names of the classes, or empty.
        names: what follows the class: attributes, then ``height``.
        rows: training slices' values of ``names``, to draw from.
    """

    classes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    rows: tuple[tuple[float, ...], ...] = ()

    @property
    def dim(self) -> int:
        """How many numbers it is."""
        return len(self.classes) + len(self.names)

    def fix(self, requested: Asked) -> dict[str, float]:
        """Check the values that a user fixes, and turn them into numbers.

        Args:
            requested: class by its name or number, attribute 0 or 1, height in [-1, 1].

        Raises:
            ConfigError: a name or value this condition does not have.
        """
        known = (*(("class",) if self.classes else ()), *self.names)
        for name in requested:
            if name not in known:
                trained = f"conditioned on {', '.join(known)}" if known else "not conditioned"
                raise ConfigError(f"condition {name!r} is not known; this model was {trained}")
        return {name: self._number(name, requested[name]) for name in known if name in requested}

    def _number(self, name: str, value: str | float) -> float:
        if name == "class":
            return class_number(self.classes, value)
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if name == HEIGHT and not -1 <= number <= 1:
            raise ConfigError(f"condition {name} must be a number from -1 to 1, got {value}")
        if name != HEIGHT and number not in (0, 1):
            raise ConfigError(f"condition {name} must be 0 or 1, got {value}")
        return number

    def of(self, seed: int, index: int, fixed: Mapping[str, float]) -> dict[str, float]:
        """Choose the values of sample ``index`` by name; ``fixed`` comes from `fix`."""
        values: dict[str, float] = {}
        if self.classes:
            values["class"] = index % len(self.classes)
        if self.names:
            rows = self._near(fixed)
            drawn = int(torch.randint(len(rows), (), generator=generator(seed, "condition", index)))
            values |= zip(self.names, rows[drawn], strict=True)
        return {**values, **fixed}

    def _near(self, fixed: Mapping[str, float]) -> Sequence[tuple[float, ...]]:
        """The rows that come closest to what was fixed."""
        places = [(self.names.index(name), v) for name, v in fixed.items() if name in self.names]
        if not places:
            return self.rows
        distances = [sum(abs(row[place] - v) for place, v in places) for row in self.rows]
        most = max(min(distances), NEAR)
        return [row for row, d in zip(self.rows, distances, strict=True) if d <= most]

    def at(
        self, seed: int, indices: Sequence[int], fixed: Mapping[str, float] | None = None
    ) -> Tensor | None:
        """Choose the numbers (n, dim) of samples ``indices``; None without a condition."""
        if not self.dim:
            return None
        return torch.stack([self.row(self.of(seed, index, fixed or {})) for index in indices])

    def row(self, values: Mapping[str, float]) -> Tensor:
        """Turn values by name, all of them, into numbers (dim,)."""
        one_hot = [float(values["class"] == number) for number in range(len(self.classes))]
        return torch.tensor(one_hot + [values[name] for name in self.names])


def class_number(classes: Sequence[str], requested: str | float) -> int:
    """The number of a class given by name or number; a text is a name before it is a number.

    Raises:
        ConfigError: no such class.
    """
    if requested in classes:
        return classes.index(str(requested))
    text = str(requested)
    if text.isdecimal() and int(text) < len(classes):
        return int(text)
    numbers = tuple(map(str, range(len(classes))))
    known = ", ".join(classes) + ("" if numbers == tuple(classes) else f", or 0 to {numbers[-1]}")
    raise ConfigError(f"class {text!r} is not known (known: {known})")


def declared(cache: SliceCache, data: DataConfig) -> Condition:
    """Make the condition that ``data`` names, without rows.

    Raises:
        ConfigError: an attribute or a height that the cache does not have.
    """
    names, known = tuple(data.attributes or ()), (*cache.labels, *cache.attributes)
    for name in names:
        if name not in known:
            raise ConfigError(
                f"config data.attributes: {name!r} is not in {cache.path} "
                f"(there: {', '.join(known) or 'none'})"
            )
    if data.height and cache.kind == "image":
        raise ConfigError("config data.height: pictures have no height; false is accepted")
    classes = cache.classes if data.classes else ()
    return Condition(classes, names + ((HEIGHT,) if data.height else ()))


def heights(usable: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Compute the height of each slice of one scan, (z,).

    It runs from -1 at the lowest slice that training may use to +1 at the highest, evenly in mm,
    and stays there beyond.  So with ``data.require_label`` it is a place within the labelled
    extent, otherwise one within the scan.  The only usable slice of a scan is at 0.
    """
    inside = np.flatnonzero(usable)
    low, high = (inside[0], inside[-1]) if len(inside) else (0, len(usable) - 1)
    z = np.arange(len(usable), dtype=np.float32)
    return np.clip((2 * z - low - high) / max(high - low, 1), -1, 1).astype(np.float32)
