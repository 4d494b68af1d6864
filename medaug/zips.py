"""How much a zip archive lists, asked before the list is read."""

import zipfile
from typing import IO

MOST_DIRECTORY = 2**26
"""Bytes of the list at the end of an archive: half a million files with names of 88 bytes."""
_SIZE = 5  # of the record that zipfile makes of the end of an archive


def directory_bytes(stream: IO[bytes]) -> int:
    """The size of an archive's list of files as zipfile will read it; 0 where there is none.

    The number of entries in the same record is not asked: zipfile goes by the bytes.
    """
    record = zipfile._EndRecData(stream)  # type: ignore[attr-defined]
    return int(record[_SIZE]) if record else 0
