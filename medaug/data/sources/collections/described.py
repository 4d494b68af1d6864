"""``dataset.json``: what nnU-Net (v1, v2), Medical Decathlon and AMOS write about a collection."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medaug.core.errors import DataError, shown
from medaug.data.formats.volumes import SUFFIXES
from medaug.data.sources.collections.labels import Label, plain
from medaug.runtime.files import parse_json


@dataclass(frozen=True)
class Description:
    """What a ``dataset.json`` says.

    Attributes:
        labels: in the order in which they are painted; see
        `medaug.data.sources.collections.labels`.
        modality: CT where the one channel is called so, MR where it is called otherwise, None
            where nothing is said.
        ending: the suffix of the files, or None.
        numbered: whether the names of images end in the number of their channel.
    """

    labels: tuple[Label, ...]
    modality: str | None = None
    ending: str | None = None
    numbered: bool = False


def described(path: Path) -> Description:
    """The content of ``path``.

    ``labels`` is name to id (nnU-Net v2), id to name (Decathlon), or, with regions, name to a list
    of values.  A region has its entry of ``regions_class_order`` as its id, and later regions
    cover earlier ones, as nnU-Net writes them.  nnU-Net's ``ignore`` is kept as a label.

    Raises:
        DataError: not what any of them writes.
    """
    try:
        content = parse_json(path.read_text())
        labels = _labels(content)
        channels = content.get("channel_names", content.get("modality"))
        names = [str(name).strip().upper() for name in _entries(channels)]
        ending = content.get("file_ending")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: no labels as name: id (nnU-Net) or id: name (Decathlon) in it"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    _check(path, labels)
    if ending is not None and ending not in SUFFIXES:
        raise DataError(
            f"{path}: file_ending is {shown(ending)}, accepted are {', '.join(SUFFIXES)}"
        )
    modality = ("CT" if set(names) == {"CT"} else "MR") if names else None
    return Description(labels, modality, ending, "channel_names" in content)


def _entries(channels: Any) -> list[Any]:
    if channels is None:
        return []
    return list(channels.values()) if isinstance(channels, Mapping) else [channels]


def _labels(content: Mapping[str, Any]) -> tuple[Label, ...]:
    entries: Mapping[str, Any] = content["labels"]
    if any(isinstance(value, list) for value in entries.values()):
        return _regions(entries, content["regions_class_order"])
    pairs = {
        str(value) if str(key).isdigit() else str(key): int(key if str(key).isdigit() else value)
        for key, value in entries.items()
    }
    if len(pairs) < len(entries):
        raise ValueError("a name is there twice")
    return plain({name: id for name, id in pairs.items() if id != 0})


def _regions(entries: Mapping[str, Any], order: list[int]) -> tuple[Label, ...]:
    covered = {
        name: tuple(int(v) for v in (value if isinstance(value, list) else [value]))
        for name, value in entries.items()
    }
    named = [name for name, values in covered.items() if values != (0,) and name != "ignore"]
    regions = [Label(name, int(id), covered[name]) for name, id in zip(named, order, strict=True)]
    ignored = [Label("ignore", v, (v,)) for v in covered.get("ignore", ())]
    return (*regions, *ignored)


def _check(path: Path, labels: tuple[Label, ...]) -> None:
    ids = [label.id for label in labels]
    if len(set(ids)) < len(ids) or any(not 0 < id < 256 for id in ids):
        raise DataError(
            f"{path}: the ids of labels are {', '.join(map(str, ids))}; "
            "different whole numbers from 1 to 255 are needed"
        )
