"""Folders of PNG and JPEG files: flat, or one folder for each class, in parts or not.

    a.png  b.jpg                                   flat
    cats/a.png  dogs/b.png                         a folder for each class
    train/cats/a.png  test/cats/b.png              the same in parts; train/a.png  test/b.png too

Parts are ``train``, ``test`` and ``val`` (``valid``, ``validation``).  ``val`` is held out where
there is no ``test``.  Without parts, pictures are held out by their name.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from medaug.core.errors import DataError
from medaug.core.types import Problem
from medaug.data.sources.pictures.decoding import is_grey
from medaug.data.sources.pictures.photos import Photos, class_numbers

PICTURES = (".png", ".jpg", ".jpeg")
_OTHER_PICTURES = (".gif", ".bmp", ".tif", ".tiff", ".webp", ".heic", ".avif", ".jp2", ".ppm")
_SCANS = (".dcm", ".dicom", ".ima", ".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")
_PARTS = {"train": "train", "test": "heldout", "val": "validation", "valid": "validation",
          "validation": "validation"}  # fmt: skip
_MASKS = {"mask", "masks", "label", "labels", "labelstr", "labelsts", "segmentation",
          "segmentations", "annotations", "imagestr", "imagests"}  # fmt: skip
_MASK_ENDS = ("_mask", "_label", "_seg", "_labels", "-mask", "-label")
_DEPTH = 3


def below(folder: Path) -> list[Path]:
    """The folders right in ``folder``, in name order; hidden ones and archives' junk left out."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(Path(e.path) for e in entries if e.is_dir() and not _junk(e.name))


def refuse_mixed(root: Path) -> None:
    """Refuse pictures that outnumber the scans among which they lie.

    Raises:
        DataError: naming one of each.
    """
    pictures = scans = 0
    together: tuple[str, str] | None = None
    for folder in _walk(root, _DEPTH):
        found = _files(folder)
        flat = [name for name in found if _is(name, PICTURES)]
        odd = [n for n in found if _is(n, _SCANS) or (flat and _is_scan(folder / n))]
        pictures, scans = pictures + len(flat), scans + len(odd)
        if flat and odd:
            together = together or (flat[0], odd[0])
    if together is not None and pictures > scans:
        raise DataError(
            f"{root}: pictures and scans lie together, such as {together[0]} and {together[1]}; "
            "put them in folders of their own"
        )


def looks_like(root: Path) -> bool:
    """Whether there is a PNG or JPEG file in ``root`` or up to two folders below."""
    return any(_is(name, PICTURES) for folder in _walk(root, _DEPTH) for name in _files(folder))


def open_folder(root: Path) -> Photos:
    """The pictures of a folder, in classes where there are folders for them.

    Raises:
        DataError: an arrangement of which it cannot be told what is meant.
    """
    for folder in _walk(root, _DEPTH):
        for name in _files(folder):
            if _is_scan(folder / name):
                raise DataError(
                    f"{root}: pictures, and scans such as {name}; put them in folders of their own"
                )
    sides = _parts(root)
    places = [(root / part, side) for part, side in sides.items()] or [(root, "train")]
    found = [(place, side, *entry) for place, side in places for entry in _listed(place)]
    names = [(place / name).relative_to(root).as_posix() for place, _, name, _ in found]
    kinds = [kind for *_, kind in found]
    classes = _classes(root, kinds, [side for _, side, *_ in found])
    return Photos(
        root,
        root.resolve().name,
        names,
        sides=[side for _, side, *_ in found] if len(sides) > 1 else None,
        classes=classes,
        class_ids=class_numbers(kinds, classes) if classes else None,
        colour=_colour(root, names),
        problems=_others(root),
    )


def _parts(root: Path) -> dict[str, str]:
    """The folders of parts that hold pictures, with their side; empty where there are no parts."""
    there = [place.name for place in below(root) if _holds(place)]
    if "train" not in map(str.lower, there) or _pictures(root):
        return {}
    sides: dict[str, str] = {}
    for name in there:
        side = _PARTS.get(name.lower())
        if side is None:
            raise DataError(f"{root}: {name} lies beside train; accepted are train, test and val")
        for other, taken in sides.items():
            if side == taken:
                raise DataError(f"{root}: {other} and {name} are the same part")
        sides[name] = side
    if "heldout" not in sides.values():
        return {name: side if side == "train" else "heldout" for name, side in sides.items()}
    return sides


def _listed(place: Path) -> list[tuple[str, str]]:
    """The pictures of a flat folder, or one with classes: path below it and class, or ``""``."""
    flat, kinds = _pictures(place), [folder for folder in below(place) if _holds(folder)]
    if flat and kinds:
        raise DataError(
            f"{place}: pictures lie beside folders of pictures; put all in one folder, or each in "
            "the folder of its class"
        )
    for folder in kinds:
        if any(_holds(deeper) for deeper in below(folder)):
            raise DataError(f"{folder}: pictures lie deeper than a folder for each class")
        if len(kinds) > 1 and folder.name.lower() in _MASKS:
            raise DataError(
                f"{place}: {folder.name} looks like label maps, and pictures take none; name a "
                "folder with the pictures alone"
            )
    stems = {name.rpartition(".")[0] for name in flat}
    for stem in sorted(stems):
        for end in _MASK_ENDS:
            if stem.endswith(end) and stem.removesuffix(end) in stems:
                raise DataError(
                    f"{place}: {stem} looks like the label map of {stem.removesuffix(end)}, and "
                    "pictures take none; name a folder with the pictures alone"
                )
    if kinds:
        return [(f"{kind.name}/{name}", kind.name) for kind in kinds for name in _pictures(kind)]
    return [(name, "") for name in flat]


def _classes(root: Path, kinds: Sequence[str], sides: Sequence[str]) -> tuple[str, ...]:
    """The names of the classes.

    Raises:
        DataError: training has no picture of a class, or some pictures have none.
    """
    learned = {kind for kind, side in zip(kinds, sides, strict=True) if side == "train"}
    for kind in sorted(set(kinds) - learned):
        raise DataError(
            f"{root}: class {kind or '(none)'!r} is held out, and training has no picture of it; "
            "the parts must have the same classes"
        )
    return tuple(sorted(learned)) if len(learned) > 1 else ()  # one alone tells nothing apart


def _colour(root: Path, names: Sequence[str]) -> str:
    """``grey`` where every picture's header says so."""
    kinds = (is_grey(root / name) for name in names)
    return "rgb" if any(grey is False for grey in kinds) else "grey"


def _others(root: Path) -> list[Problem]:
    """Pictures of other formats."""
    return [
        Problem((folder / name).relative_to(root).as_posix(), "not PNG or JPEG; convert it")
        for folder in _walk(root, _DEPTH)
        for name in _files(folder)
        if _is(name, _OTHER_PICTURES)
    ]


def _walk(root: Path, depth: int) -> list[Path]:
    found = [root]
    if depth > 1:
        for folder in below(root):
            found += _walk(folder, depth - 1)
    return found


def _holds(folder: Path) -> bool:
    """Whether there is a picture in ``folder`` or right below."""
    return any(_pictures(place) for place in _walk(folder, 2))


def _pictures(folder: Path) -> list[str]:
    return [name for name in _files(folder) if _is(name, PICTURES)]


def _files(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_file() and not _junk(e.name))


def _junk(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _is(name: str, endings: tuple[str, ...]) -> bool:
    return name.lower().endswith(endings)


def _is_scan(path: Path) -> bool:
    if path.suffix:
        return _is(path.name, _SCANS)
    with path.open("rb") as file:  # DICOM files often have no ending
        return file.read(132)[128:] == b"DICM"
