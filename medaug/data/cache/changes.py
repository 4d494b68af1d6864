"""Find out whether the files of a cached case are still what it was made of.

The folder of a case holds ``source.json``: a SHA-256 of what its image was read from, one of its
label with the ids that its values become, and one of the sizes and times of the files.  While sizes
and times are the same nothing is read; else the content decides.  No name is kept.  A case whose
record does not match its checksum is cut again.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from medaug.core.errors import DataError
from medaug.core.types import Case
from medaug.data.formats import archives
from medaug.data.source import Block
from medaug.runtime.files import parse_json, sealed, unsealed, write_json

RECORD = "source.json"
_KNOWN = {"image", "label", "stamp"}

Item = Case | Block


def stamp(item: Item) -> str:
    """Hash the sizes and times of the files of a scan or a block of pictures."""
    images, labels = _files(item)
    found = [[_facts(file) for file in files] for files in (images, labels or ())]
    return _hash([json.dumps([found, labels is None, _ids(item)]).encode()])


def contents(item: Item) -> dict[str, str | None]:
    """Hash what image and label are read from; a block of pictures has no label."""
    images, labels = _files(item)
    label = None
    if labels is not None:
        label = _hash([json.dumps(_ids(item)).encode(), *_digests(labels)])
    return {"image": _hash(_digests(images)), "label": label}


def record(item: Item, seen: str) -> dict[str, Any]:
    """Make what `since` compares later, of an item whose `stamp` was ``seen`` before it was read.

    Raises:
        DataError: a file has changed since.
    """
    found = {**contents(item), "stamp": seen}
    if stamp(item) != seen:
        raise DataError("its files changed while they were read; run the same command again")
    return sealed(found)


def moved(folder: Path, item: Item) -> bool:
    """Whether the content must be compared to know if the case in ``folder`` is up to date.

    A case without a record counts as up to date.
    """
    known = _read(folder)
    return known is not None and known.get("stamp") != stamp(item)


def since(folder: Path, item: Item) -> str:
    """Say what has changed since the case in ``folder`` was made; empty where nothing has."""
    known = _read(folder)
    if not known:
        return f"its {RECORD} is damaged"
    now, changed = contents(item), []
    if known.get("image") != now["image"]:
        changed.append(f"its {'image' if isinstance(item, Case) else 'files'} changed")
    if known.get("label") != now["label"]:
        if known.get("label") is None:
            changed.append("it has a label now")
        else:
            changed.append("its label " + ("is gone" if now["label"] is None else "changed"))
    return " and ".join(changed)


def keep(folder: Path, item: Item) -> None:
    """Record the new times of files whose content is as it was."""
    write_json(folder / RECORD, sealed({**(_read(folder) or {}), "stamp": stamp(item)}))


def _read(folder: Path) -> dict[str, Any] | None:
    """The record of a case: None where there is none, an empty one where it is damaged."""
    try:
        known = unsealed(parse_json((folder / RECORD).read_text()))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return known if known.keys() <= _KNOWN else {}


def _files(item: Item) -> tuple[Iterable[Path], Iterable[Path] | None]:
    if isinstance(item, Case):
        return item.image, None if item.label is None else item.label.files
    return item.files, None


def _ids(item: Item) -> list[tuple[int, int]] | None:
    if not isinstance(item, Case) or item.label is None or item.label.ids is None:
        return None
    return sorted(item.label.ids.items())


def _facts(file: Path) -> tuple[int, int] | None:
    """Size and time of a file, or of the archive it is in.

    None for a file that is not there, such as a picture that is only listed.
    """
    packed = archives.split(file)
    try:
        status = (file if packed is None else packed[0]).stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns


def _digests(files: Iterable[Path]) -> Iterable[bytes]:
    for file in files:
        try:
            with archives.opened(file) as stream:
                yield hashlib.file_digest(cast(Any, stream), "sha256").digest()
        except FileNotFoundError:
            yield b"gone"


def _hash(parts: Iterable[bytes]) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part)
    return whole.hexdigest()
