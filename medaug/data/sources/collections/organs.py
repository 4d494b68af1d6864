"""A folder for each scan with a binary mask for each organ, as TotalSegmentator has it.

    s0000/ct.nii.gz                          or mri.nii.gz
    s0000/segmentations/pancreas.nii.gz      one file an organ; most are empty
    s0000/multilabel.nii.gz                  or instead, one label map

A mask's label is called like its file.  Ids are those of TotalSegmentator's class map where all
names are in one of its versions, else the place in the alphabet.  Where masks overlap, the label
with the higher id has the voxel.
"""

from pathlib import Path

from medaug.core.errors import ConfigError, DataError
from medaug.data.formats.volumes import stem, volumes
from medaug.data.sources.collections.collection import Collection, Entry, Wanted
from medaug.data.sources.collections.labels import Label, plain
from medaug.data.sources.collections.names import KNOWN
from medaug.data.sources.collections.pairs import named

_IMAGES = {"ct": "CT", "mri": "MR", "mr": "MR"}
_VERSIONS = ("totalsegmentator-v2", "totalsegmentator-v1", "totalsegmentator-mr")


def look(root: Path, wanted: Wanted) -> Collection | None:
    """The scans below ``root``, or ``root`` as one, or None where there are no such folders."""
    places = [root, *sorted(p for p in root.iterdir() if p.is_dir() and p.name[0] != ".")]
    entries = [entry for place in places if (entry := _entry(place)) is not None]
    if not entries:
        return None
    said = {_IMAGES[stem(entry.images[0]).lower()] for entry in entries}
    excluded = {}
    if len(said) > 1:
        kept = wanted.modality or "CT"
        for entry in entries:
            modality = _IMAGES[stem(entry.images[0]).lower()]
            if modality != kept:
                excluded[entry.id] = f"a scan of {modality}; take it with --modality {modality}"
        entries, said = [e for e in entries if e.id not in excluded], {kept}
    modality = wanted.settle(said.pop(), str(root))
    if all(isinstance(entry.label, Path) for entry in entries):
        wanted = Wanted(modality, wanted.names)
        return named(root, "organs", entries, excluded, wanted)
    mixed = [entry.id for entry in entries if isinstance(entry.label, Path)]
    if mixed:
        raise DataError(
            f"{root}: {mixed[0]} and others have one label map, and others a mask for each organ; "
            "keep one form in a folder"
        )
    if wanted.names is not None:
        raise ConfigError(
            f"label names {wanted.names!r} were asked, and the masks of {root} have their own"
        )
    names = {name for e in entries if isinstance(e.label, dict) for name in e.label}
    return Collection(
        "organs", root, entries, _identified(root, names), modality, excluded=excluded
    )


def _entry(folder: Path) -> Entry | None:
    images = [file for file in volumes(folder) if stem(file).lower() in _IMAGES]
    masks = {stem(file): file for file in volumes(folder / "segmentations")}
    if not images:
        return None
    if masks:
        return Entry(folder.name, tuple(images), masks)
    maps = [f for f in volumes(folder) if stem(f).lower() in ("multilabel", "segmentations")]
    return Entry(folder.name, tuple(images), maps[0]) if maps else None


def _identified(root: Path, names: set[str]) -> tuple[Label, ...]:
    for version in _VERSIONS:
        if names <= KNOWN[version].keys():
            return plain({name: KNOWN[version][name] for name in names})
    if len(names) > 255:
        raise DataError(f"{root}: masks of {len(names)} organs, 255 at most can be told apart")
    return plain({name: id for id, name in enumerate(sorted(names), 1)})
