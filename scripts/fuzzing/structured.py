"""Damage to what files say: values of JSON, YAML, CSV, DICOM and zip that no reader expects."""

import csv
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pydicom
import yaml
from damage import damage
from pydicom.datadict import dictionary_VR, tag_for_keyword

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


def json_values(raw: bytes, rng: Random) -> tuple[bytes, str]:
    """JSON with one value changed."""
    content = json.loads(raw)
    if rng.random() < 0.05:
        return json.dumps(rng.choice(STRANGE)).encode(), "another value altogether"
    what = values(content, rng)
    return json.dumps(content).encode(), what


def yaml_values(raw: bytes, rng: Random) -> tuple[bytes, str]:
    """YAML with one value changed."""
    content = yaml.safe_load(raw)
    what = values(content, rng)
    return yaml.safe_dump(content, allow_unicode=True).encode(), what


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
    "json": json_values,
    "yaml": yaml_values,
    "csv": table_cells,
    "dicom": dicom_field,
    "zip": zip_members,
}
