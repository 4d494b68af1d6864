"""Write the numbers and bounds of the page in words."""

import math

from medaug.evaluation.figures import Figure


def number(value: float | None, unit: str = "") -> str:
    """Write a number with three significant digits and its unit."""
    if value is None or math.isnan(value):
        return "not measured"
    if math.isinf(value):
        text = "infinite" if value > 0 else "minus infinite"
    elif value and not 1e-3 <= abs(value) < 1e5:
        text = f"{value:.2e}"
    elif abs(value) >= 100:
        text = f"{value:.0f}"
    else:
        text = f"{value:.3g}"
    unit = unit.replace("mm2", "mm\N{SUPERSCRIPT TWO}").replace("mm3", "mm\N{SUPERSCRIPT THREE}")
    return f"{text} {unit}".rstrip().replace("-", "\N{MINUS SIGN}")


def interval(low: float | None, high: float | None) -> str:
    """Write the 95 % interval, or nothing."""
    return "" if low is None or high is None else f"{number(low)} to {number(high)}"


def bound_words(figure: Figure) -> str:
    """Write the bound of a figure, and the ratio or difference that it is on."""
    bound = figure.bound
    if bound is None:
        return ""
    sides = []
    if bound.least is not None:
        sides.append(f"at least {number(bound.least)}")
    if bound.most is not None:
        sides.append(f"at most {number(bound.most)}")
    limits = " and ".join(sides) or "a number"
    if bound.of == "value":
        return f"Must be {limits}."
    if bound.of == "ratio":
        now = "" if figure.ratio is None else f"; it is {number(figure.ratio)} times"
        return f"Must be {limits} times the real one{now}."
    gap = None if figure.real is None else figure.value - figure.real
    now = "" if gap is None else f"; it is {number(gap)}"
    return f"Must differ from the real one by {limits}{now}."


def source_words(figure: Figure) -> str:
    """Write what the figure was measured on."""
    said = [f"{figure.n} synthetic slices against {figure.n_real} real ones"]
    if not figure.n:
        said = [f"{figure.n_real} real slices"]
    if figure.seed is not None:
        said.append(f"seed {figure.seed}")
    if figure.extractor:
        said.append(f"features: {figure.extractor}")
    return "; ".join(said)
