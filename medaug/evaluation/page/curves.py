"""Draw curves and point clouds as inline SVG, with round ticks and a colour and dash a line."""

import math
from collections.abc import Sequence
from itertools import pairwise

from markupsafe import Markup, escape

from medaug.evaluation.figures import Curve
from medaug.evaluation.page.words import number

WIDTH, HEIGHT = 340.0, 210.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 14.0, 10.0, 44.0
LINES = 6
"""Number of colours; further lines take them again with other dashes."""


def curve_svg(curve: Curve) -> Markup:
    """Draw a line where its x grows throughout, and a cloud of points where it does not."""
    points = {
        name: [
            (float(x), float(y)) for x, y in zip(xs, ys, strict=True) if _finite(x) and _finite(y)
        ]
        for name, (xs, ys) in curve.lines.items()
    }
    every = [point for line in points.values() for point in line]
    if not every:
        return Markup('<p class="note">Nothing was measured.</p>')
    (x0, x1, x_ticks), (y0, y1, y_ticks) = (axis([point[i] for point in every]) for i in (0, 1))

    def at(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)
        return across, HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for tick in x_ticks:
        across, _ = at(tick, y0)
        parts.append(
            f'<line class="grid" x1="{across:.1f}" x2="{across:.1f}" y1="{TOP:g}" '
            f'y2="{HEIGHT - BOTTOM:g}"/><text class="tick" x="{across:.1f}" '
            f'y="{HEIGHT - BOTTOM + 18:g}" text-anchor="middle">{escape(short(tick))}</text>'
        )
    for tick in y_ticks:
        _, down = at(x0, tick)
        parts.append(
            f'<line class="grid" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{down:.1f}" '
            f'y2="{down:.1f}"/><text class="tick" x="{LEFT - 6:g}" y="{down + 4:.1f}" '
            f'text-anchor="end">{escape(short(tick))}</text>'
        )
    middle_x, middle_y = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text class="axis" x="{middle_x:g}" y="{HEIGHT - 6:g}" text-anchor="middle">'
        f"{escape(curve.x)}</text>"
        f'<text class="axis" transform="translate(11 {middle_y:g}) rotate(-90)" '
        f'text-anchor="middle">{escape(curve.y)}</text>'
    )
    keys = []
    for place, (name, line) in enumerate(points.items()):
        kind = f"line-{place % LINES} dash-{place // LINES % 3}"
        spots = [at(*point) for point in line]
        cloud = any(b[0] < a[0] for a, b in pairwise(line))
        if cloud or len(line) == 1:
            parts.append(
                f'<g class="cloud {kind}">'
                + "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.9"/>' for x, y in spots)
                + "</g>"
            )
        else:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
            parts.append(f'<polyline class="curve {kind}" points="{path}"/>')
        shape = '<circle cx="8" cy="5" r="4"/>' if cloud else '<line x1="0" x2="16" y1="5" y2="5"/>'
        keys.append(
            f'<li><svg class="key {"cloud" if cloud else "curve"} {kind}" viewBox="0 0 16 10" '
            f'aria-hidden="true">{shape}</svg> {escape(name)}</li>'
        )
    spans = [
        f"{name} from {number(low)} to {number(high)}"
        for name, low, high in ((curve.x or "x", x0, x1), (curve.y or "y", y0, y1))
    ]
    label = f"{curve.title}: {', '.join(points)}; {', '.join(spans)}"
    picture = (
        f'<svg class="plot" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )
    legend = f'<ul class="keys">{"".join(keys)}</ul>' if len(points) > 1 else ""
    return Markup(picture + legend)


def axis(values: Sequence[float], count: int = 4) -> tuple[float, float, list[float]]:
    """Choose lower end, upper end and about ``count`` round ticks of an axis for ``values``."""
    low, high = min(values), max(values)
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
        room = abs(low) / 2 or 0.5
        low, high = low - room, high + room
    rough = (high - low) / count
    scale = 10.0 ** math.floor(math.log10(rough))
    step = next(scale * m for m in (1, 2, 2.5, 5, 10) if scale * m >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [k * step for k in range(first, last + 1)]
    return ticks[0], ticks[-1], ticks


def short(value: float) -> str:
    """Write a tick's number, as 50k, 0.25 or 1e-05."""
    if abs(value) < 1e-12:
        return "0"
    for scale, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            return f"{value / scale:g}{letter}".replace("-", "\N{MINUS SIGN}")
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
