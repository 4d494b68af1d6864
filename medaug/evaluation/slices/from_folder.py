"""Open a folder that ``medaug synthesize`` wrote as synthetic slices of a report."""

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, Field, FiniteFloat

from medaug.core.errors import DataError
from medaug.core.geometry import spacing
from medaug.core.modality import modality_of
from medaug.core.registry import WRITERS, lookup
from medaug.evaluation.slices.evidence import SliceSet
from medaug.evaluation.slices.synthetic import Frame, Gathering, Synthetic
from medaug.runtime.files import parse_json, unsealed
from medaug.synthesis import journal
from medaug.synthesis.ignore_label import IGNORE
from medaug.synthesis.manifest import Rows, check_files
from medaug.synthesis.writers import inside

ROLES = ("image", "label", "std", "entropy")


class _Settings(BaseModel, strict=True):
    format: str


class _Data(BaseModel, strict=True):
    window_hu: Annotated[list[FiniteFloat], Field(min_length=2, max_length=2)] | None = None
    min_label_pixels: int = 1
    require_label: bool = True


class _About(BaseModel, strict=True):
    """What is needed of the ``run.json`` of a synthesised folder."""

    settings: _Settings
    kind: str
    labels: dict[str, int]
    data: _Data | None = None


def looks_like(folder: Path) -> bool:
    """Whether ``medaug synthesize`` wrote this folder."""
    try:
        return bool(parse_json((folder / "run.json").read_text())["command"] == "synthesize")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def open_synthesised(folder: Path) -> Synthetic:
    """Find the finished samples of a folder; its real cases do not count.

    Raises:
        DataError: pictures, PNG, which holds no HU, or a file of a finished sample that is gone
            or damaged.
        OutputError: a manifest of another version.
    """
    about = _about(folder)
    form = str(about["settings"]["format"])
    if about["kind"] == "image":
        raise DataError(f"{folder}: holds pictures; the report is about slices of CT or MR")
    modality = modality_of("MR" if about["kind"] == "mr" else "CT")
    if form == "png":
        raise DataError(
            f"{folder}: PNG holds 256 grey levels and no {modality.unit}; write the same "
            "samples with medaug synthesize --format nifti"
        )
    rows = journal.read(folder)
    if not len(rows):
        raise DataError(f"{folder}: no finished sample in it; run the same synthesize again")
    digest = hashlib.sha256()
    for row in rows.values():
        for role in ROLES:
            if row[role]:
                digest.update(role.encode() + _content(inside(folder, row[role])))
        check_files(folder, row)
    labels = {name: int(id) for name, id in about["labels"].items() if name != IGNORE}
    masks = any(row["label"] for row in rows.values())
    data: Mapping[str, Any] = about.get("data") or {}
    window = data.get("window_hu")
    shown = bool(about["labels"]) and data.get("require_label", True)
    least = data.get("min_label_pixels", 1) if shown else 0
    stacked = " stacks" if any(row["slices"] for row in rows.values()) else ""
    facts = {
        "samples": len(rows),
        "wanted": about.get("n"),
        "settings": about["settings"],
        "versions": about.get("versions"),
        "privacy": about.get("privacy"),
    }
    return Synthetic(
        what=f"{len(rows)} synthetic{stacked or ' samples'} written by medaug synthesize",
        fingerprint=digest.hexdigest(),
        facts=facts,
        window_hu=None if window is None else (float(window[0]), float(window[1])),
        labels=labels if masks else {},
        least=None if not data else int(least),
        modality=modality.name,
        load=partial(_load, folder, form, rows, labels if masks else {}),
    )


def _about(folder: Path) -> dict[str, Any]:
    """The ``run.json`` of a synthesised folder.

    Raises:
        DataError: it is damaged.
    """
    try:
        about = unsealed(parse_json((folder / "run.json").read_text()))
        _About.model_validate(about)
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"{folder / 'run.json'}: damaged; run the same synthesize command into a new folder"
        ) from error
    return dict(about)


def _content(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file, though the manifest lists it") from error


def _load(
    folder: Path,
    form: str,
    rows: Rows,
    labels: Mapping[str, int],
    frame: Frame,
    scratch: Path,
) -> SliceSet:
    from medaug.synthesis.writers.nifti import read

    writer = lookup(WRITERS, form, "format").load()()
    kept, step = Gathering(frame, labels, bool(labels)), None
    for row in rows.values():
        sample = writer.read(folder, row)
        x_mm, y_mm, z_mm = spacing(np.asarray(sample.affine))
        frame.check(inside(folder, row["image"]), sample.image.shape, (x_mm, y_mm))
        if sample.slices:
            step = z_mm
        entropy = (
            read(inside(folder, row["entropy"]))[0] if row["entropy"] and form == "nifti" else None
        )
        std = sample.std if row["std"] else None
        kept.add(row["case"], sample.image, sample.label, std, entropy)
    return kept.done(folder, step)
