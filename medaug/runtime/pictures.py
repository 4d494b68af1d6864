"""Draw slices as PNG pictures: levels, outlines of masks, sheets of many, a preview of samples."""

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

Levels = npt.NDArray[np.uint8]
"""Levels 0 to 255 of a picture, grey (y, x) or RGB (y, x, 3)."""

WINDOW_HU = (-160.0, 240.0)
CELL_PX = 160
"""Least size of a cell of a sheet; slices are enlarged by a whole factor."""
GAP_PX = 2
OUTLINE = np.array([255, 196, 0], np.uint8)
SHADES = ((0, 0, 4), (81, 18, 124), (183, 55, 121), (252, 137, 97), (252, 253, 191))
"""Five colours of matplotlib's magma at equal distances, for the lowest to the highest value."""


@dataclass(frozen=True)
class Picture:
    """Rows of equally large 8-bit pictures for a page.

    Attributes:
        title: above them.
        caption: below them.
        rows: pictures, grey (y, x) or RGB (y, x, 3).
        row_names: of the first rows.
    """

    title: str
    caption: str
    rows: Sequence[Sequence[Levels]]
    row_names: Sequence[str] = ()


def upright(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Turn CT slices [..., y, x] as radiologists look at them: anterior up, patient's right left.

    Both axes are reversed, since y grows to Anterior and x to Right; it is its own inverse.
    """
    return array[..., ::-1, ::-1]


def grey(array: npt.NDArray[Any], window: tuple[float, float] = WINDOW_HU) -> Levels:
    """Map HU through ``window`` to levels; arrays of uint8 are levels already."""
    if array.dtype == np.uint8:
        return array
    low, high = window
    return rounded((array.astype(np.float32) - low) * (255 / (high - low)))


def rounded(values: npt.NDArray[Any]) -> Levels:
    """Round ``values`` to levels and clip them to 0 to 255."""
    return np.rint(values).clip(0, 255).astype(np.uint8)


def shaded(levels: Levels) -> Levels:
    """Colour grey levels (y, x) by ``SHADES``."""
    stops = np.linspace(0, 255, len(SHADES))
    table = [np.interp(np.arange(256), stops, channel) for channel in zip(*SHADES, strict=True)]
    return np.stack(table, -1).round().astype(np.uint8)[levels]


def strip(array: Levels) -> Levels:
    """Put a stack (k, y, x) or (k, y, x, 3) side by side as one picture; a slice stays as it is."""
    return np.concatenate(list(array), axis=1) if array.ndim - is_rgb(array) == 3 else array


def outline(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The pixels of a mask (y, x) that touch its outside."""
    wide = np.pad(mask, 1)
    inside = wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
    return mask & ~inside


def encode(picture: Levels, level: int = 6) -> bytes:
    """Encode a picture as PNG with nothing in it but pixels.

    Args:
        picture: grey (y, x) or RGB (y, x, 3).
        level: of compression, 0 (none) to 9 (smallest).
    """
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "png", compress_level=level)
    return buffer.getvalue()


def preview_png(samples: Sequence[Sample], across: int = 4) -> bytes:
    """Draw each sample next to its standard deviation, on one scale for all, as a PNG.

    Args:
        samples: slices; of a stack the middle slice is shown.
        across: samples in a row.
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
    """Write slices with the outlines of their masks as one PNG.

    Args:
        images: HU (n, y, x), or levels where the type is uint8: grey, or RGB (n, y, x, 3).
        masks: label maps (n, y, x), outlined where above 0; None where there are none.
        path: the PNG to write.
        window: the HU that become black and white.
        across: slices in a row.
    """
    labels = [None] * len(images) if masks is None else list(masks)
    cells = [_cell(image, label, window) for image, label in zip(images, labels, strict=True)]
    write_bytes(path, encode(_tiled(cells, min(across, len(cells)))))


def _cell(
    image: npt.NDArray[Any],
    label: LabelMap | None,
    window: tuple[float, float] = WINDOW_HU,
) -> Levels:
    ct = image.dtype != np.uint8
    picture = grey(image, window)
    enlarged = _enlarge(upright(picture) if ct else picture, smooth=ct)
    cell = enlarged.copy() if is_rgb(picture) else np.repeat(enlarged[..., None], 3, 2)
    if label is not None:
        mask = (np.asarray(label) > 0).astype(np.uint8) * 255
        cell[outline(_enlarge(upright(mask) if ct else mask, smooth=ct) > 127)] = OUTLINE
    return cell


def _enlarge(picture: Levels, smooth: bool) -> Levels:
    height, width = picture.shape[:2]
    factor = -(-CELL_PX // max(height, width))
    how = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    enlarged = Image.fromarray(np.ascontiguousarray(picture)).resize(
        (width * factor, height * factor), how
    )
    return np.asarray(enlarged)


def _tiled(cells: Sequence[Levels], across: int) -> Levels:
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


def _captioned(sheet: Levels, caption: str) -> Levels:
    width = sheet.shape[1]
    lines = textwrap.wrap(caption, max(20, width // 7))
    band = Image.new("RGB", (width, 16 * len(lines) + 4), (32, 32, 32))
    draw, font = ImageDraw.Draw(band), ImageFont.load_default(12)
    for number, line in enumerate(lines):
        draw.text((4, 16 * number + 2), line, fill=(220, 220, 220), font=font)
    return np.concatenate([sheet, np.asarray(band)])
