"""Read the training curves of a run from its ``metrics.jsonl``."""

import math
from pathlib import Path

from medaug.evaluation.figures import Curve
from medaug.runtime.files import parse_json

POINTS = 200
"""A curve has at most about this many points; more become means of neighbours."""


def training_curves(run: Path | None) -> list[Curve]:
    """Make one curve for each term of each player; none where there is no file."""
    if run is None or not (run / "metrics.jsonl").is_file():
        return []
    lines: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for text in (run / "metrics.jsonl").read_text(errors="replace").splitlines():
        try:
            row = parse_json(text)
            images = float(row["images"])
            values = {name: float(v) for name, v in row.items() if isinstance(v, int | float)}
        except (ValueError, KeyError, TypeError, OverflowError):
            continue  # a killed run leaves a broken last line
        for name, value in values.items():
            player, slash, term = name.partition("/")
            if slash and math.isfinite(value) and math.isfinite(images):
                x, y = lines.setdefault(player, {}).setdefault(term, ([], []))
                x.append(images)
                y.append(value)
    return [
        Curve(
            f"{player}: {term}",
            f"The size of the gradient of {player} during training."
            if term == "gradient"
            else f"A term of what {player} minimised during training.",
            "images seen",
            "",
            {term: (thinned(x), thinned(y))},
        )
        for player, terms in lines.items()
        for term, (x, y) in terms.items()
    ]


def thinned(values: list[float]) -> list[float]:
    """Average equally many neighbours, to at most about ``POINTS`` values."""
    width = -(-len(values) // POINTS)
    parts = [values[i : i + width] for i in range(0, len(values), width)]
    return [sum(part) / len(part) for part in parts]
