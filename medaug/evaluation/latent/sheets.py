"""Sheets of pictures: what ``medaug explore`` draws, planned and drawn."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medaug.core.codec import CTCodec
from medaug.core.errors import ConfigError
from medaug.core.seeds import generator as address
from medaug.data.cache.prepare import SliceCache
from medaug.evaluation.latent.codes import Slices, attribute_vector, interpolate, reconstruct
from medaug.evaluation.latent.real_slices import check_fit, open_feed, pick, show
from medaug.runtime.pictures import grid
from medaug.synthesis.generator import Generator

KINDS = ("interpolate", "attribute", "reconstruct")
SPAN = 1.5
"""A sheet adds an attribute's vector from -SPAN to SPAN times."""

ENCODED = 4096
"""At most this many training slices give an attribute's vector."""


@dataclass(frozen=True)
class Exploration:
    """A sheet of pictures, drawn or planned.

    Attributes:
        out: the PNG.
        what: one of ``KINDS``.
        rows: lines of the sheet; a line belongs to one slice, or to one pair.
        columns: pictures in a line.
        source: what the codes are of, in words.
        facts: what was measured on the way; empty in a plan.
    """

    out: Path
    what: str
    rows: int
    columns: int
    source: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        facts = "".join(f", {name.replace('_', ' ')} {v}" for name, v in self.facts.items())
        return f"{self.out}: {self.what}, {self.rows} x {self.columns} pictures{facts}"


def plan(
    generator: Generator,
    what: str,
    out: Path,
    cache: SliceCache | None = None,
    *,
    attribute: str = "",
    rows: int = 8,
    steps: int = 9,
) -> Exploration:
    """What ``explore`` with the same arguments would draw; nothing is written.

    Raises:
        ConfigError: as ``explore`` would.
    """
    if what not in KINDS:
        raise ConfigError(f"explore: {what!r} is not known (known: {', '.join(KINDS)})")
    if rows < 1:
        raise ConfigError(f"rows must be at least 1, got {rows}")
    if steps < 2:
        raise ConfigError(f"steps must be at least 2, got {steps}")
    encodes = hasattr(generator.model, "encode")
    if what == "interpolate" and not encodes:
        return Exploration(Path(out), what, rows, steps, "noise, along great arcs")
    generator.need_encoder()
    if cache is None:
        raise ConfigError(f"{what} needs real slices; give the cache the model was trained on")
    check_fit(generator, cache)
    known = (*(cache.classes or cache.labels), *cache.attributes)
    if what == "attribute" and attribute not in known:
        raise ConfigError(
            f"attribute {attribute!r} is not in {cache.path} (there: {', '.join(known)})"
        )
    columns = {"interpolate": steps + 2, "attribute": steps + 2, "reconstruct": 2}[what]
    return Exploration(Path(out), what, rows, columns, f"slices of {cache.path}")


def explore(
    generator: Generator,
    what: str,
    out: Path,
    cache: SliceCache | None = None,
    *,
    attribute: str = "",
    rows: int = 8,
    steps: int = 9,
    seed: int = 0,
) -> Exploration:
    """Draw a sheet of pictures and write it as a PNG.

    - ``interpolate``: a real slice, ``steps`` slices from its code to another's, the other; without
      an encoder, ``steps`` slices between two noises.
    - ``attribute``: a real slice, its reconstruction, and with ``steps`` multiples of the
      attribute's vector, from -1.5 to 1.5, added to its code.
    - ``reconstruct``: a real slice and its reconstruction.

    Args:
        generator: the model.
        what: one of the above.
        out: the PNG.
        cache: real slices; held-out ones are shown, training ones give an attribute's vector.
        attribute: a label whose presence is meant, a picture's attribute, or a class's name.
        rows: slices or pairs to show.
        steps: slices along a walk, or multiples of the attribute's vector.
        seed: of the choice of slices.

    Raises:
        ConfigError: the model has no encoder, the cache does not fit it, or a value is not
            accepted.
    """
    planned = plan(generator, what, out, cache, attribute=attribute, rows=rows, steps=steps)
    facts: dict[str, Any] = {}
    if cache is None or not hasattr(generator.model, "encode"):
        columns = _between_noises(generator, rows, steps, seed)
    elif what == "interpolate":
        columns = _between_slices(generator, cache, rows, steps, seed)
    elif what == "attribute":
        columns, facts = _along_attribute(generator, cache, attribute, rows, steps, seed)
    else:
        columns, facts = _reconstructions(generator, cache, rows, seed)
    images = np.concatenate([column.images for column in columns], 1)
    labels = _outlines(columns)
    window = generator.codec.window_hu if isinstance(generator.codec, CTCodec) else (0.0, 255.0)
    grid(
        images.reshape(-1, *images.shape[2:]),
        None if labels is None else labels.reshape(-1, *labels.shape[2:]),
        planned.out,
        window=window,
        across=planned.columns,
    )
    return replace(planned, facts=facts)


def default_out(run: Path, what: str, attribute: str = "") -> Path:
    """Where a sheet goes unless told: inside the run, or beside the weight file."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"explore-{what}-{attribute}".rstrip("-"))
    return (run if run.is_dir() else run.parent) / f"{name}.png"


def _outlines(columns: Sequence[Slices]) -> np.ndarray | None:
    """The label maps of a sheet (rows, columns, y, x), empty in the columns that have none."""
    if all(column.labels is None for column in columns):
        return None
    maps = [
        np.zeros(column.images.shape, np.uint8) if column.labels is None else column.labels
        for column in columns
    ]
    return np.concatenate(maps, 1)


def _line(slices: Slices) -> Slices:
    """Slices (n, y, x) as one column (n, 1, y, x) of a sheet."""
    labels = None if slices.labels is None else slices.labels[:, None]
    return Slices(slices.images[:, None], labels)


def _between_noises(generator: Generator, rows: int, steps: int, seed: int) -> list[Slices]:
    a, b = (generator.noise(seed, range(rows), f"explore {end}") for end in "ab")
    told = [generator.condition.of(seed, row, {}) for row in range(rows)]
    conds = (generator.rows(told, generator.layout_maps(seed, range(rows))),) * 2
    return [Slices(*interpolate(generator, a, b, steps, conds=conds, spherical=True, noise=True))]


def _between_slices(
    generator: Generator, cache: SliceCache, rows: int, steps: int, seed: int
) -> list[Slices]:
    both = show(open_feed(generator, cache), 2 * rows, seed)
    codes = generator.encode(*both)
    a, b = both.part(slice(rows)), both.part(slice(rows, None))
    ends = codes[:rows], codes[rows:]
    between = interpolate(generator, *ends, steps, conds=(a.cond, b.cond))
    return [_line(a), Slices(*between), _line(b)]


def _along_attribute(
    generator: Generator, cache: SliceCache, attribute: str, rows: int, steps: int, seed: int
) -> tuple[list[Slices], dict[str, Any]]:
    train = open_feed(generator, cache, "train")
    order = torch.randperm(len(train), generator=address(seed, "attribute"))[:ENCODED]
    present = train.shows(attribute)[order]
    parts = [pick(train, part) for part in order.split(256)]
    vector = attribute_vector(torch.cat([generator.encode(*part) for part in parts]), present)
    real = show(open_feed(generator, cache), rows, seed)
    codes = generator.encode(*real)
    moved = interpolate(
        generator, codes - SPAN * vector, codes + SPAN * vector, steps, conds=(real.cond,) * 2
    )
    facts = {"slices_with": int(present.sum()), "slices_without": int((~present).sum())}
    again = Slices(*generator.decode(codes, real.cond))
    return [_line(real), _line(again), Slices(*moved)], facts


def _reconstructions(
    generator: Generator, cache: SliceCache, rows: int, seed: int
) -> tuple[list[Slices], dict[str, Any]]:
    real = show(open_feed(generator, cache), rows, seed)
    again = reconstruct(generator, real)
    seen = real.images.astype(np.float64)
    unit = "grey_levels"
    if isinstance(generator.codec, CTCodec):
        seen = seen.clip(*generator.codec.window_hu)
        unit = "hu" if generator.kind == "ct" else "thousandths"
    error = float(np.abs(seen - again.images).mean())
    return [_line(real), _line(again)], {f"mean_absolute_error_{unit}": round(error, 3)}
