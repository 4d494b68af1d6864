"""CelebA (Liu et al. 2015), aligned and cropped: 202,599 faces of 178 x 218 pixels.

    img_align_celeba/000001.jpg        also one level down, and below Img/
    list_attr_celeba.txt               how many; the names; then 000001.jpg -1 1 ... (also Anno/)
    list_eval_partition.txt            000001.jpg 0: 0 training, 1 validation, 2 test (also Eval/)

Both lists may be ``.csv`` with a header line.  Pictures are found by the name in the lists, never
by their order.  The central 148 x 148 pixels are taken, which leave the background out.
"""

from pathlib import Path

import numpy as np

from medaug.core.errors import DataError, called, shown
from medaug.core.types import Problem
from medaug.data.sources.pictures.photos import Photos, read_lines

CROP = 148
_SIDE = {"0": "train", "1": "validation", "2": "heldout"}
_NAMED = 5


def looks_like(root: Path) -> bool:
    """Whether ``root`` holds the aligned faces, or their attributes."""
    return _pictures(root) is not None or _list(root, "list_attr_celeba") is not None


def open_folder(root: Path) -> Photos:
    """The faces with their 40 attributes, in the data set's own partition.

    Raises:
        DataError: a list is missing, or one that is not as published.
    """
    folder = _pictures(root)
    attributes, partition = (
        _list(root, name) for name in ("list_attr_celeba", "list_eval_partition")
    )
    for found, what in (
        (folder, "img_align_celeba/"),
        (attributes, "list_attr_celeba.txt"),
        (partition, "list_eval_partition.txt"),
    ):
        if found is None:
            raise DataError(f"{root}: {what} is missing; CelebA needs the pictures and both lists")
    assert folder is not None
    assert attributes is not None
    assert partition is not None
    names, rows = _attributes(attributes)
    sides = _partition(partition)
    there = {path.name for path in folder.iterdir()}
    listed = sorted(rows)
    for path, lines, other, more in (
        (partition, sides, attributes, listed),
        (attributes, rows, partition, sorted(sides)),
    ):
        for name in more:
            if name not in lines:
                raise DataError(f"{path}: has no line for {called(name)}, which {other.name} has")
    kept = [name for name in listed if name in there]
    if not kept:
        raise DataError(f"{folder}: holds none of the pictures that {attributes.name} lists")
    below = folder.relative_to(root).as_posix()
    unknown = sorted(n for n in there if n not in rows and n.lower().endswith((".jpg", ".png")))
    gone = [name for name in listed if name not in there]
    problems = [Problem(name, f"listed but not in {below}") for name in gone[:_NAMED]]
    if len(gone) > _NAMED:
        problems.append(Problem("and more", f"{len(gone)} listed pictures are not in {below}"))
    return Photos(
        root,
        "celeba",
        [f"{below}/{name}" for name in kept],
        sides=[sides[name] for name in kept],
        attributes=names,
        has=np.array([rows[name] for name in kept], bool),
        crop=CROP,
        problems=problems,
        excluded={"in no list": f"{len(unknown)} pictures of {below}"} if unknown else {},
    )


def _pictures(root: Path) -> Path | None:
    for place in (root / "img_align_celeba", root / "Img" / "img_align_celeba"):
        for folder in (place / "img_align_celeba", place):
            if folder.is_dir():
                return folder
    return None


def _list(root: Path, name: str) -> Path | None:
    for folder in (root, root / "Anno", root / "Eval"):
        for suffix in (".txt", ".csv"):
            if (folder / f"{name}{suffix}").is_file():
                return folder / f"{name}{suffix}"
    return None


def _lines(path: Path) -> list[list[str]]:
    separator = "," if path.suffix == ".csv" else None
    return [line.split(separator) for line in read_lines(path) if line.strip()]


def _attributes(path: Path) -> tuple[tuple[str, ...], dict[str, list[bool]]]:
    lines = _lines(path)
    count = None
    if path.suffix == ".txt":
        if not lines or len(lines[0]) != 1 or not lines[0][0].isdecimal():
            raise DataError(f"{path}: must begin with the number of pictures; get it again")
        count, lines = int(lines[0][0]), lines[1:]
    names = [] if not lines else lines[0][1:] if path.suffix == ".csv" else lines[0]
    lines = lines[1:]
    if not names or len(set(names)) != len(names):
        raise DataError(f"{path}: the line with the attributes' names is missing; get it again")
    if count is not None and len(lines) != count:
        raise DataError(f"{path}: announces {count} pictures, lists {len(lines)}; get it again")
    rows: dict[str, list[bool]] = {}
    for number, (name, *values) in enumerate(lines, 2 if count is None else 3):
        if len(values) != len(names) or set(values) - {"-1", "1"}:
            raise DataError(
                f"{path}: line {number} must be a picture and {len(names)} times -1 or 1"
            )
        _once(path, name, rows)
        rows[name] = [value == "1" for value in values]
    return tuple(names), rows


def _partition(path: Path) -> dict[str, str]:
    lines = _lines(path)
    sides: dict[str, str] = {}
    for line in lines[1:] if path.suffix == ".csv" else lines:
        if len(line) != 2 or line[1] not in _SIDE:
            raise DataError(f"{path}: {shown(' '.join(line))} must be a picture and 0, 1 or 2")
        _once(path, line[0], sides)
        sides[line[0]] = _SIDE[line[1]]
    return sides


def _once(path: Path, name: str, seen: dict[str, list[bool]] | dict[str, str]) -> None:
    if name in seen:
        raise DataError(f"{path}: lists {called(name)} twice; get it again")
