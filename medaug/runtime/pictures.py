"""Encode slices as PNG pictures."""

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from medaug.core.types import LabelMap, Sample, is_rgb
from medaug.runtime.files import write_bytes

WINDOW_HU = (-160.0, 240.0)

Grey = npt.NDArray[np.uint8]
"""Levels of a grey picture, or of RGB with its channels last."""


def upright(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """CT slices [..., y, x] as radiologists look at them: anterior up, patient's right on the left.

    Both axes are reversed, since y grows to Anterior and x to Right; its own inverse.
    """
    return array[..., ::-1, ::-1]


def grey(array: npt.NDArray[Any], window: tuple[float, float] = WINDOW_HU) -> Grey:
    """HU through ``window`` to 0 to 255; arrays of uint8 are grey levels already."""
    if array.dtype == np.uint8:
        return array
    low, high = window
    return _rounded((array.astype(np.float32) - low) * (255 / (high - low)))


def strip(array: Grey) -> Grey:
    """A stack [k, y, x] or [k, y, x, 3] as one picture, side by side; a slice stays as it is."""
    return np.concatenate(list(array), axis=1) if array.ndim - is_rgb(array) == 3 else array


def _rounded(array: npt.NDArray[Any]) -> Grey:
    return np.rint(array).clip(0, 255).astype(np.uint8)


def encode(picture: Grey, level: int = 6) -> bytes:
    """Grey (y, x) or RGB (y, x, 3) as PNG with nothing in it but pixels."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "png", compress_level=level)
    return buffer.getvalue()


RGB = npt.NDArray[np.uint8]

CELL_PX = 160
"""Cells are at least this large, by a whole factor."""

GAP_PX = 2

OUTLINE = np.array([255, 196, 0], np.uint8)

SHADES = ((0, 0, 4), (81, 18, 124), (183, 55, 121), (252, 137, 97), (252, 253, 191))
"""Five stops of matplotlib's magma, from nothing to most."""


def preview(samples: Sequence[Sample], path: Path) -> None:
    """Write ``preview_png(samples)`` to ``path``."""
    write_bytes(path, preview_png(samples))


def preview_png(samples: Sequence[Sample], across: int = 4) -> bytes:
    """Each sample beside its standard deviation, on one scale for all, ``across`` pairs a row.

    A stack is shown by its middle slice.
    """
    samples = [s.at(s.slices // 2) if s.slices else s for s in samples]
    ct = samples[0].image.dtype != np.uint8
    top = max(float(np.percentile([sample.std for sample in samples], 99.5)), 1.0)
    cells = []
    for sample in samples:
        spread = sample.std.mean(-1) if is_rgb(sample.image) else sample.std
        shade = np.clip(spread / top * 255, 0, 255).astype(np.uint8)
        cells.append(_cell(sample.image, sample.label))
        cells.append(shaded(_enlarge(upright(shade) if ct else shade, smooth=ct)))
    unit = "HU" if ct else "levels, mean of R, G, B" if is_rgb(samples[0].image) else "grey levels"
    caption = f"synthetic; right of each: standard deviation, 0 to {top:.0f} {unit}"
    if ct:
        low, high = WINDOW_HU
        caption += f"; CT {low:.0f} to {high:.0f} HU, anterior up, patient's right on the left"
    return encode(_captioned(_tiled(cells, 2 * min(across, len(samples))), caption))


def grid(
    images: npt.NDArray[Any],
    masks: npt.NDArray[Any] | None,
    path: Path,
    *,
    window: tuple[float, float] = WINDOW_HU,
    across: int = 8,
) -> None:
    """Write slices (n, y, x) with the outlines of their masks (n, y, x), ``across`` a row.

    Args:
        images: HU, or levels where the type is uint8: grey, or RGB (n, y, x, 3).
        masks: label maps, anything above 0 is outlined; None where there are none.
        path: the PNG to write.
        window: the HU that become black and white.
        across: slices a row.
    """
    labels = [None] * len(images) if masks is None else list(masks)
    cells = [_cell(image, label, window) for image, label in zip(images, labels, strict=True)]
    write_bytes(path, encode(_tiled(cells, min(across, len(cells)))))


def _cell(
    image: npt.NDArray[Any],
    label: LabelMap | None,
    window: tuple[float, float] = WINDOW_HU,
) -> RGB:
    ct = image.dtype != np.uint8
    picture = grey(image, window)
    enlarged = _enlarge(upright(picture) if ct else picture, smooth=ct)
    cell = enlarged.copy() if is_rgb(picture) else np.repeat(enlarged[..., None], 3, 2)
    if label is not None:
        mask = (np.asarray(label) > 0).astype(np.uint8) * 255
        cell[outline(_enlarge(upright(mask) if ct else mask, smooth=ct) > 127)] = OUTLINE
    return cell


def _enlarge(picture: npt.NDArray[np.uint8], smooth: bool) -> npt.NDArray[np.uint8]:
    height, width = picture.shape[:2]
    factor = -(-CELL_PX // max(height, width))
    how = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    enlarged = Image.fromarray(np.ascontiguousarray(picture)).resize(
        (width * factor, height * factor), how
    )
    return np.asarray(enlarged)


def outline(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The pixels of a mask (y, x) that touch its outside."""
    wide = np.pad(mask, 1)
    inside = wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
    return mask & ~inside


def shaded(values: npt.NDArray[np.uint8]) -> RGB:
    """Grey levels (y, x) in ``SHADES``."""
    stops = np.linspace(0, 255, len(SHADES))
    table = [np.interp(np.arange(256), stops, channel) for channel in zip(*SHADES, strict=True)]
    return np.stack(table, -1).round().astype(np.uint8)[values]


def _tiled(cells: Sequence[RGB], across: int) -> RGB:
    height, width, _ = cells[0].shape
    down = -(-len(cells) // across)
    sheet = np.full(
        (down * (height + GAP_PX) + GAP_PX, across * (width + GAP_PX) + GAP_PX, 3), 32, np.uint8
    )
    for place, cell in enumerate(cells):
        y = place // across * (height + GAP_PX) + GAP_PX
        x = place % across * (width + GAP_PX) + GAP_PX
        sheet[y : y + height, x : x + width] = cell
    return sheet


def _captioned(sheet: RGB, caption: str) -> RGB:
    width = sheet.shape[1]
    lines = textwrap.wrap(caption, max(20, width // 7))
    band = Image.new("RGB", (width, 16 * len(lines) + 4), (32, 32, 32))
    draw, font = ImageDraw.Draw(band), ImageFont.load_default(12)
    for number, line in enumerate(lines):
        draw.text((4, 16 * number + 2), line, fill=(220, 220, 220), font=font)
    return np.concatenate([sheet, np.asarray(band)])


@dataclass(frozen=True)
class Picture:
    """Rows of equally large 8-bit pictures, grey (h, w) or colour (h, w, 3)."""

    title: str
    caption: str
    rows: Sequence[Sequence[npt.NDArray[np.uint8]]]
    row_names: Sequence[str] = ()
