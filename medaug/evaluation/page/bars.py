"""Draw a figure as two bars on one scale, synthetic above real, as inline SVG."""

import math
from collections.abc import Callable

from markupsafe import Markup

from medaug.evaluation.figures import Figure

WIDTH, HEIGHT = 400.0, 14.0


def figure_bars(figure: Figure) -> dict[str, Markup]:
    """Draw the bars ``synthetic`` and ``real`` of a figure, before the range that passes."""
    least, most = accepted(figure)
    shown = [figure.value, figure.real, figure.low, figure.high, least, most]
    known = [value for value in shown if value is not None and math.isfinite(value)]
    low, high = min(0.0, *known, 0.0), max(0.0, *known, 0.0)
    room = (high - low) * 0.04 or 1.0
    low, high = (low - room if low < 0 else 0.0), high + room

    def at(value: float) -> float:
        return (min(max(value, low), high) - low) / (high - low) * WIDTH

    behind = ""
    if figure.bound is not None and (least is not None or most is not None):
        start = at(low if least is None else least)
        end = at(high if most is None else most)
        behind = f'<rect class="accepted" x="{start:.1f}" width="{max(end - start, 1):.1f}" y="0" '
        behind += f'height="{HEIGHT:g}"/>'
        for edge in (least, most):
            if edge is not None:
                behind += _line(at(edge), at(edge), 0, HEIGHT, "edge")
    bars = {"synthetic": behind + _bar(at, figure.value, "synthetic")}
    if (
        figure.low is not None
        and figure.high is not None
        and math.isfinite(figure.low + figure.high)
    ):
        middle = HEIGHT / 2
        bars["synthetic"] += _line(at(figure.low), at(figure.high), middle, middle, "whisker")
        for end in (figure.low, figure.high):
            bars["synthetic"] += _line(at(end), at(end), middle - 4, middle + 4, "whisker")
    if figure.real is not None:
        bars["real"] = behind + _bar(at, figure.real, "real")
    frame = f'viewBox="0 0 {WIDTH:g} {HEIGHT:g}" preserveAspectRatio="none"'
    return {
        name: Markup(f'<svg class="bar" {frame} aria-hidden="true">{bar}</svg>')
        for name, bar in bars.items()
    }


def accepted(figure: Figure) -> tuple[float | None, float | None]:
    """The least and the most that the value itself may be, from a bound of any kind."""
    bound = figure.bound
    if bound is None:
        return None, None
    if bound.of == "value":
        return bound.least, bound.most
    if figure.real is None:
        return None, None
    if bound.of == "difference":
        least = None if bound.least is None else figure.real + bound.least
        return least, None if bound.most is None else figure.real + bound.most
    if figure.ratio is None:
        return None, None
    least = None if bound.least is None else bound.least * figure.real
    return least, None if bound.most is None else bound.most * figure.real


def _bar(at: Callable[[float], float], value: float, name: str) -> str:
    if not math.isfinite(value):
        return ""
    left, right = sorted((at(0.0), at(value)))
    return (
        f'<rect class="{name}" x="{left:.1f}" width="{max(right - left, 2):.1f}" y="3" '
        f'height="{HEIGHT - 6:g}"/>'
    )


def _line(x1: float, x2: float, y1: float, y2: float, name: str) -> str:
    return f'<line class="{name}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'
