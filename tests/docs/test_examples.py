"""The examples run as they are, in under a minute of two cores, and leave what they promise."""

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from medaug.data.cache.prepare import SliceCache
from medaug.synthesis.nnunet_splits import SPLITS
from tests.synthesis.test_nnunet import stems, verified

EXAMPLES = Path(__file__).parents[2] / "examples"
CPU_SECONDS = 120
"""A minute of two cores."""


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(name: str, place: Path, *arguments: object) -> str:
    """What an example prints when it is run in the folder ``place``."""
    before = cpu()
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=place,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert cpu() - before < CPU_SECONDS
    return done.stdout


def learns(printed: str, batches: int) -> bool:
    """Whether the printed losses fall over ``batches``."""
    losses = [float(value) for value in re.findall(r"^batch \d+: loss ([\d.]+)$", printed, re.M)]
    assert len(losses) == batches
    return np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])


def seen(picture: Path) -> np.ndarray:
    """The colours of a picture that shows something."""
    colours = np.asarray(Image.open(picture).convert("RGB"))
    assert min(colours.shape[:2]) > 200
    assert colours.std() > 10
    return colours


def test_each_says_what_it_shows_and_how_to_run_it() -> None:
    tested = {"monai_training", "nnunet_handover", "own_masks", "pictures", "torchio_training"}
    tested |= {"cache_monai", "cache_torchio"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == tested
    for name in tested:
        text = (EXAMPLES / f"{name}.py").read_text()
        assert text.startswith('"""')
        assert f"    python examples/{name}.py" in text.split('"""')[1]


@pytest.mark.long
def test_torchio(tmp_path: Path) -> None:
    printed = run("torchio_training", tmp_path, "--batches", 12)
    assert learns(printed, 12)
    assert 0 < int(re.search(r"eight times: (\d) times a synthetic pair", printed)[1]) < 8
    assert "history: Synthesis, Clamp, RescaleIntensity\n" in printed
    assert "replayed, the same: True\n" in printed
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_monai(tmp_path: Path) -> None:
    printed = run("monai_training", tmp_path, "--batches", 12, "--out", "slices")
    assert learns(printed, 12)
    real, synthetic = map(int, re.search(r"^(\d+) real and (\d+) synth", printed, re.M).groups())
    kinds = [name[:4] for name in stems(tmp_path / "slices")]
    assert (kinds.count("real"), kinds.count("syn_")) == (real, synthetic)
    verified(tmp_path / "slices")
    drawn, all_ = map(int, re.search(r"^(\d+) of (\d+) slices seen", printed, re.M).groups())
    assert 0.3 < drawn / all_ < 0.7


@pytest.mark.long
def test_cache_in_monai(tmp_path: Path) -> None:
    printed = run("cache_monai", tmp_path)
    assert learns(printed, 60)
    assert int(re.search(r"^(\d+) training slices of PANCREAS", printed, re.M)[1]) > 10
    assert 0.1 < float(re.search(r"Dice on PANCREAS_0001: ([\d.]+)", printed)[1]) < 1
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_cache_in_torchio(tmp_path: Path, phantom_cache: Path) -> None:
    printed = run("cache_torchio", tmp_path, "--batches", 12, "--cache", phantom_cache)
    assert learns(printed, 12)
    z, case, height = re.search(r"slice (\d+) of (\w+), at ([-\d.]+) mm", printed).groups()
    affine = SliceCache.open(phantom_cache).cases[case].affine
    assert float(height) == round(float((affine @ [0, 0, int(z), 1])[2]), 1)
    assert "shape: (1, 32, 32, 1); " in printed
    assert "orientation: RAS+" in printed
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_nnunet(tmp_path: Path) -> None:
    printed = run("nnunet_handover", tmp_path)
    out = tmp_path / "nnUNet_raw" / "Dataset101_Mixed"
    verified(out)
    assert f"{out.relative_to(tmp_path)} is sound" in printed
    synthetic = {case for case in stems(out) if case.startswith("syn_")}
    real = stems(out) - synthetic
    assert len(synthetic) == 16
    assert len(real) > 30
    assert int(re.search(r"(\d+) draws refused", printed)[1]) > 0
    ignored = 0
    for case in synthetic | real:
        label = np.asarray(nib.load(out / "labelsTr" / f"{case}.nii.gz").dataobj)
        assert (label == 1).any()
        ignored += int((label == 2).sum())
        assert case in synthetic or not (label == 2).any()
    assert f"'ignore': {ignored}" in printed
    assert ignored > 0
    folds = json.loads((out / SPLITS).read_text())
    assert len(folds) == 3
    assert sorted(case for fold in folds for case in fold["val"]) == sorted(real)
    for fold in folds:
        assert synthetic <= set(fold["train"])
        assert set(fold["train"]) | set(fold["val"]) == synthetic | real


@pytest.mark.long
def test_own_masks(tmp_path: Path) -> None:
    printed = run("own_masks", tmp_path)
    out = tmp_path / "own_masks"
    rows = re.findall(r"^  (\w+) +std +([\d.]+)  entropy ([\d.]+)$", printed, re.M)
    std = {name: float(value) for name, value, _ in rows}
    entropy = {name: float(value) for name, _, value in rows}
    assert list(std) == ["latent", "network", "mask"]
    assert min(std.values()) > 1
    assert entropy["latent"] == entropy["network"] == 0 < entropy["mask"]
    given = sorted((out / "masks").glob("*.nii.gz"))
    assert len(given) == 4
    for file in given:
        assert (np.asarray(nib.load(file).dataobj) == 1).sum() > 100
        assert re.search(rf"^  {file.name.removesuffix('.nii.gz')} ", printed, re.M)
    drawn = sorted((out / "drawn" / "labelsTr").glob("*.nii.gz"))
    assert len(drawn) == 16
    verified(out / "drawn")
    labels = [sitk.GetArrayFromImage(sitk.ReadImage(file))[0] for file in drawn]
    for one, other in zip(labels[:4], labels[4:8], strict=True):  # the same mask, bent otherwise
        dice = 2 * (one & other).sum() / (one.sum() + other.sum())
        assert 0.3 < dice < 1
    for file in drawn:
        image = nib.load(out / "drawn/imagesTr" / file.name.replace(".nii.gz", "_0000.nii.gz"))
        hu, label = np.asarray(image.dataobj), np.asarray(nib.load(file).dataobj)
        assert np.median(hu[label == 1]) > -100  # tissue, neither gas nor air
    rings = [file for file in given if file.name.startswith("ring")]
    position = given.index(rings[0])
    hole = sitk.BinaryFillhole(sitk.GetImageFromArray(labels[position]))
    assert sitk.GetArrayFromImage(hole).sum() > labels[position].sum()
    seen(out / "sources.png")


@pytest.mark.long
def test_pictures(tmp_path: Path) -> None:
    assert (EXAMPLES / "pictures.py").read_text().count("\n# %% ") == 6
    printed = run("pictures", tmp_path)
    for name in ("samples", "alternatives", "uncertainty", "varied"):
        seen(tmp_path / "pictures" / f"{name}.png")
    apart = [int(value) for value in re.findall(r"strength [\d.]+: (\d+) HU", printed)]
    assert len(apart) == 5
    assert apart == sorted(apart)
    assert apart[-1] > 2 * apart[0]
    spread, votes = re.search(r"std: ([\d.]+) HU.*up to ([\d.]+) bits", printed).groups()
    assert float(spread) > 5
    assert 0 < float(votes) <= 1
