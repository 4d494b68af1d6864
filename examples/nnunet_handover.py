"""From a few scans to a folder that nnU-Net v2 takes: filtered, uncertainty-aware, mixed, folded.

    python examples/nnunet_handover.py --out nnUNet_raw/Dataset101_Mixed    # under a minute

Three commands, printed as they are run: train, synthesize with `--with-real` and `--ignore-above`,
nnunet-splits. The scans are phantom patients, drawn by a program. Training continues from the
phantom weights that ship with medaug, and is brief, as is that of the filter's segmenters: the
filter therefore refuses about half of the draws. At the end the folder is checked as nnU-Net does.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from medaug.cli.demonstration import SHIPPED
from medaug.data.sources.phantom import source


def medaug(*arguments: object) -> None:
    """One command, as `medaug ...` in a shell."""
    words = [str(argument) for argument in arguments]
    print("$ medaug", *words, flush=True)
    command = [sys.executable, "-c", "from medaug.cli import main; main()", *words]
    subprocess.run(command, check=True)


def check(folder: Path) -> dict[str, int]:
    """What `nnUNetv2_plan_and_preprocess --verify_dataset_integrity` looks at.

    Returns:
        How many voxels each label has in all cases together.
    """
    about = json.loads((folder / "dataset.json").read_text())
    names = {int(number): name for name, number in about["labels"].items()}
    assert sorted(names) == list(range(len(names))), "ids without gaps, ignore the highest"
    ending = about["file_ending"]
    labels = sorted((folder / "labelsTr").glob(f"*{ending}"))
    assert len(labels) == about["numTraining"]
    voxels: Counter[str] = Counter()
    for file in labels:
        label = sitk.ReadImage(file)
        values = sitk.GetArrayFromImage(label)
        for number, count in zip(*np.unique(values, return_counts=True), strict=True):
            voxels[names[int(number)]] += int(count)
        for channel in about["channel_names"]:
            case = file.name.removesuffix(ending)
            image = sitk.ReadImage(folder / "imagesTr" / f"{case}_{int(channel):04d}{ending}")
            assert image.GetSize() == label.GetSize(), case
            for what in ("GetSpacing", "GetOrigin", "GetDirection"):
                assert np.allclose(getattr(image, what)(), getattr(label, what)()), (case, what)
            assert np.isfinite(sitk.GetArrayFromImage(image)).all(), case
    return dict(voxels)


def main() -> None:
    """Make the folder and check it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("nnUNet_raw/Dataset101_Mixed"))
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        people, cache, run = (Path(folder) / name for name in ("people", "cache", "run"))
        source.write(people, patients=8, seed=3, shape=(120, 120, 24), spacing_mm=(3.2, 3.2, 8))
        medaug(
            *("train", "--data", people, "--cache", cache, "--run", run),
            *("--size", 64, "--fov", 360, "--init", SHIPPED, "--images", 960),
            *(
                "--set",
                "model.phases=[0.16,0.32]",
                "--set",
                "model.lr=3e-4",
                "--set",
                "train.snapshot_every=960",
            ),
        )
        medaug(
            *("synthesize", "-n", 16, "--out", out, "--run", run, "--uncertainty", 8),
            *("--with-real", cache, "--ignore-above", "q95"),
            *("--set", "filter.segmenter_images=800"),
        )
    medaug("nnunet-splits", out, "--folds", 3)

    print("voxels:", check(out))
    for number, fold in enumerate(json.loads((out / "splits_final.json").read_text())):
        synthetic = sum(case.startswith("syn_") for case in fold["train"])
        assert not any(case.startswith("syn_") for case in fold["val"])
        print(
            f"fold {number}: {len(fold['train'])} cases to train on, {synthetic} of them "
            f"synthetic; {len(fold['val'])} to validate on, all real"
        )
    print(f"{out} is sound; next: nnUNetv2_plan_and_preprocess -d 101 --verify_dataset_integrity")


if __name__ == "__main__":
    main()
