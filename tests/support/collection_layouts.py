"""The layouts of docs/data.md, fabricated on disk from the same miniature scans."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk

from medaug.data import open_source
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
from medaug.data.formats.volumes import suffix
from medaug.data.sources.collections import Collection
from medaug.data.sources.collections.names import KNOWN
from tests.conftest import SPACING, miniature, write_series

AFFINE = np.diag([-SPACING[0], SPACING[1], -SPACING[2], 1.0])
Organs = dict[str, int]


def scan(seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """HU and two organs that do not touch."""
    hu, pancreas = miniature(seed)
    return hu, {"pancreas": pancreas, "bone": (hu > 300).astype(np.uint8)}


def label_map(organs: dict[str, np.ndarray], ids: Organs) -> np.ndarray:
    marks = np.zeros_like(organs["pancreas"])
    for name, id in ids.items():
        marks[organs[name] > 0] = id
    return marks


def write(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    """By nibabel, or by SimpleITK from what nibabel wrote."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nifti = path if suffix(path) in (".nii", ".nii.gz") else path.with_suffix(".nii")
    nibabel.save(nibabel.Nifti1Image(values, affine), nifti)
    if nifti != path:
        sitk.WriteImage(sitk.ReadImage(str(nifti)), str(path), True)
        nifti.unlink()


def change(
    path: Path, how: Callable[[np.ndarray], np.ndarray], affine: np.ndarray = AFFINE
) -> None:
    """Rewrite a label file; its header stays unless another is given."""
    if suffix(path) in (".nii", ".nii.gz"):
        values = np.asarray(nibabel.load(path).dataobj)
    else:
        values = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).transpose(2, 1, 0)
    write(path, np.ascontiguousarray(how(values)), affine)


@dataclass
class Layout:
    """How two scans lie on disk: image and label files by ``{n}``, ids, and what names them."""

    image: str
    label: str
    ids: Organs
    about: dict | None = None
    name: str = "folders"
    cases: tuple[str, str] = ("case_0001", "case_0002")
    organs: bool = False
    series: bool = False
    numbers: tuple[int, int] = (1, 2)
    labels: Organs | None = None

    def make(self, root: Path) -> Path:
        for seed in self.numbers:
            hu, organs = scan(seed)
            at = {"n": f"{seed:04d}", "n5": f"{seed:05d}", "m": seed - 1}
            if self.series:
                write_series(root / self.image.format(**at), f"X{seed:04d}", hu)
            else:
                write(root / self.image.format(**at), hu)
            if self.organs:
                for organ, mask in organs.items():
                    write(root / self.label.format(**at, organ=NAMED[organ]), mask)
                write(root / self.label.format(**at, organ="liver"), organs["bone"] * 0)
            else:
                write(root / self.label.format(**at), label_map(organs, self.ids))
        if self.about is not None:
            (root / "dataset.json").write_text(json.dumps(self.about))
        return root

    def label_files(self, root: Path, seed: int) -> list[Path]:
        at = {"n": f"{seed:04d}", "n5": f"{seed:05d}", "m": seed - 1}
        if not self.organs:
            return [root / self.label.format(**at)]
        return [root / self.label.format(**at, organ=NAMED[o]) for o in ("pancreas", "bone")]


NAMED = {"pancreas": "pancreas", "bone": "vertebrae_L1"}
NNUNET = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "pancreas": 1, "bone": 2}}
MSD = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "pancreas", "2": "bone"}}
TASK = "imagesTr/case_{n}", "labelsTr/case_{n}"
TWO = {"pancreas": 1, "bone": 2}


def nnunet(ending: str) -> Layout:
    about = {**NNUNET, "file_ending": ending}
    image, label = f"{TASK[0]}_0000{ending}", TASK[1] + ending
    return Layout(image, label, TWO, about, "nnunet")


def published(name: str, image: str, label: str, cases: tuple[str, str], kind: str) -> Layout:
    """Label maps with the ids of a published collection, the bones under some other organ."""
    ids = KNOWN[name]
    own = {"pancreas": ids["pancreas"], "bone": ids["spleen"]}
    return Layout(image, label, own, name=kind, cases=cases, labels=ids)


def nameless(image: str, label: str, kind: str = "folders", **more: Any) -> Layout:
    """Label maps whose ids nothing names."""
    return Layout(image, label, TWO, name=kind, labels={"label_1": 1, "label_2": 2}, **more)


GZ = ".nii.gz"
FLARE = "FLARE22_Tr_0001", "FLARE22_Tr_0002"
LAYOUTS = {
    "nnunet .nii.gz": nnunet(".nii.gz"),
    "nnunet .nii": nnunet(".nii"),
    "nnunet .nrrd": nnunet(".nrrd"),
    "nnunet .mha": nnunet(".mha"),
    "nnunet .mhd": nnunet(".mhd"),
    "decathlon": Layout(TASK[0] + GZ, TASK[1] + GZ, TWO, MSD, "imagesTr"),
    "totalsegmentator": Layout(
        "s{n}/ct.nii.gz",
        "s{n}/segmentations/{organ}.nii.gz",
        {"pancreas": 7, "bone": 31},
        name="organs",
        cases=("s0001", "s0002"),
        organs=True,
        labels={"liver": 5, "pancreas": 7, "vertebrae_L1": 31},
    ),
    "btcv": published(
        "btcv",
        "RawData/Training/img/img{n}.nii.gz",
        "RawData/Training/label/label{n}.nii.gz",
        ("img0001", "img0002"),
        "btcv",
    ),
    "amos": published(
        "amos",
        "imagesTr/amos_{n}.nii.gz",
        "labelsTr/amos_{n}.nii.gz",
        ("amos_0001", "amos_0002"),
        "amos",
    ),
    "word": published(
        "word",
        "imagesTr/word_{n}.nii.gz",
        "labelsTr/word_{n}.nii.gz",
        ("word_0001", "word_0002"),
        "imagesTr",
    ),
    "flare22": published(
        "flare22",
        "images/FLARE22_Tr_{n}_0000.nii.gz",
        "labels/FLARE22_Tr_{n}.nii.gz",
        FLARE,
        "folders",
    ),
    "flare22 side by side": published(
        "flare22", "FLARE22_Tr_{n}_0000.nii.gz", "FLARE22_Tr_{n}.nii.gz", FLARE, "side by side"
    ),
    "abdomenct-1k": published(
        "abdomenct-1k",
        "AbdomenCT-1K-ImagePart{m}/Case_{n5}_0000.nii.gz",
        "Mask/Case_{n5}.nii.gz",
        ("Case_00001", "Case_00002"),
        "folders",
    ),
    "images and masks": nameless("images/case_{n}.mha", "masks/case_{n}_mask.nii.gz"),
    "beside": nameless("case_{n}_ct.nii.gz", "case_{n}_seg.nrrd", "side by side"),
    "lits": nameless(
        "volume-{m}.nii", "segmentation-{m}.nii", "LiTS", cases=("volume-0", "volume-1")
    ),
    "a folder each": nameless(
        "case_{n}/imaging.nii.gz", "case_{n}/segmentation.nii.gz", "folder each"
    ),
    "dicom": nameless(
        "scans/case_{n}",
        "labels/case_{n}.nii.gz",
        "dicom",
        cases=("scans-case_0001", "scans-case_0002"),
        series=True,
    ),
    "dicom with labels inside": nameless(
        "case_{n}/ct",
        "case_{n}/mask.nii.gz",
        "dicom",
        cases=("case_0001-ct", "case_0002-ct"),
        series=True,
    ),
}


def upright(values: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """RAS+ by nibabel."""
    image = nibabel.as_closest_canonical(nibabel.Nifti1Image(values, affine))
    return np.asarray(image.dataobj), image.affine


def opened(root: Path) -> Collection:
    source = open_source(str(root))
    assert isinstance(source, Collection)
    return source


def cached(source: Collection, cache: Path, size: int = 32) -> SliceCache:
    assert prepare(source, cache, CacheSettings(size), 0).failed == []
    return SliceCache.open(cache)
