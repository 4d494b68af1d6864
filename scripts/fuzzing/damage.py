"""Damage to files, each a function of a random generator.

To bytes, as disks, networks and hands do it; and to what files say: values of JSON, YAML, CSV,
DICOM and zip that no reader expects.
"""

import csv
import gzip
import io
import json
import struct
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pydicom
import yaml
from pydicom.datadict import dictionary_VR, tag_for_keyword

_EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**40)
_FLOATS = (0.0, -1.0, 1e-38, 1e38, float("inf"), float("-inf"), float("nan"))
_PAGE = b"<!DOCTYPE html><html><body>503 Service Unavailable</body></html>\n"
_HEADER = 512


def flip(raw: bytearray, rng: Random) -> str:
    """Turn some bits."""
    count = rng.choice((1, 1, 1, 2, 8, 64))
    for _ in range(count):
        raw[_place(raw, rng)] ^= 1 << rng.randrange(8)
    return f"{count} bits flipped"


SPANS: dict[str, Callable[[bytearray, Random], bytes]] = {
    "overwritten": lambda block, rng: rng.randbytes(len(block)),
    "zeroed": lambda block, rng: bytes(len(block)),  # as a disk that lost it
    "inserted": lambda block, rng: rng.randbytes(len(block)) + block,
    "gone": lambda block, rng: b"",
    "twice": lambda block, rng: block + block,  # as a download that was resumed wrongly
}


def span(how: str) -> Callable[[bytearray, Random], str]:
    """Change some bytes that follow each other, in a way of ``SPANS``."""

    def change(raw: bytearray, rng: Random) -> str:
        start, count = _span(raw, rng)
        raw[start : start + count] = SPANS[how](raw[start : start + count], rng)
        return f"{count} bytes {how} at {start}"

    return change


def truncate(raw: bytearray, rng: Random) -> str:
    """Cut the end off."""
    kept = rng.choice((0, 1, rng.randrange(len(raw)), len(raw) - 1, len(raw) - 1 - len(raw) // 50))
    del raw[max(kept, 0) :]
    return f"cut to {len(raw)} bytes"


def exchange(raw: bytearray, rng: Random) -> str:
    """Have two blocks in each other's place."""
    start, count = _span(raw, rng)
    other = rng.randrange(max(1, len(raw) - count))
    count = min(count, abs(other - start), len(raw) - start)
    block = raw[start : start + count]
    raw[start : start + count] = raw[other : other + count]
    raw[other : other + count] = block
    return f"{count} bytes exchanged between {start} and {other}"


def number(raw: bytearray, rng: Random) -> str:
    """Put an extreme number where one may be."""
    if rng.random() < 0.3:
        packed = struct.pack(rng.choice(("<f", ">f", "<d")), rng.choice(_FLOATS))
    else:
        width = rng.choice((1, 2, 4, 8))
        value = rng.choice(_EDGES) % 2 ** (8 * width)
        packed = value.to_bytes(width, rng.choice(("little", "big")))
    start = _place(raw, rng)
    raw[start : start + len(packed)] = packed
    return f"{packed.hex()} at {start}"


def append(raw: bytearray, rng: Random) -> str:
    """Put more behind the end."""
    count = rng.choice((1, 16, 4096))
    raw += rng.choice((bytes(count), rng.randbytes(count), bytes(raw)))
    return f"grown to {len(raw)} bytes"


def replace(raw: bytearray, rng: Random) -> str:
    """Have something else altogether, such as a server's page."""
    raw[:] = rng.choice((_PAGE, bytes(len(raw)), rng.randbytes(len(raw)), b"PK\x03\x04", b"\n"))
    return "replaced"


BYTES: tuple[Callable[[bytearray, Random], str], ...] = (
    *(flip, flip, span("overwritten"), span("zeroed"), truncate, span("inserted"), span("gone")),
    *(span("twice"), exchange, number, number, append, replace),
)  # fmt: skip


def damage(raw: bytes, rng: Random) -> tuple[bytes, str]:
    """``raw`` after one kind of damage, and what was done; what is packed may be damaged inside."""
    if raw[:2] == b"\x1f\x8b" and rng.random() < 0.4:
        inside, what = damage(gzip.decompress(raw), rng)
        return gzip.compress(inside, mtime=0), f"inside: {what}"
    changed = bytearray(raw or b"\n")
    return (bytes(changed), what) if (what := rng.choice(BYTES)(changed, rng)) else (raw, what)


def _place(raw: bytearray, rng: Random) -> int:
    """Any place, every second time near the start, where headers are."""
    return rng.randrange(min(len(raw), _HEADER) if rng.random() < 0.5 else len(raw))


def _span(raw: bytearray, rng: Random) -> tuple[int, int]:
    start = _place(raw, rng)
    count = rng.choice((1, 4, 64, 512, 4096, len(raw) // 3))
    return start, max(1, min(count, len(raw) - start))


STRANGE: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2, 255, 256, 10**9, 2**63, 10**400, 0.5, 1e308, float("nan")),
    *("", "x", "0", "-1", "nan", "\0", "\n", "../../x", "é" * 3000, "=1+1"),
    *([], {}, [[]], [None], {"a": {"b": []}}, [1, 2, 3], "true"),
)


def values(content: Any, rng: Random) -> str:
    """Change one place of nested lists and mappings, which begin with one of them."""
    place, keys = content, []
    while True:
        options = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not options:
            break
        key = rng.choice(options)
        keys.append(key)
        if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.8:
            place = place[key]
            continue
        break
    if not options:
        return "nothing to change"
    how = rng.choice(("set", "set", "set", "drop", "twice", "rename"))
    if how == "drop":
        del place[key]
    elif how == "twice" and isinstance(place, list):
        place.insert(key, place[key])
    elif how == "rename" and isinstance(place, dict):
        place[rng.choice(("", "x", "é", str(key).upper(), f"{key} "))] = place.pop(key)
    else:
        how = "set"
        place[key] = rng.choice(STRANGE)
    return f"{'.'.join(map(str, keys))} {how}"[:120]


def nested(
    load: Callable[[bytes], Any], dump: Callable[[Any], str], raw: bytes, rng: Random
) -> tuple[bytes, str]:
    """JSON or YAML with one value changed, or another one altogether."""
    content = load(raw)
    if rng.random() < 0.05:
        return dump(rng.choice(STRANGE)).encode(), "another value altogether"
    what = values(content, rng)
    return dump(content).encode(), what


def table_cells(raw: bytes, rng: Random) -> tuple[bytes, str]:
    """CSV with a cell, a row, a column or its whole manner changed."""
    rows = list(csv.reader(io.StringIO(raw.decode(), newline="")))
    row = rng.randrange(len(rows))
    column = rng.randrange(max(1, len(rows[row])))
    how = rng.choice(("cell", "cell", "cell", "row", "twice", "column", "order", "manner", "short"))
    if how == "cell":
        rows[row][column] = str(rng.choice(STRANGE))
    elif how == "row":
        del rows[row]
    elif how == "twice":
        rows.insert(row, list(rows[row]))
    elif how == "column":
        rows = [cells[:column] + cells[column + 1 :] for cells in rows]
    elif how == "order":
        rng.shuffle(rows)
    elif how == "short":
        rows[row] = rows[row][:column]
    made = io.StringIO(newline="")
    csv.writer(made, lineterminator="\n").writerows(rows)
    text = made.getvalue()
    if how == "manner":
        return rng.choice(
            (
                ("\ufeff" + text).encode(),
                text.replace("\n", "\r\n").encode(),
                text.replace(",", ";").encode(),
                text.encode("utf-16"),
                text.replace("\n", '"\n', 1).encode(),
                text.encode().replace(b"\n", b"\xff\n", 1),
            )
        ), "another manner"
    return text.encode(), f"{how} at {row}, {column}"


_DICOM: tuple[Any, ...] = (
    *(None, "", "0", "-1", "1", "65535", "1e30", "nan", "x" * 300, "é^é", "1\\2\\3\\4\\5\\6\\7"),
    *("0.001", "2", "-1000", "MR", "MONOCHROME1", "RGB", "1.2.840.10008.1.2.4.70"),
)
_TOLD = (
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("SamplesPerPixel", "PhotometricInterpretation", "RescaleSlope", "RescaleIntercept"),
    *("RescaleType", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"),
    *("InstanceNumber", "SeriesInstanceUID", "PatientID", "Modality", "NumberOfFrames"),
    "ImageType",
)
_INTEGERS = {"US": "<H", "SS": "<h", "UL": "<L"}


def dicom_field(raw: bytes, rng: Random) -> tuple[bytes, str]:
    """A DICOM file with one field of its header changed, dropped, or of nonsense."""
    with pydicom.config.disable_value_validation():
        data = pydicom.dcmread(io.BytesIO(raw))
        name = rng.choice(_TOLD)
        value = rng.choice(_DICOM)
        tag = tag_for_keyword(name)
        assert tag is not None
        kind = dictionary_VR(tag)
        if value is None:
            data.pop(tag, None)
        elif kind in _INTEGERS:
            low, high = (-(2**15), 2**15 - 1) if kind == "SS" else (0, 2**16 - 1)
            data.add_new(tag, kind, rng.choice((0, 1, 2, 7, 64, low, high, 4095)))
        else:
            kind = "LT" if len(value) > 64 else kind
            data[tag] = pydicom.dataelem.RawDataElement(
                pydicom.tag.Tag(tag), kind, len(value.encode()), value.encode(), 0, False, True
            )
        stream = io.BytesIO()
        data.save_as(stream, enforce_file_format=False)
    return stream.getvalue(), f"{name} = {value!r}"[:80]


def zip_members(raw: bytes, rng: Random) -> tuple[bytes, str]:
    """A sound archive whose members are damaged, gone, doubled, renamed or packed otherwise."""
    old = zipfile.ZipFile(io.BytesIO(raw))
    names = old.namelist()
    chosen = rng.choice([name for name in names if not name.endswith("/")])
    how = rng.choice(("damage", "damage", "drop", "twice", "rename", "store"))
    made, what = io.BytesIO(), how
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
        for name in names:
            content = old.read(name)
            if name == chosen and how == "drop":
                continue
            if name == chosen and how == "damage":
                content, what = damage(content, rng)
            if name == chosen and how == "rename":
                name = rng.choice(("../x.dcm", "/etc/x", "x" * 300, f"{name}.bak", "a\0b", "é.dcm"))
            new.writestr(name, content, zipfile.ZIP_STORED if how == "store" else None)
            if name == chosen and how == "twice":
                new.writestr(f"copy-of-{Path(name).name}", content)
    return made.getvalue(), f"{Path(chosen).name}: {what}"


STRUCTURED: dict[str, Callable[[bytes, Random], tuple[bytes, str]]] = {
    "json": partial(nested, json.loads, json.dumps),
    "yaml": partial(nested, yaml.safe_load, partial(yaml.safe_dump, allow_unicode=True)),
    "csv": table_cells,
    "dicom": dicom_field,
    "zip": zip_members,
}
