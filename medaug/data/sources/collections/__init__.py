"""Collections of scans by other people, opened by looking at them.

One module for each layout, each with one function that looks and says None where the layout is
another.  The first that does not is right; so the order goes from what is told by name to what is
told by two folders of files.
"""

from pathlib import Path

from medaug.core.errors import DataError
from medaug.data.sources.collections import organs, pairs, series, tasks
from medaug.data.sources.collections import pairs as btcv
from medaug.data.sources.collections import pairs as single
from medaug.data.sources.collections.collection import Collection, Wanted

__all__ = ["LOOKED_FOR", "Collection", "Wanted", "labelled", "look", "open_collection"]

_LABELLED = (organs.look, tasks.look, btcv.look_for_btcv, pairs.lits, pairs.look)
LOOKED_FOR = (
    "imagesTr + labelsTr (nnU-Net, Decathlon, AMOS, WORD), s0000/ct.nii.gz + segmentations "
    "(TotalSegmentator), img + label (BTCV), images + labels or masks, case.nii.gz beside "
    "case_label.nii.gz, volume files (.nii.gz, .nii, .nrrd, .mha, .mhd) and DICOM series"
)


def labelled(root: Path, wanted: Wanted | None = None) -> Collection | None:
    """The volume files with labels in ``root``, or None where no layout fits.

    Raises:
        ConfigError: a wish that the files contradict.
        DataError: a layout that contradicts itself.
    """
    for looks in _LABELLED:
        found = looks(root, wanted or Wanted())
        if found is not None:
            return found
    return None


def look(root: Path, wanted: Wanted | None = None) -> Collection | None:
    """The collection in ``root``: volume files with labels, DICOM series, or volume files alone.

    Args:
        root: a folder, or one volume file.
        wanted: what the files may not say.

    Raises:
        ConfigError, DataError: see `labelled`.
    """
    asked = wanted or Wanted()
    if root.is_file():
        return single.scan(root, asked)
    return labelled(root, asked) or series.look(root, asked) or single.look_for_images(root, asked)


def open_collection(root: Path, wanted: Wanted | None = None) -> Collection:
    """The collection in ``root``; see `look`.

    Raises:
        ConfigError: a wish that the files contradict.
        DataError: no such folder, or nothing in it that is known.
    """
    if not root.exists():
        raise DataError(f"{root}: no such folder")
    found = look(root, wanted)
    if found is None:
        raise DataError(f"{root}: nothing in it is known; looked for {LOOKED_FOR}")
    return found
