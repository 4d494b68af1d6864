"""One volume file, or a folder of volume files without labels."""

from pathlib import Path

from medaug.data.collections.collection import Collection, Entry
from medaug.data.collections.wanted import Wanted
from medaug.data.volumes import stem, suffix, volumes

_FOLDERS = ("imagesTr", "images", "")


def scan(path: Path, wanted: Wanted) -> Collection | None:
    """The volume file ``path`` as a collection of one scan, or None where it is none."""
    if not suffix(path):
        return None
    modality = wanted.settle(None, str(path))
    return Collection("scan", path.parent, [Entry(stem(path), (path,))], (), modality)


def look(root: Path, wanted: Wanted) -> Collection | None:
    """The volume files of ``imagesTr``, of ``images`` or of ``root``, without labels."""
    for name in _FOLDERS:
        files = volumes(root / name)
        if files:
            entries = [Entry(stem(file), (file,)) for file in files]
            modality = wanted.settle(None, str(root))
            return Collection("images", root, entries, (), modality)
    return None
