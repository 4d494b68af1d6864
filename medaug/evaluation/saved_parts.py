"""Save the finished parts of an evaluation, so that a kill loses at most one part.

parts/fidelity.json    figures, curves, details; written last
parts/fidelity.npz     its pictures
"""

import io
import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medaug.data.formats.limits import read_arrays
from medaug.evaluation.figures import Bound, Curve, Family, Figure
from medaug.runtime.files import (
    parse_json,
    read_checked,
    sealed,
    unsealed,
    write_checked,
    write_json,
)
from medaug.runtime.pictures import Picture

VERSION = 2


def as_json(value: Any) -> Any:
    """Convert to what strict JSON allows: what is not finite is null, arrays are lists."""
    if is_dataclass(value) and not isinstance(value, type):
        return as_json(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): as_json(content) for key, content in value.items()}
    if isinstance(value, np.ndarray):
        return as_json(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [as_json(content) for content in value]
    if isinstance(value, np.generic):
        return as_json(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def save(folder: Path, name: str, key: str, family: Family) -> None:
    """Save ``family`` as the part ``name``, whole or not at all.

    ``key`` is a hash of what it was measured on, without which it is not loaded again.
    """
    arrays = {
        f"{p}-{r}-{c}": cell
        for p, picture in enumerate(family.pictures)
        for r, row in enumerate(picture.rows)
        for c, cell in enumerate(row)
    }
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **arrays)
    write_checked(folder / f"{name}.npz", packed.getvalue())
    pictures = [
        {
            "title": picture.title,
            "caption": picture.caption,
            "cells": [len(row) for row in picture.rows],
            "row_names": list(picture.row_names),
        }
        for picture in family.pictures
    ]
    content = {
        "version": VERSION,
        "key": key,
        "name": family.name,
        "figures": family.figures,
        "pictures": pictures,
        "curves": [
            {**vars(curve), "lines": [[name, *line] for name, line in curve.lines.items()]}
            for curve in family.curves
        ],
        "details": family.details,
        "skipped": family.skipped,
    }
    write_json(folder / f"{name}.json", sealed(as_json(content)))


def load(folder: Path, name: str, key: str) -> Family | None:
    """Load the part ``name``, or None where none was measured on what ``key`` says."""
    try:
        content = unsealed(parse_json((folder / f"{name}.json").read_text()))
        if content["version"] != VERSION or content["key"] != key:
            return None
        arrays = read_arrays(io.BytesIO(read_checked(folder / f"{name}.npz")))
        pictures = [
            Picture(
                kept["title"],
                kept["caption"],
                [
                    [arrays[f"{p}-{r}-{c}"] for c in range(count)]
                    for r, count in enumerate(kept["cells"])
                ],
                kept["row_names"],
            )
            for p, kept in enumerate(content["pictures"])
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Family(
        content["name"],
        [_figure(kept) for kept in content["figures"]],
        pictures,
        [
            Curve(**{**kept, "lines": {name: (x, y) for name, x, y in kept["lines"]}})
            for kept in content["curves"]
        ],
        content["details"],
        content["skipped"],
    )


def _figure(kept: dict[str, Any]) -> Figure:
    bound = None if kept["bound"] is None else Bound(**kept["bound"])
    value = math.nan if kept["value"] is None else kept["value"]
    return Figure(**{**kept, "value": value, "bound": bound})
