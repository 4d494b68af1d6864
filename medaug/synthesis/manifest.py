"""The rows of a manifest: one for each finished sample, each with checksums.

They are read where they lie: a folder of a million samples takes 32 bytes of memory for each.
"""

import mmap
import os
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medaug.core.errors import DataError
from medaug.core.modality import CT, MR
from medaug.core.text import cell
from medaug.core.types import Sample
from medaug.data.feed.continuity import continuity
from medaug.synthesis.writers import ROLES, inside

Row = dict[str, str]

COLUMNS = (
    "index", "case", "origin", "patient", "kind", "class", "condition", "seed", "fingerprint",
    "image", "label", "std", "entropy", "samples", "masks",
    "spacing_x_mm", "spacing_y_mm", "mask_area_mm2",
    "slices", "spacing_z_mm", "mask_volume_mm3", "adjoining_hu", "adjoining_dice",
    "uncertainty_source", "mean_std", "mean_std_in_mask", "mean_entropy_bits", "mask", "refused",
    "files_crc32", "row_crc32",
)  # fmt: skip
"""Columns of the manifest, in order.

``origin`` is ``synthetic`` or ``real``; real cases have no index, but the ``patient`` they are of.
``mean_std`` is the standard deviation averaged over the whole case, ``mean_std_in_mask`` over its
mask, both in the image's unit (HU or grey levels).  ``mean_entropy_bits`` averages the vote entropy
over the pixels that at least one draw labels.  ``condition`` is what the model was told beside the
class, such as ``liver=1;height=0.25``.  ``mask`` says where a mask that was given comes from,
``refused`` why the filter refused earlier draws of the sample, one reason each.  A case that is a
stack has ``slices``, their distance, and the volume of its mask in the place of the area;
``adjoining_hu`` and ``adjoining_dice`` are averages over its pairs of neighbouring slices, see
`medaug.data.feed.continuity`.  ``files_crc32`` is over the contents of the files that the row
names, in
the order of the columns, ``row_crc32`` over the line up to it: a row or a file that was damaged
later is found, and written anew.  What does not apply is empty.  No value holds a comma, a quote or
a line end, or begins like a formula; see `medaug.core.text.cell`.
"""

Pages = bytes | mmap.mmap


def case_name(index: int) -> str:
    """The case id of a sample."""
    return f"syn_{index:06d}"


class Rows(Mapping[int, Row]):
    """Finished samples by index, in a manifest and in journals: 32 bytes a sample.

    The lines stay in their files, which are mapped: whoever replaces or removes one changes nothing
    here.

    Args:
        files: as `pages_of` maps them; where two have the same row, that of the later one counts.

    Attributes:
        real: the rows of the real cases beside the samples, by name.
        news: whether a file after the first says what the first does not, or the first has lines
            that are no sound rows.
    """

    def __init__(self, files: Sequence[Pages] = ()) -> None:
        self._pages = files
        index, file, start, end = (array("q") for _ in range(4))
        real: dict[str, tuple[int, int, int]] = {}
        for number, pages in enumerate(files):
            for key, at, stop in _places(pages):
                if isinstance(key, str):
                    real[key] = (number, at, stop)
                else:
                    index.append(key)
                    file.append(number)
                    start.append(at)
                    end.append(stop)
        found = np.array([index, file, start, end], np.int64)
        found = found[:, np.argsort(found[0], kind="stable")]
        last = np.append(found[0, 1:] != found[0, :-1], True)[: found.shape[1]]
        self._index, self._places = found[0, last], found[1:, last]
        self._real = real
        later = bool((self._places[0] > 0).any()) or any(place[0] for place in real.values())
        self.news = later or (bool(files) and _length(files[0]) > 1 + len(self._index) + len(real))

    @property
    def real(self) -> dict[str, Row]:
        return {name: _row(self._line(self._real[name])) for name in sorted(self._real)}

    @property
    def indices(self) -> npt.NDArray[np.int64]:
        """The indices of the samples, ascending."""
        return self._index

    def files(self) -> Iterator[tuple[int, list[bytes]]]:
        """Index and files of each sample."""
        first, last = COLUMNS.index(ROLES[0]), COLUMNS.index(ROLES[-1]) + 1
        for index, place in zip(self, self._places.T, strict=True):
            cells = self._line(place.tolist()).split(b",", last)
            yield index, [name for name in cells[first:last] if name]

    def lines(self) -> Iterator[bytes]:
        """The rows as the manifest has them: samples by index, then real cases by name."""
        for place in self._places.T:
            yield self._line(place.tolist())
        for name in sorted(self._real):
            yield self._line(self._real[name])

    def __getitem__(self, index: int) -> Row:
        place = int(np.searchsorted(self._index, index))
        if place == len(self._index) or self._index[place] != index:
            raise KeyError(index)
        return _row(self._line(self._places[:, place].tolist()))

    def __iter__(self) -> Iterator[int]:
        return iter(self._index.tolist())

    def __len__(self) -> int:
        return len(self._index)

    def _line(self, place: Sequence[int]) -> bytes:
        number, start, end = place
        return self._pages[number][start:end]


def files_crc32(contents: Iterable[bytes]) -> str:
    """The checksum of a row's files, whose contents come in the order of the columns."""
    total = 0
    for content in contents:
        total = zlib.crc32(content, total)
    return f"{total:08x}"


def found_crc32(folder: Path, row: Row) -> str | None:
    """The checksum of a row's files as they are now; None where one of them is gone.

    Raises:
        DataError: the row names a file that lies elsewhere.
    """
    try:
        return files_crc32(inside(folder, row[role]).read_bytes() for role in ROLES if row[role])
    except FileNotFoundError:
        return None


def check_files(folder: Path, row: Row) -> None:
    """Refuse a row whose files, all there, are not those that were written.

    Raises:
        DataError: one differs, or lies elsewhere.
    """
    if found_crc32(folder, row) not in (None, row["files_crc32"]):
        raise DataError(f"{folder}: {differing(row)}")


def differing(row: Row) -> str:
    """What is said of a row whose files have another checksum."""
    return (
        f"the files of {row['case']} are not as they were written; run the same synthesize "
        "command again, which writes them anew"
    )


def describe_real(sample: Sample, kind: str, case: str, names: Mapping[str, str]) -> Row:
    """The row of a real slice; ``names`` are its files by role, and their checksum."""
    patient = str(sample.origin["patient"])
    values = {"case": case, "origin": "real", "patient": patient, "kind": kind}
    return _filled(values | _measured(sample, kind) | dict(names))


def describe(
    sample: Sample, kind: str, seed: int, fingerprint: str, names: Mapping[str, str]
) -> Row:
    """The row of ``sample``; ``names`` are its files by role, and their checksum."""
    values = {
        "index": str(sample.index),
        "case": case_name(sample.index),
        "origin": "synthetic",
        "kind": kind,
        "class": str(sample.origin.get("class", "")),
        "condition": spell(sample.origin.get("condition", {})),
        "seed": str(seed),
        "fingerprint": fingerprint[:12],
        **_measured(sample, kind),
        **names,
    }
    values["mask"] = str(sample.origin.get("mask", ""))
    values["refused"] = ";".join(sample.origin.get("refused", ()))
    mask = None if sample.label is None else sample.label > 0
    if len(sample.alternatives):
        values["uncertainty_source"] = str(sample.origin.get("source", "latent"))
        values["mean_std"] = f"{sample.std.mean(dtype=np.float64):.4f}"
        if mask is not None and mask.any():
            values["mean_std_in_mask"] = f"{sample.std[mask].mean(dtype=np.float64):.4f}"
        if sample.entropy is not None and sample.alternative_labels is not None:
            voted = (sample.alternative_labels > 0).any(0)
            mean = sample.entropy[voted].mean(dtype=np.float64) if voted.any() else 0.0
            values["mean_entropy_bits"] = f"{mean:.4f}"
    return _filled(values)


def _measured(sample: Sample, kind: str) -> Row:
    x_mm, y_mm, z_mm = np.linalg.norm(sample.affine[:3, :3], axis=0)
    values = {"spacing_x_mm": f"{x_mm:.6f}", "spacing_y_mm": f"{y_mm:.6f}"}
    area = None if sample.label is None else (sample.label > 0).sum() * x_mm * y_mm
    if not sample.slices:
        return values if area is None else {**values, "mask_area_mm2": f"{area:.2f}"}
    values |= {"slices": str(sample.slices), "spacing_z_mm": f"{z_mm:.6f}"}
    if area is not None:
        values["mask_volume_mm3"] = f"{area * z_mm:.2f}"
    found = continuity(sample.image, sample.label, MR if kind == "mr" else CT)
    for name, each in (("adjoining_hu", found.hu), ("adjoining_dice", found.dice)):
        if np.isfinite(each).any():
            values[name] = f"{np.nanmean(each):.4f}"
    return values


def _filled(values: Row) -> Row:
    return {column: cell(values.get(column, "")) for column in COLUMNS}


def _row(line: bytes) -> Row:
    return dict(zip(COLUMNS, line.decode().rstrip("\n").split(","), strict=True))


def spell(condition: Mapping[str, float]) -> str:
    """A condition as one value of the manifest."""
    text = ";".join(f"{name}={value:g}" for name, value in condition.items())
    return cell(text)


def csv_line(values: Iterable[str]) -> bytes:
    return (",".join(values) + "\n").encode()


def signed_line(values: Iterable[str]) -> bytes:
    """A row with its checksum behind it."""
    start = ",".join(values) + ","
    return f"{start}{zlib.crc32(start.encode()):08x}\n".encode()


def _sound(line: bytes) -> bool:
    """Whether a whole line is as it was written."""
    start, _, found = line.rpartition(b",")
    return found == b"%08x\n" % zlib.crc32(start + b",")


def pages_of(path: Path) -> Pages:
    """The content of a file, mapped; what is written later is not seen."""
    with path.open("rb") as file:
        empty = not os.fstat(file.fileno()).st_size
        return b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _places(pages: Pages) -> Iterator[tuple[int | str, int, int]]:
    """Where the rows of a journal or manifest start and end: by index, or name where real.

    What is no sound row is passed over.
    """
    end = 0
    for line in iter(pages.readline, b"") if isinstance(pages, mmap.mmap) else ():
        start, end = end, end + len(line)
        if line.count(b",") != len(COLUMNS) - 1 or not _sound(line):
            continue
        index, case, origin = line.split(b",", 3)[:3]
        if index.isdigit() and case == case_name(int(index)).encode():
            yield int(index), start, end
        elif not index and origin == b"real":
            yield case.decode(), start, end


def _length(pages: Pages) -> int:
    """How many lines there are."""
    if not isinstance(pages, mmap.mmap):
        return 0
    pages.seek(0)
    return sum(1 for _ in iter(pages.readline, b""))
