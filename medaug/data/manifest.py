"""``metadata.csv``, which download tools leave beside the series: how many images each has."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from medaug.data.archives import opened, size

NAME = "metadata.csv"
_MOST_BYTES = 64 * 2**20
_COLUMNS = (("Series UID", "Number of Images"), ("SeriesInstanceUID", "ImageCount"))


def image_counts(file: Path) -> Mapping[str, int]:
    """Number of images by SeriesInstanceUID, as the NBIA Data Retriever or tcia_utils wrote it.

    Rows without a whole number and files without these columns say nothing: the list is a help,
    not a part of the collection.
    """
    if size(file) > _MOST_BYTES:
        return {}
    with opened(file) as stream:
        text = stream.read().decode("utf-8-sig", "replace")
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except csv.Error:
        return {}
    counts: dict[str, int] = {}
    for row in rows:
        for series, images in _COLUMNS:
            number = str(row.get(images) or "").strip()
            if row.get(series) and number.isascii() and number.isdigit() and len(number) < 10:
                counts[str(row[series]).strip()] = int(number)
    return counts
