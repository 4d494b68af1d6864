"""Folders of DICOM series, with a label map for some of them or for none.

Files are told by their suffix or, without one, by their preamble, and grouped by their
SeriesInstanceUID, whatever folders they share.  A scan with a label is named after its place below
the root, as its label is; one without by a hash of that UID, since folders of DICOM files are often
named after patients.  The label is a volume file

- in its own folder or the one above, called ``label``, ``mask``, ``seg`` or ``segmentation``, or
- in a folder of labels right below the root, called like the scan or its folder.
"""

import re
from collections import defaultdict
from pathlib import Path

from medaug.core.errors import DataError, called
from medaug.core.types import Problem
from medaug.data.formats.dicom_series import Header, check_series, read_header, walk
from medaug.data.formats.volumes import stem, suffix, volumes
from medaug.data.sources.collections.collection import Collection, Entry, Wanted
from medaug.data.sources.collections.pairs import LABEL, named
from medaug.data.sources.unlabeled import digest

_OWN = re.compile(r"(?:.*[_-])?(?:label|labels|mask|seg|segmentation)", re.IGNORECASE)
_LABELS = re.compile(r"labels?|masks?|segmentations?", re.IGNORECASE)
_MODALITIES = {"": "CT", "CT": "CT", "MR": "MR"}
_PREAMBLE = 128


def is_dicom(file: Path) -> bool:
    """Whether the suffix or, for files without one, the preamble says so."""
    if file.suffix.lower() in (".dcm", ".ima"):
        return True
    if suffix(file) or file.name == "DICOMDIR" or re.fullmatch(r"\.[A-Za-z]\w*", file.suffix):
        return False
    try:
        with file.open("rb") as stream:
            return stream.read(_PREAMBLE + 4)[_PREAMBLE:] == b"DICM"
    except OSError:
        return False


def look(root: Path, wanted: Wanted) -> Collection | None:
    """The series below ``root``, or None where there is no DICOM file."""
    groups, problems = _groups(root)
    if not groups and not problems:
        return None
    found = {_MODALITIES.get(g[0].modality) for g in groups.values()} - {None}
    modality = wanted.modality or ("MR" if found == {"MR"} else "CT")
    labels = [f for p in sorted(root.iterdir()) if _LABELS.fullmatch(p.name) for f in volumes(p)]
    entries, excluded, places = [], {}, {}
    for where, headers in groups.items():
        said = headers[0].modality
        id = f"scan-{digest(headers[0].series or where)}"
        places[id] = where
        if _MODALITIES.get(said) != modality:
            excluded[id] = f"a series of {called(said)}; only {modality} was taken"
            continue
        try:
            files = tuple(h.file for h in check_series([h.file for h in headers], None))
            label = _label(root, where, headers[0].file.parent, labels)
            entries.append(Entry(id if label is None else where, files, label))
        except DataError as error:
            problems.append(Problem(where, str(error)))
    made = named(root, "dicom", entries, excluded, Wanted(modality, wanted.names))
    made.problems, made.places = problems, places
    return made


def _groups(root: Path) -> tuple[dict[str, list[Header]], list[Problem]]:
    """Headers by their place, and files that cannot be read."""
    by_series: dict[tuple[Path, str], list[Header]] = defaultdict(list)
    broken: dict[Path, str] = {}
    for folder, names in walk(root):
        for file in (folder / name for name in names):
            if not is_dicom(file):
                continue
            try:
                header = read_header(file)
            except DataError as error:
                broken.setdefault(folder, str(error))
                continue
            by_series[folder, header.series].append(header)
    shared = defaultdict(list)
    for folder, series in sorted(by_series):
        shared[folder].append(series)
    groups = {}
    for folder, held in shared.items():
        for number, series in enumerate(held, 1):
            id = place(root, folder) + (f"-{number}" if len(held) > 1 else "")
            groups[id] = by_series[folder, series]
    # a file that cannot be read may be a slice of any series beside it
    for folder in broken:
        for id in [id for id, headers in groups.items() if headers[0].file.parent == folder]:
            del groups[id]
    return groups, [Problem(place(root, folder), reason) for folder, reason in broken.items()]


def place(root: Path, path: Path) -> str:
    """Where ``path`` lies below ``root``, as a name for files."""
    inside = str(path.relative_to(root)) if path != root else path.resolve().name
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", inside)


def _label(root: Path, where: str, folder: Path, labels: list[Path]) -> Path | None:
    near = [folder] if folder == root else [folder, folder.parent]
    if len(near) > 1 and (near[1] == root or _series_below(near[1]) > 1):
        near.pop()
    own = [f for place in near for f in volumes(place) if _OWN.fullmatch(stem(f))]
    names = {where, *folder.relative_to(root).parts}
    others = [f for f in labels if stem(f) in names or LABEL.sub("", stem(f)) in names]
    found = list(dict.fromkeys([*own, *others]))
    if len(found) > 1:
        raise DataError(
            f"{len(found)} labels ({', '.join(f.name for f in found)}); keep one, or name a "
            "single one after the scan"
        )
    return found[0] if found else None


def _series_below(folder: Path) -> int:
    return sum(any(is_dicom(below / n) for n in names) for below, names in walk(folder))
