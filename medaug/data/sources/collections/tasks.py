"""``imagesTr`` + ``labelsTr``: nnU-Net raw (v1, v2), Medical Decathlon, AMOS22 and WORD.

Labelled validation folders (``imagesVa`` + ``labelsVa``, ``imagesVal`` + ``labelsVal``) join the
scans; ``imagesTs`` never does, so that a test set stays one.
"""

import re
from pathlib import Path

from medaug.core.errors import DataError
from medaug.data.formats.volumes import stem, suffix, volumes
from medaug.data.sources.collections.collection import Collection, Entry, Wanted
from medaug.data.sources.collections.described import Description, described
from medaug.data.sources.collections.pairs import CHANNEL, named, paired

_SPLITS = ("Tr", "Va", "Val")
_AMOS = re.compile(r"amos_(\d{4})")
_AMOS_LAST_CT = {"Tr": 410, "Va": 409}


def look(root: Path, wanted: Wanted) -> Collection | None:
    """The scans of ``imagesTr`` and ``labelsTr``, or None where these are not there."""
    if not ((root / "imagesTr").is_dir() and (root / "labelsTr").is_dir()):
        return None
    path = root / "dataset.json"
    about = described(path) if path.is_file() else None
    entries: list[Entry] = []
    excluded: dict[str, str] = {}
    for split in _SPLITS:
        images, labels = (_files(root / f"{kind}{split}", about) for kind in ("images", "labels"))
        if split != "Tr" and not labels:
            continue
        found, alone = paired(images, labels, about is not None and about.numbered)
        entries += found
        excluded |= alone
    if not entries:
        raise DataError(f"{root}: no images in it (looked for *.nii.gz and others in imagesTr)")
    if all(_AMOS.fullmatch(entry.id) for entry in entries) and _layout(entries) != "nnunet":
        return _amos(root, wanted, entries, excluded, about)
    return named(root, _layout(entries), entries, excluded, wanted, about)


def _files(folder: Path, about: Description | None) -> list[Path]:
    found = volumes(folder)
    if about is None or about.ending is None:
        return found
    return [file for file in found if suffix(file) == about.ending]


def _layout(entries: list[Entry]) -> str:
    """nnU-Net's images end in a channel, the others' do not."""
    channels = all(CHANNEL.search(stem(f)) for e in entries for f in e.images)
    bare = all(e.images[0].name == e.id + suffix(e.images[0]) for e in entries)
    return "nnunet" if channels and not bare else "imagesTr"


def _amos(
    root: Path,
    wanted: Wanted,
    entries: list[Entry],
    excluded: dict[str, str],
    about: Description | None,
) -> Collection:
    """AMOS22, whose CT scans are those up to a number; its ``dataset.json`` calls all CT."""
    modality = wanted.modality or "CT"
    kept = []
    for entry in entries:
        match = _AMOS.fullmatch(entry.id)
        split = entry.images[0].parent.name.removeprefix("images")
        ct = match is not None and int(match[1]) <= _AMOS_LAST_CT[split]
        if ct == (modality == "CT"):
            kept.append(entry)
        else:
            other = "CT" if ct else "MR"
            excluded[entry.id] = f"a scan of {other} by its number; take it with --modality {other}"
    labels = None if about is None else Description(about.labels)
    return named(root, "amos", kept, excluded, Wanted(modality, wanted.names), labels, "amos")
