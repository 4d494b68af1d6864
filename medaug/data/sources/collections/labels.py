"""Labels by name: which stored values each covers, and which of them are taken."""

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from medaug.core.errors import ConfigError, DataError

_LONGEST = 64


@dataclass(frozen=True)
class Label:
    """A name, its id in the cache, and the stored values that it covers.

    Labels of a collection come in the order in which they are painted: where two cover the same
    value, or the same voxel in a file each, the later one has it.
    """

    name: str
    id: int
    values: tuple[int, ...]


def plain(names: Mapping[str, int]) -> tuple[Label, ...]:
    """Labels that cover their own id each, in the order of the ids."""
    ordered = sorted(names.items(), key=lambda item: item[1])
    return tuple(Label(name, id, (id,)) for name, id in ordered)


def checked(labels: tuple[Label, ...]) -> tuple[Label, ...]:
    """``labels``, whose names are short text that can be seen, without a backslash.

    Raises:
        DataError: a name is longer than DICOM's 64 characters, or cannot be shown as it is.
    """
    for label in labels:
        if not 0 < len(label.name) <= _LONGEST or not label.name.isprintable():
            shown = label.name[:_LONGEST]
            raise DataError(
                f"a label is called {shown!r}; accepted are 1 to {_LONGEST} visible characters"
            )
        if "\\" in label.name:
            raise DataError(f"the label {label.name!r} has a backslash, which parts names in DICOM")
    return labels


def painted(labels: Iterable[Label]) -> dict[int, int]:
    """Stored value to id, later labels over earlier ones."""
    return {value: label.id for label in labels for value in label.values}


def mapping(labels: Sequence[Label], known: Collection[int]) -> dict[int, int] | None:
    """Stored value to id for all ``known`` values, or None where every value stays as it is."""
    ids = {**dict.fromkeys(sorted(known), 0), **painted(labels)}
    return None if all(value == id for value, id in ids.items()) else ids


def chosen(labels: Sequence[Label], wanted: Sequence[str]) -> tuple[Label, ...]:
    """The labels that are asked for, in their own order.

    Args:
        labels: of the collection.
        wanted: names; names joined by ``+`` become one label with the name and id of the first.

    Raises:
        ConfigError: a name that is not there, or there twice.
    """
    known = {label.name: label for label in labels}
    found: dict[str, Label] = {}
    seen: set[str] = set()
    for ask in wanted:
        parts = [ask] if ask in known else [part.strip() for part in ask.split("+")]
        for part in parts:
            if part not in known:
                raise ConfigError(_unknown(part, known))
            if part in seen:
                raise ConfigError(f"label {part!r} is asked for twice")
            seen.add(part)
        values = [value for part in parts for value in known[part].values]
        found[parts[0]] = replace(known[parts[0]], values=tuple(dict.fromkeys(values)))
    if not found:
        raise ConfigError(f"no label is asked for (there: {', '.join(known)})")
    return tuple(found[label.name] for label in labels if label.name in found)


def _unknown(name: str, known: Collection[str]) -> str:
    if not known:
        return f"label {name!r} is not there: the scans have no labels"
    near = difflib.get_close_matches(name, known, n=1)
    hint = f", did you mean {near[0]!r}?" if near else ""
    shown = list(known)[:20]
    more = f" and {len(known) - 20} more" if len(known) > 20 else ""
    return f"label {name!r} is not there{hint} (there: {', '.join(shown)}{more})"
