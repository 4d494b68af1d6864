"""Labels of label maps that nobody names: by names in their headers, or by the ids that occur."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from medaug.data.collections.labels import Label, plain
from medaug.data.collections.names import embedded
from medaug.data.readers import LabelReader
from medaug.errors import DataError


def discovered(files: Iterable[Path]) -> tuple[Label, ...]:
    """Names written into the label maps, or ``label_1`` and so on for the ids that occur.

    Raises:
        DataError: the files give one name to two ids, or two names to one id.
    """
    seen: dict[int, str] = {}
    reader = LabelReader(range(256))
    for file in files:
        inside = embedded(file)
        if not inside:
            try:
                values, _meta = reader.get_data(file)
            except DataError:
                continue  # told where the scan is sliced
            there = np.flatnonzero(np.bincount(values.ravel(order="K"))).tolist()
            inside = {f"label_{id}": id for id in there if id and id not in seen}
        for name, id in inside.items():
            if seen.setdefault(id, name) != name:
                raise DataError(
                    f"{file.name} calls the label {id} {name!r}, other label maps {seen[id]!r}; "
                    "name them all with --names"
                )
    if len(set(seen.values())) < len(seen):
        raise DataError("the label maps give one name to two ids; name them all with --names")
    return plain({name: id for id, name in seen.items()})
