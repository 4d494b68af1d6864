"""Write the table of ``medaug downstream`` for the page: an arm a row, compared with rivals."""

from collections.abc import Mapping
from typing import Any

from medaug.evaluation.page.words import number
from medaug.evaluation.verdict import listed

COLUMNS = (
    "N", "arm", "Dice", "HD95 mm", "surface Dice", "over standard", "best rival", "over rival",
    "hurt", "seconds", "verdict",
)  # fmt: skip
METRICS = ("dice", "hd95", "surface_dice")
ABSENT = "\N{EN DASH}"


def downstream_table(content: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Write a study's rows as text.

    Args:
        content: ``rows`` and ``notes`` of a study, or None.

    Returns:
        ``verdict``, ``columns``, ``rows`` and ``notes``, or None without a study.
    """
    if content is None:
        return None
    rows = content["rows"]
    ours = [row for row in rows if row["role"] == "synthetic" and not row["skipped"]]
    helps = [f"{row['arm']} (N = {_n(row)})" for row in ours if row["verdict"] == "helps"]
    verdict = "No arm with synthetic slices is shown to help a segmenter."
    if helps:
        verdict = f"Of {len(ours)} arms with synthetic slices, these help: {listed(helps)}."
    skipped = [f"{row['arm']}, N = {_n(row)}: {row['skipped']}" for row in rows if row["skipped"]]
    return {
        "verdict": verdict if ours else "No arm with synthetic slices was run.",
        "columns": COLUMNS,
        "rows": [_cells(row) for row in rows],
        "notes": [*content["notes"], *skipped],
    }


def _cells(row: Mapping[str, Any]) -> list[str]:
    standard, rival = row["versus_standard"], row["versus_rival"]
    return [
        _n(row),
        row["arm"],
        *(_interval(row["scores"].get(name)) for name in METRICS),
        _difference(standard),
        ABSENT if rival is None else rival["against"],
        _difference(rival),
        ABSENT if standard is None else f"{standard['hurt']} of {standard['cases']}",
        f"{row['seconds']:.0f}",
        "skipped" if row["skipped"] else row["verdict"] or ABSENT,
    ]


def _n(row: Mapping[str, Any]) -> str:
    return "all" if row["n"] is None else str(row["n"])


def _interval(found: Mapping[str, float] | None) -> str:
    if found is None:
        return ABSENT
    return f"{number(found['mean'])}\n({number(found['low'])} to {number(found['high'])})"


def _difference(compared: Mapping[str, Any] | None) -> str:
    return ABSENT if compared is None else _interval(compared["differences"]["dice"])
