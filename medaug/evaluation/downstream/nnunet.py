"""Hand an arm over to nnU-Net v2 instead of the small U-Net, where that is installed.

An arm becomes a raw data set of its first slices, real and other in the proportion that the arm
draws them, so that nnU-Net's uniform sampling keeps the ratio.  Its own trainer decides the steps,
alike in every arm.  Isensee et al. 2021, Nature Methods 18.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np

from medaug.core.errors import ConfigError, DataError
from medaug.core.seeds import derive
from medaug.core.types import LabelMap
from medaug.evaluation.downstream.arms import Arm
from medaug.evaluation.downstream.lesson import PatientSubset
from medaug.evaluation.downstream.material import Unseen
from medaug.evaluation.downstream.streams import IGNORED, Stream, item
from medaug.runtime.files import write_json
from medaug.synthesis.ignore_label import IGNORE

TOOLS = ("nnUNetv2_plan_and_preprocess", "nnUNetv2_train", "nnUNetv2_predict")
PLAIN_TRAINER = "nnUNetTrainerNoDA"


def check() -> None:
    """Refuse the trainer where it cannot be had.

    Raises:
        ConfigError: naming what to do.
    """
    if find_spec("nnunetv2") is None or any(shutil.which(tool) is None for tool in TOOLS):
        raise ConfigError(
            "downstream.trainer nnunet: nnU-Net v2 is not installed here; run pip install nnunetv2 "
            "or choose the trainer unet"
        )


def taught(
    name: str, arm: Arm, stream: Stream, lesson: PatientSubset, tested: Sequence[Unseen]
) -> dict[str, LabelMap]:
    """Label ids (z, y, x) that nnU-Net finds in the unseen patients, taught by an arm.

    Raises:
        DataError: one of nnU-Net's commands fails.
    """
    number = 1 + derive(0, name) % 998
    root = lesson.out / "nnunet" / name
    folder = root / "raw" / f"Dataset{number:03d}_medaug"
    write_dataset(folder, stream, lesson, lesson.config.study.nnunet_slices)
    write_tests(folder / "imagesTs", tested)
    places = {f"nnUNet_{what}": str(root / what) for what in ("raw", "preprocessed", "results")}
    trainer = lesson.config.study.nnunet_trainer if arm.standard else PLAIN_TRAINER
    common = ["-c", "2d", "-tr", trainer]
    found = root / "predicted"
    for command in (
        [TOOLS[0], "-d", str(number), "-c", "2d", "--verify_dataset_integrity"],
        [TOOLS[1], str(number), "2d", "all", "-tr", trainer, "--c"],
        [TOOLS[2], "-i", str(folder / "imagesTs"), "-o", str(found), "-d", str(number),
         "-f", "all", *common],
    ):  # fmt: skip
        with lesson.piece(f"nnunet-{name}", done=False):
            status = subprocess.run(command, env={**os.environ, **places}, check=False).returncode
        if status:
            raise DataError(f"{command[0]} ended with status {status}; see {root}")
    return {case.name: read_back(found, case, lesson.codec.labels) for case in tested}


def write_dataset(folder: Path, stream: Stream, lesson: PatientSubset, count: int) -> None:
    """The first ``count`` slices of a stream in nnU-Net's raw layout, as 2-D cases."""
    ids = {name: k for k, name in enumerate(lesson.codec.labels, 1)}
    ignores = False
    for position in range(count):
        image, label = item(stream, lesson.seed, position)
        marks = np.zeros_like(label)
        for name, number in lesson.codec.labels.items():
            marks[label == number] = ids[name]
        marks[label == IGNORED] = len(ids) + 1
        ignores |= bool((label == IGNORED).any())
        case = f"slice_{position:05d}"
        _write(folder / "imagesTr" / f"{case}_0000.nii.gz", image, lesson.pixel_mm)
        _write(folder / "labelsTr" / f"{case}.nii.gz", marks, lesson.pixel_mm)
    labels = {"background": 0, **ids} | ({IGNORE: len(ids) + 1} if ignores else {})
    write_json(
        folder / "dataset.json",
        {
            "channel_names": {"0": lesson.codec.modality},
            "labels": labels,
            "numTraining": count,
            "file_ending": ".nii.gz",
        },
    )


def write_tests(folder: Path, tested: Sequence[Unseen]) -> None:
    """The slices of unseen patients, one 2-D case each."""
    for case in tested:
        for z, image in enumerate(case.images):
            _write(folder / f"{case.name}_z{z:04d}_0000.nii.gz", image, case.spacing_mm[1])


def read_back(folder: Path, case: Unseen, labels: Mapping[str, int]) -> LabelMap:
    """Label ids (z, y, x) of a case's predicted slices, as the cache numbers them."""
    ids = np.array([0, *labels.values()], np.uint8)
    slices = []
    for z in range(len(case.images)):
        file = folder / f"{case.name}_z{z:04d}.nii.gz"
        if not file.exists():
            raise DataError(f"{file}: nnU-Net wrote no prediction there")
        image = nib.Nifti1Image.from_filename(file)
        slices.append(ids[np.asarray(image.dataobj)[:, :, 0].T.astype(int)])
    return np.stack(slices)


def _write(path: Path, slice_: np.ndarray, pixel_mm: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([pixel_mm, pixel_mm, 1.0, 1.0])
    nib.save(nib.Nifti1Image(slice_.T[:, :, None], affine), path)
