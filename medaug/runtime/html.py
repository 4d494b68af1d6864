"""Render the frame that all pages share, and pictures inside them."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from medaug.core.text import visible
from medaug.runtime.pictures import Picture, encode


def framed(folder: Path, **content: Any) -> str:
    """``page.html`` of ``folder`` with its ``style.css``, in the frame; all of it can be seen."""
    env = Environment(
        loader=FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (folder / "style.css").read_text()
    return visible(env.get_template("page.html").render(style=style, **content))


# Pictures of the page as PNG inside the file, each with words for those who do not see it.


MOST_PX = 256
"""Pictures that are larger are shrunk."""

MOST_ROWS, MOST_CELLS = 12, 12

FEW = 3
"""Rows of at most so many pictures, such as pairs, lie side by side and are never broken."""


def gallery(picture: Picture) -> dict[str, Any]:
    """A picture's rows as data addresses with alternative texts."""
    rows = []
    for r, cells in enumerate(list(picture.rows)[:MOST_ROWS]):
        name = picture.row_names[r] if r < len(picture.row_names) else ""
        shown = list(cells)[:MOST_CELLS]
        told = name or f"{picture.title}, row {r + 1}"
        rows.append(
            {
                "name": name,
                "cells": [
                    {
                        "src": data_uri(cell),
                        "alt": f"{told}: {c + 1} of {len(shown)}",
                        "height": cell.shape[0],
                        "width": cell.shape[1],
                    }
                    for c, cell in enumerate(shown)
                ],
            }
        )
    few = max((len(row["cells"]) for row in rows), default=0) <= FEW
    left = len(picture.rows) - len(rows)
    caption = picture.caption + (f" {left} more are not shown." if left > 0 else "")
    kind = "few" if few else "many"
    return {"title": picture.title, "caption": caption, "rows": rows, "kind": kind}


def data_uri(cell: npt.NDArray[np.uint8]) -> str:
    """Grey (h, w) or colour (h, w, 3) as a PNG data address, with a palette where that is exact."""
    cell = shrunk(cell)
    return "data:image/png;base64," + base64.b64encode(_packed(cell)).decode()


def shrunk(cell: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """At most ``MOST_PX`` a side."""
    factor = max(cell.shape[:2]) / MOST_PX
    if factor <= 1:
        return cell
    size = round(cell.shape[1] / factor), round(cell.shape[0] / factor)
    smaller = Image.fromarray(np.ascontiguousarray(cell)).resize(size, Image.Resampling.LANCZOS)
    return np.asarray(smaller)


def _packed(cell: npt.NDArray[np.uint8]) -> bytes:
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
