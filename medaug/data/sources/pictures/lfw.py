"""Labeled Faces in the Wild (Huang et al. 2007): 13,233 pictures of 5,749 people, 250 x 250.

    lfw/Aaron_Eckhart/Aaron_Eckhart_0001.jpg     also lfw-deepfunneled/, lfw_funneled/, one deeper
    lfw_attributes.txt                           Kumar et al. 2009; may be missing
    peopleDevTrain.txt, peopleDevTest.txt        may be missing; else people are drawn by their name

In ``lfw_attributes.txt`` columns are parted by tabs; two lines begin with ``#``, the second names
the columns: person, imagenum, then the attributes.  A score above 0 means that the attribute is
there.  Ninety pictures of LFW have no line in it; they are left out where it is there.

Nobody is on both sides of the split.
"""

import re
from pathlib import Path

import numpy as np

from medaug.core.errors import DataError, called
from medaug.data.sources.pictures.folders import below
from medaug.data.sources.pictures.photos import Photos, read_lines

ATTRIBUTES = "lfw_attributes.txt"
_PEOPLE = {"train": "peopleDevTrain.txt", "heldout": "peopleDevTest.txt"}
_SEEN = 20
_PICTURE = re.compile(r"(.+)_(\d{4})\.jpg")


def looks_like(root: Path) -> bool:
    """Whether ``root`` holds the attributes, or a folder called lfw with people's folders."""
    named = [place for place in (root, *below(root)) if place.name.lower().startswith("lfw")]
    return (root / ATTRIBUTES).is_file() or any(map(_is_faces, named))


def open_folder(root: Path) -> Photos:
    """The faces, with their attributes where the file is there.

    Raises:
        DataError: no faces or several copies of them, or a list that is not as published.
    """
    places = _faces(root)
    if len(places) != 1:
        there = ", ".join(place.name for place in places) or "none"
        raise DataError(
            f"{root}: one folder of faces (lfw/Name/Name_0001.jpg) is wanted, there are: {there}"
        )
    found: dict[tuple[str, int], str] = {}
    for folder in below(places[0]):
        for path in sorted(folder.iterdir()):
            match = _PICTURE.fullmatch(path.name)
            if match is not None and match[1] == folder.name:
                name = path.relative_to(root).as_posix()
                found[match[1], int(match[2])] = name
    keys = sorted(found, key=found.__getitem__)
    excluded: dict[str, str] = {}
    names: tuple[str, ...] = ()
    has = None
    if (root / ATTRIBUTES).is_file():
        names, rows = _attributes(root / ATTRIBUTES)
        bare = sum(key not in rows for key in keys)
        keys = [key for key in keys if key in rows]
        if not keys:
            raise DataError(f"{root / ATTRIBUTES}: has a line for none of the {bare} faces")
        if bare:
            excluded["without attributes"] = f"{bare} faces have no line in {ATTRIBUTES}"
        has = np.stack([rows[key] for key in keys])
    sides = None
    people = [person for person, _ in keys]
    if all((root / name).is_file() for name in _PEOPLE.values()):
        side_of = _people(root)
        strangers = sum(person not in side_of for person in people)
        if strangers:
            excluded["without a side"] = f"{strangers} faces of people in neither list of people"
        kept = [place for place, person in enumerate(people) if person in side_of]
        keys, people = [keys[place] for place in kept], [people[place] for place in kept]
        has = None if has is None else has[kept]
        sides = [side_of[person] for person in people]
    return Photos(
        root,
        "lfw",
        [found[key] for key in keys],
        sides=sides,
        owners=people,
        attributes=names,
        has=has,
        excluded=excluded,
    )


def _faces(root: Path) -> list[Path]:
    """The folders, at ``root`` or up to two levels below, that hold people's folders."""
    level = [root]
    for _ in range(3):
        found = [place for place in level if _is_faces(place)]
        if found:
            return found
        level = [deeper for place in level[:_SEEN] for deeper in below(place)[:_SEEN]]
    return []


def _is_faces(place: Path) -> bool:
    """Whether the first folders in ``place`` are of people, each with numbered pictures."""
    some = below(place)[:_SEEN]
    return bool(some) and all(
        any((folder / f"{folder.name}_{number:04d}.jpg").is_file() for number in (1, 2, 3))
        for folder in some
    )


def _attributes(path: Path) -> tuple[tuple[str, ...], dict[tuple[str, int], np.ndarray]]:
    lines = read_lines(path)
    named = [line.lstrip("#").strip("\t ").split("\t") for line in lines if line.startswith("#")]
    heads = [columns for columns in named if columns[:2] == ["person", "imagenum"]]
    if len(heads) != 1 or len(heads[0]) < 3:
        raise DataError(f'{path}: the line "# person imagenum ..." is missing; get it again')
    names = tuple(heads[0][2:])
    rows: dict[tuple[str, int], np.ndarray] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        person, *values = line.strip().split("\t")
        try:
            scores = np.array(values[1:], float)
            key = person.replace(" ", "_"), int(values[0])
        except (ValueError, IndexError):
            scores, key = np.zeros(0), ("", 0)
        if len(scores) != len(names) or not np.isfinite(scores).all() or key in rows:
            raise DataError(
                f"{path}: line {number} must be a person, a number not seen before and "
                f"{len(names)} scores; get it again"
            )
        rows[key] = scores > 0
    return names, rows


def _people(root: Path) -> dict[str, str]:
    """The side of each person: a first line with how many, then one person and count a line."""
    side_of: dict[str, str] = {}
    for side, name in _PEOPLE.items():
        lines = read_lines(root / name)
        people = [line.split("\t")[0].strip() for line in lines[1:] if line.strip()]
        if not lines or lines[0].strip() != str(len(people)):
            raise DataError(f"{root / name}: must begin with the number of its people")
        for person in people:
            if person in side_of:
                raise DataError(f"{root / name}: {called(person)} is listed before; get it again")
            side_of[person] = side
    return side_of
