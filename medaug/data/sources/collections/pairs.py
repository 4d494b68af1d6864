"""Images and label maps by file name: in two folders, side by side, or a folder for each case."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from medaug.data.formats.volumes import stem, suffix, volumes
from medaug.data.sources.collections.collection import Collection, Entry, Wanted
from medaug.data.sources.collections.described import Description, described
from medaug.data.sources.collections.labels import Label, plain
from medaug.data.sources.collections.names import KNOWN, recognised, vocabulary

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
        names: of `medaug.data.sources.collections.names`, where the layout tells.
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


# BTCV (Synapse syn3193805), by number: ``RawData/Training/img/img0001.nii.gz`` and
# ``RawData/Training/label/label0001.nii.gz``.


_PLACES = ("", "Training", "RawData/Training", "Abdomen/RawData/Training")

_BTCV_IMAGE, _BTCV_LABEL = re.compile(r"img(\d{4})"), re.compile(r"label(\d{4})")


def look_for_btcv(root: Path, wanted: Wanted) -> Collection | None:
    """The scans of ``img`` and ``label``, paired by number; None where these are not there."""
    for place in (root / name for name in _PLACES):
        images, labels = (
            _numbered(place / "img", _BTCV_IMAGE),
            _numbered(place / "label", _BTCV_LABEL),
        )
        if images and labels:
            entries = [Entry(f"img{n}", (p,), labels.get(n)) for n, p in images.items()]
            alone = {
                f"img{n}": f"no image was found for {p.name}"
                for n, p in labels.items()
                if n not in images
            }
            return named(root, "btcv", entries, alone, wanted, names="btcv")
    return None


def _numbered(folder: Path, pattern: re.Pattern[str]) -> dict[str, Path]:
    matches = ((pattern.fullmatch(stem(file)), file) for file in volumes(folder))
    return {match[1]: file for match, file in matches if match}


# One volume file, or a folder of volume files without labels.


_FOLDERS = ("imagesTr", "images", "")


def scan(path: Path, wanted: Wanted) -> Collection | None:
    """The volume file ``path`` as a collection of one scan, or None where it is none."""
    if not suffix(path):
        return None
    modality = wanted.settle(None, str(path))
    return Collection("scan", path.parent, [Entry(stem(path), (path,))], (), modality)


def look_for_images(root: Path, wanted: Wanted) -> Collection | None:
    """The volume files of ``imagesTr``, of ``images`` or of ``root``, without labels."""
    for name in _FOLDERS:
        files = volumes(root / name)
        if files:
            entries = [Entry(stem(file), (file,)) for file in files]
            modality = wanted.settle(None, str(root))
            return Collection("images", root, entries, (), modality)
    return None
