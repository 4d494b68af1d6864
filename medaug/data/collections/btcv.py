"""BTCV (Synapse syn3193805), by number: ``RawData/Training/img/img0001.nii.gz`` and
``RawData/Training/label/label0001.nii.gz``.
"""

import re
from pathlib import Path

from medaug.data.collections.collection import Collection, Entry
from medaug.data.collections.pairs import named
from medaug.data.collections.wanted import Wanted
from medaug.data.volumes import stem, volumes

_PLACES = ("", "Training", "RawData/Training", "Abdomen/RawData/Training")
_IMAGE, _LABEL = re.compile(r"img(\d{4})"), re.compile(r"label(\d{4})")


def look(root: Path, wanted: Wanted) -> Collection | None:
    """The scans of ``img`` and ``label``, paired by number; None where these are not there."""
    for place in (root / name for name in _PLACES):
        images, labels = _numbered(place / "img", _IMAGE), _numbered(place / "label", _LABEL)
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
