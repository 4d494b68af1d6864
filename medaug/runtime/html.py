"""Render pages: the frame that all of them share, and pictures inside them as data addresses."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from medaug.core.text import visible
from medaug.runtime.pictures import Levels, Picture, encode

MOST_PX = 256
"""Longest side of a picture in a page; larger ones are shrunk."""
MOST_ROWS, MOST_CELLS = 12, 12
FEW = 3
"""Rows of at most so many pictures, such as pairs, are placed side by side and never broken."""


def framed(folder: Path, **content: Any) -> str:
    """Render ``page.html`` of a folder in the frame, with control characters made visible.

    Args:
        folder: holds ``page.html`` and ``style.css``.
        content: the variables of the template.
    """
    env = Environment(
        loader=FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (folder / "style.css").read_text()
    return visible(env.get_template("page.html").render(style=style, **content))


def gallery(picture: Picture) -> dict[str, Any]:
    """Return a picture for the templates: rows of data addresses with alternative texts."""
    rows = []
    for r, row in enumerate(list(picture.rows)[:MOST_ROWS]):
        name = picture.row_names[r] if r < len(picture.row_names) else ""
        cells = list(row)[:MOST_CELLS]
        rows.append(
            {
                "name": name,
                "cells": [
                    {
                        "src": data_uri(cell),
                        "alt": f"{name or f'{picture.title}, row {r + 1}'}: {c} of {len(cells)}",
                        "height": cell.shape[0],
                        "width": cell.shape[1],
                    }
                    for c, cell in enumerate(cells, 1)
                ],
            }
        )
    few = max((len(row["cells"]) for row in rows), default=0) <= FEW
    left = len(picture.rows) - len(rows)
    caption = picture.caption + (f" {left} more are not shown." if left > 0 else "")
    kind = "few" if few else "many"
    return {"title": picture.title, "caption": caption, "rows": rows, "kind": kind}


def data_uri(cell: Levels) -> str:
    """Return grey (h, w) or RGB (h, w, 3) as a PNG data address, shrunk to ``MOST_PX``."""
    return "data:image/png;base64," + base64.b64encode(_packed(_shrunk(cell))).decode()


def _shrunk(cell: Levels) -> Levels:
    factor = max(cell.shape[:2]) / MOST_PX
    if factor <= 1:
        return cell
    size = round(cell.shape[1] / factor), round(cell.shape[0] / factor)
    smaller = Image.fromarray(np.ascontiguousarray(cell)).resize(size, Image.Resampling.LANCZOS)
    return np.asarray(smaller)


def _packed(cell: Levels) -> bytes:
    """The smallest PNG of the same pixels: with a palette where 256 colours suffice."""
    if cell.ndim == 2:
        return encode(cell, 9)
    colours, places = np.unique(cell.reshape(-1, 3), axis=0, return_inverse=True)
    if len(colours) > 256:
        return encode(cell, 9)
    indexed = Image.fromarray(places.reshape(cell.shape[:2]).astype(np.uint8), "P")
    indexed.putpalette(colours.astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    indexed.save(buffer, "png", compress_level=9)
    return buffer.getvalue()
