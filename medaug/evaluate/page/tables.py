"""The result of ``medaug downstream`` as tables: any list of rows in its JSON is one."""

from collections.abc import Iterator, Mapping
from typing import Any

from medaug.evaluate.page.words import number


def downstream_tables(content: Any) -> dict[str, Any]:
    """Sentences, and tables with their columns and cells, found in a JSON object.

    Returns:
        ``sentences``, the values of ``verdict`` and ``sentence`` wherever they are at the top, and
        ``tables``, each with ``title``, ``columns`` and ``rows`` of text.
    """
    if not isinstance(content, Mapping):
        return {"sentences": [], "tables": []}
    sentences = []
    for key in ("verdict", "sentence", "note"):
        told = content.get(key)
        sentences += [told] if isinstance(told, str) else []
        if isinstance(told, list):
            sentences += [line for line in told if isinstance(line, str)]
    return {"sentences": sentences, "tables": list(_tables(content))}


def _tables(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for key, value in content.items():
        if not isinstance(value, list) or not value:
            continue
        if not all(isinstance(row, Mapping) for row in value):
            continue
        columns = list(dict.fromkeys(name for row in value for name in row if _flat(row[name])))
        yield {
            "title": key.replace("_", " "),
            "columns": [name.replace("_", " ") for name in columns],
            "rows": [[cell(row.get(name)) for name in columns] for row in value],
        }


def _flat(value: Any) -> bool:
    """Whether a value fits a cell: not a list, nor a mapping other than an interval."""
    if isinstance(value, Mapping):
        return {"low", "high"} <= value.keys()
    return not isinstance(value, list) or _pair(value)


def _pair(value: list[Any]) -> bool:
    return len(value) == 2 and all(isinstance(end, int | float) for end in value)


def cell(value: Any) -> str:
    """One value as text: numbers short, intervals as from and to."""
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        middle = value.get("value", value.get("mean"))
        ends = f"{number(value['low'])} to {number(value['high'])}"
        return ends if middle is None else f"{number(middle)} ({ends})"
    if isinstance(value, list):
        return f"{number(value[0])} to {number(value[1])}"
    if isinstance(value, int):
        return str(value)
    return number(value) if isinstance(value, float) else str(value)
