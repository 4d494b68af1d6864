"""Folders of NIfTI images with one label map each.

Three layouts are known by sight: ``imagesTr`` + ``labelsTr`` (nnU-Net, Medical Decathlon),
``images`` + ``labels``, and ``case.nii.gz`` beside ``case_label.nii.gz``.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from medaug.data.alignment import check_geometry
from medaug.data.readers import LabelReader, nifti_header
from medaug.errors import DataError
from medaug.types import Case, Marks, Problem

_PAIRS = (("imagesTr", "labelsTr"), ("images", "labels"))
_CHANNEL = re.compile(r"_(\d{4})$")
_LABEL = re.compile(r"[_-](?:label|labels|mask|seg)$")


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _niftis(folder: Path) -> list[Path]:
    return sorted(
        p
        for p in folder.iterdir()
        if p.name.endswith((".nii", ".nii.gz")) and not p.name.startswith(".")
    )


def looks_like(root: Path) -> bool:
    """Whether ``root`` holds NIfTI images and labels in a known layout."""
    if any((root / images).is_dir() and (root / labels).is_dir() for images, labels in _PAIRS):
        return True
    return any(_LABEL.search(_stem(path)) for path in _niftis(root))


class NiftiFolder:
    """The NIfTI images and label maps in ``root``.

    Labels are named by ``dataset.json`` where there is one, as nnU-Net or Medical Decathlon write
    it; else every id that occurs becomes ``label_1`` and so on.

    Args:
        root: the folder.

    Raises:
        DataError: no such folder, or no layout that is known.
    """

    name = "nifti"
    kind: Literal["ct"] = "ct"

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such folder")
        self._pairs = self._paired()
        if not self._pairs:
            raise DataError(f"{self.root}: no NIfTI images in it")
        self.labels: Mapping[str, int] = self._named() or self._discovered()

    def cases(self) -> tuple[list[Case], list[Problem]]:
        """The usable scans, and the others with what is wrong; only headers are read."""
        cases, problems = [], []
        for id, (images, label) in sorted(self._pairs.items()):
            try:
                cases.append(_checked(id, images, label))
            except DataError as error:
                problems.append(Problem(id, str(error)))
        return cases, problems

    def _paired(self) -> dict[str, tuple[list[Path], Path | None]]:
        """Image files and label file by case."""
        for images, labels in _PAIRS:
            if (self.root / images).is_dir() and (self.root / labels).is_dir():
                marked = {
                    _LABEL.sub("", _stem(p)): p for p in reversed(_niftis(self.root / labels))
                }
                found = _niftis(self.root / images)
                break
        else:
            every = _niftis(self.root)
            marked = {_LABEL.sub("", _stem(p)): p for p in every if _LABEL.search(_stem(p))}
            found = [p for p in every if not _LABEL.search(_stem(p))]
        pairs: dict[str, tuple[list[Path], Path | None]] = {}
        for path in found:
            id = _stem(path)
            if id not in marked and _CHANNEL.sub("", id) in marked:
                id = _CHANNEL.sub("", id)
            pairs.setdefault(id, ([], marked.get(id)))[0].append(path)
        return pairs

    def _named(self) -> dict[str, int]:
        """Labels as ``dataset.json`` names them: name to id (nnU-Net) or id to name (Decathlon).

        Raises:
            DataError: the file is not what either writes.
        """
        path = self.root / "dataset.json"
        if not path.is_file():
            return {}
        try:
            content = json.loads(path.read_text())["labels"]
            pairs = [
                (str(value), int(key)) if str(key).isdigit() else (str(key), int(value))
                for key, value in content.items()
                if not isinstance(value, list) and key != "ignore"
            ]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path}: no labels as name: id (nnU-Net) or id: name (Decathlon) in it"
            ) from error
        return {name: value for name, value in sorted(pairs, key=lambda p: p[1]) if value > 0}

    def _discovered(self) -> dict[str, int]:
        """Ids that occur in any readable label map."""
        seen: set[int] = set()
        reader = LabelReader(range(256))
        for _, label in self._pairs.values():
            if label is None:
                continue
            try:
                values, _meta = reader.get_data(label)
            except DataError:
                continue
            seen |= set(np.flatnonzero(np.bincount(values.ravel(order="K"))).tolist())
        return {f"label_{value}": value for value in sorted(seen - {0})}


def _checked(id: str, images: list[Path], label: Path | None) -> Case:
    if len(images) > 1:
        names = ", ".join(p.name for p in images)
        raise DataError(f"{len(images)} images ({names}); one channel of CT is needed")
    if label is None:
        nifti_header(images[0])
        return Case(id, (images[0],))
    headers = [nifti_header(images[0]), nifti_header(label)]
    shapes = [tuple(int(n) for n in h.shape[:3]) for h in headers]
    check_geometry(shapes[0], headers[0].affine, shapes[1], headers[1].affine)
    return Case(id, (images[0],), Marks((label,)))
