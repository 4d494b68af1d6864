"""Images and label maps by file name: in two folders, side by side, or a folder for each case."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from medaug.data.collections.collection import Collection, Entry
from medaug.data.collections.described import Description, described
from medaug.data.collections.labels import Label, plain
from medaug.data.collections.names import KNOWN, recognised, vocabulary
from medaug.data.collections.wanted import Wanted
from medaug.data.volumes import stem, volumes

CHANNEL = re.compile(r"_(\d{4})$")
LABEL = re.compile(r"[_-](?:label|labels|mask|masks|seg|segmentation)$", re.IGNORECASE)
_IMAGE = re.compile(r"[_-](?:image|img|ct|scan|volume)$", re.IGNORECASE)
_LITS = re.compile(r"(volume|segmentation|labels)-(\d+)")
_IMAGES = re.compile(
    r"images?|imgs?|scans?|volumes?|cts?|trainimages?|imagestr|.*[-_]imagepart\d*", re.IGNORECASE
)
_LABELS = re.compile(r"labels?|masks?|segs?|segmentations?|trainmasks?|labelstr", re.IGNORECASE)
_BARE = re.compile(r"label|labels|mask|masks|seg|segmentation", re.IGNORECASE)


def paired(
    images: Iterable[Path], labels: Iterable[Path], numbered: bool = False
) -> tuple[list[Entry], dict[str, str]]:
    """Images and label maps by case, and the label maps without an image.

    The case is the name without what says that a file is an image or a label: ``_0000`` of images,
    ``_label``, ``_mask``, ``_seg`` of label maps, ``_image``, ``_ct`` of images.  An image without
    a label map keeps its name, but for the channel where all are ``numbered``.
    """
    marked = {LABEL.sub("", stem(p)): p for p in sorted(labels, reverse=True)}
    found: dict[tuple[str, Path], list[Path]] = {}
    for path in sorted(images):
        own = CHANNEL.sub("", stem(path)) if numbered else stem(path)
        id = next((c for c in _names(stem(path)) if c in marked), own)
        found.setdefault((id, path.parent), []).append(path)
    entries = [Entry(id, tuple(files), marked.get(id)) for (id, _), files in found.items()]
    alone = sorted(marked.keys() - {id for id, _ in found})
    return entries, {id: f"no image was found for {marked[id].name}" for id in alone}


def _names(name: str) -> tuple[str, ...]:
    return name, CHANNEL.sub("", name), _IMAGE.sub("", name)


def folders(root: Path, images: re.Pattern[str], labels: re.Pattern[str]) -> bool:
    """Whether ``root`` has folders of volumes named so."""
    return bool(_matching(root, images)) and bool(_matching(root, labels))


def _matching(root: Path, pattern: re.Pattern[str]) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and pattern.fullmatch(p.name))


def _in(found: Sequence[Path]) -> list[Path]:
    return [file for folder in found for file in volumes(folder)]


def look(root: Path, wanted: Wanted) -> Collection | None:
    """The images and label maps in ``root``, or None where there are no such pairs."""
    images, labels = _in(_matching(root, _IMAGES)), _in(_matching(root, _LABELS))
    if images and labels:
        return named(root, "folders", *paired(images, labels), wanted)
    beside = _side_by_side(volumes(root))
    if beside is not None:
        return named(root, "side by side", *paired(*beside), wanted)
    cases = _folder_each(root)
    return named(root, "folder each", cases, {}, wanted) if cases else None


def _side_by_side(files: Sequence[Path]) -> tuple[list[Path], list[Path]] | None:
    """Images and label maps that lie in one folder."""
    marked = [p for p in files if LABEL.search(stem(p))]
    if not marked:
        stems = {stem(p) for p in files}
        marked = [p for p in files if f"{stem(p)}_0000" in stems]
    return ([p for p in files if p not in marked], marked) if marked else None


def _folder_each(root: Path) -> list[Entry]:
    """Folders of an image and a label map each, named ``label``, ``mask`` or ``segmentation``."""
    entries = []
    for folder in sorted(p for p in root.iterdir() if p.is_dir() and p.name[0] != "."):
        files = volumes(folder)
        marked = [p for p in files if _BARE.fullmatch(stem(p)) or LABEL.search(stem(p))]
        images = tuple(p for p in files if p not in marked)
        if len(marked) == 1 and images:
            entries.append(Entry(folder.name, images, marked[0]))
    return entries


def lits(root: Path, wanted: Wanted) -> Collection | None:
    """``volume-0.nii`` beside ``segmentation-0.nii``, as LiTS and CT-ORG have them."""
    images: dict[str, Path] = {}
    labels: dict[str, Path] = {}
    for file in volumes(root):
        if match := _LITS.fullmatch(stem(file)):
            (images if match[1] == "volume" else labels)[match[2]] = file
    if not images or not labels:
        return None
    entries = [Entry(f"volume-{n}", (p,), labels.get(n)) for n, p in sorted(images.items())]
    return named(root, "LiTS", entries, {}, wanted)


def named(
    root: Path,
    name: str,
    entries: Sequence[Entry],
    excluded: dict[str, str],
    wanted: Wanted,
    about: Description | None = None,
    names: str | None = None,
) -> Collection:
    """A collection whose labels are named as asked, described or known, or not before asked.

    Args:
        about: what ``dataset.json`` says; looked for in ``root`` where None.
        names: of `medaug.data.collections.names`, where the layout tells.
    """
    path = root / "dataset.json"
    if about is None and path.is_file():
        about = described(path)
    labels: tuple[Label, ...] | None
    if wanted.names is not None:
        labels = plain(vocabulary(wanted.names))
    elif about is not None:
        labels = about.labels
    else:
        names = names or recognised(sorted({entry.id for entry in entries}))
        labels = plain(KNOWN[names]) if names else None
    said = None if about is None else about.modality
    return Collection(
        name, root, entries, labels, wanted.settle(said, str(path)), excluded=excluded
    )
