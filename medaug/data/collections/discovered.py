"""Labels of label maps that nobody names: by names in their headers, or by the ids that occur."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from medaug.data.collections.labels import Label, plain
from medaug.data.collections.names import embedded
from medaug.data.readers import LabelReader
from medaug.errors import DataError

FEWEST = 5
"""Voxels of a label that nobody names; a single damaged byte makes one."""


def discovered(files: Iterable[Path]) -> tuple[Label, ...]:
    """Names written into the label maps, or ``label_1`` and so on for the ids that occur.

    Raises:
        DataError: the files give one name to two ids, or two names to one id, or hold an id in
            hardly a voxel.
    """
    seen: dict[int, str] = {}
    voxels = np.full(256, 0)
    named: set[int] = set()
    reader = LabelReader(range(256))
    for file in files:
        inside = embedded(file)
        if not inside:
            try:
                values, _meta = reader.get_data(file)
            except DataError:
                continue  # told where the scan is sliced
            counts = np.bincount(values.ravel(order="K"), minlength=256)
            voxels += counts
            inside = {f"label_{id}": int(id) for id in np.flatnonzero(counts) if id}
            inside = {name: id for name, id in inside.items() if id not in seen}
        else:
            named |= set(inside.values())
        for name, id in inside.items():
            if seen.setdefault(id, name) != name:
                raise DataError(
                    f"{file.name} calls the label {id} {name!r}, other label maps {seen[id]!r}; "
                    "name them all with --names"
                )
    stray = next((id for id in sorted(seen) if id not in named and voxels[id] < FEWEST), None)
    if stray is not None:
        raise DataError(
            f"the label maps hold the value {stray} in {voxels[stray]} of all their voxels, too "
            "few for a label that nobody names; correct them, or name the labels with --names"
        )
    if len(set(seen.values())) < len(seen):
        raise DataError("the label maps give one name to two ids; name them all with --names")
    return plain({name: id for id, name in seen.items()})
