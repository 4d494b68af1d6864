"""The command line as a user meets it: what it prints, writes and returns."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from medaug.core.config import presets
from medaug.core.registry import MODELS
from tests.conftest import TINY, Medaug, write_patient

MAKE = ("synthesize", "--no-filter")
"""Runs of these tests draw noise, which the filter would refuse."""
SETTINGS = [
    *("--size", 32, "--images", 48, "--device", "cpu"),
    *("--set", "model.width=8", "--set", "model.prior.width=16", "--set", "model.prior.steps=3"),
    *("--set", "train.batch=8"),
]


def test_the_whole_road(medaug: Medaug, phantom_root: Path, tmp_path: Path) -> None:
    train = ["train", "--data", phantom_root, "--run", "runs/a", *SETTINGS, "--json"]
    first = medaug(*train)
    assert first.code == 0, first.err
    assert first.json["finished"] is True
    assert first.json["images"] == 48
    again = medaug(*train)
    assert again.json["resumed"] == 48

    made = medaug(*MAKE, "-n", 5, "--out", "nifti", "--uncertainty", 3, "--json")
    assert made.code == 0, made.err
    assert made.json["written"] == 5
    assert "run: runs/a" in made.err
    image = nibabel.load("nifti/imagesTr/syn_000004_0000.nii.gz")
    label = nibabel.load("nifti/labelsTr/syn_000004.nii.gz")
    assert image.shape == label.shape == (32, 32, 1)
    assert np.allclose(image.affine, label.affine)
    assert nibabel.load("nifti/uncertainty/syn_000004_samples.nii.gz").shape == (32, 32, 1, 3)
    with Path("nifti/manifest.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 5
    for name in ("dataset.json", "run.json", "preview.png"):
        assert Path("nifti", name).exists()

    assert medaug(*MAKE, "-n", 8, "--out", "nifti", "--uncertainty", 3).code == 0
    assert len(list(Path("nifti/imagesTr").iterdir())) == 8


def test_real_slices_ignore_labels_and_folds(
    medaug: Medaug, tiny_run: Path, phantom_cache: Path
) -> None:
    make = [
        "synthesize",
        "--no-filter",
        "-n",
        4,
        "--out",
        "nnunet",
        "--run",
        tiny_run,
        "--uncertainty",
        4,
    ]
    make += ["--with-real", phantom_cache, "--ignore-above", "q95"]
    planned = medaug(*make, "--dry-run")
    assert planned.out.startswith("would write 4 of 4 samples to nnunet beside ")
    made = medaug(*make, "--json")
    assert made.code == 0, made.err
    assert made.json["real"] == len(list(Path("nnunet/imagesTr").iterdir())) - 4 > 3
    content = json.loads(Path("nnunet/dataset.json").read_text())
    assert content["labels"] == {"background": 0, "pancreas": 1, "ignore": 2}
    seen = medaug("inspect", "nnunet", "--json").json
    assert (seen["samples"], seen["real"], seen["problems"]) == (4, made.json["real"], [])
    would = medaug("nnunet-splits", "nnunet", "--folds", 3, "--dry-run")
    assert would.out.startswith("would write nnunet/splits_final.json: 3 folds over 3 patients")
    assert not Path("nnunet/splits_final.json").exists()
    split = medaug("nnunet-splits", "nnunet", "--folds", 3, "--seed", 1, "--json")
    assert split.code == 0, split.err
    assert (split.json["patients"], split.json["synthetic"]) == (3, 4)
    assert len(json.loads(Path("nnunet/splits_final.json").read_text())) == 3
    refused = medaug("nnunet-splits", "nnunet")
    assert (refused.code, refused.err) == (
        2,
        "medaug: folds: 5 asked, and nnunet holds real cases of 3 patients\n",
    )


def test_a_run_draws_dicom_and_nifti_alike(medaug: Medaug, tiny_run: Path) -> None:
    images = {}
    for form, place in (("dicom", "ct/syn_000001.dcm"), ("nifti", "imagesTr/syn_000001_0000")):
        path = place if form == "dicom" else f"{place}.nii.gz"
        make = [
            "synthesize",
            "--no-filter",
            "-n",
            2,
            "--out",
            form,
            "--run",
            tiny_run,
            "--format",
            form,
        ]
        assert medaug(*make, "--uncertainty", 2).code == 0
        images[form] = sitk.ReadImage(str(Path(form, path)))
    dicom, nifti = images.values()
    placed = sitk.Resample(dicom, nifti, sitk.Transform(), sitk.sitkNearestNeighbor, -9999)
    assert np.array_equal(sitk.GetArrayFromImage(placed), sitk.GetArrayFromImage(nifti))
    assert dicom.GetSpacing() == pytest.approx(nifti.GetSpacing(), rel=1e-5)


def test_a_finished_cache_trains_without_the_scans(medaug: Medaug, phantom_cache: Path) -> None:
    trained = medaug("train", "--data", phantom_cache, "--run", "r", *SETTINGS, "--json")
    assert trained.code == 0, trained.err
    other = medaug("train", "--data", phantom_cache, "--run", "s", "--size", 64)
    assert other.code == 2
    assert other.err == (
        f"medaug: {phantom_cache}: the cache has data.size 32, 64 was asked; "
        "name the scans instead of the cache\n"
    )


@pytest.mark.long
def test_training_from_a_cache_needs_few_packages(phantom_cache: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from medaug.training.workflow import train\n"
        "train(sys.argv[1], {'train': {'images': 8, 'batch': 8}, 'model': {'width': 8}},"
        " run=sys.argv[2])\n"
        "print(*sorted({m.split('.')[0] for m in sys.modules}))"
    )
    command = [sys.executable, "-c", code, str(phantom_cache), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert {"torchio", "SimpleITK", "nibabel", "pydicom"}.isdisjoint(done.stdout.split())


def test_a_dry_run_writes_nothing(
    medaug: Medaug, phantom_root: Path, tiny_run: Path, tmp_path: Path
) -> None:
    planned = medaug("train", "--data", phantom_root, *SETTINGS, "--dry-run", "--json")
    assert planned.json["config"]["model"]["width"] == 8
    assert planned.json["config"]["train"]["images"] == 48
    assert planned.json["config"]["data"]["size"] == 32
    prepared = medaug("prepare", phantom_root, "--size", 32, "--dry-run", "--json")
    assert prepared.json["found"] == 4
    would = medaug(
        "synthesize",
        "--no-filter",
        "-n",
        "1Ki",
        "--out",
        "nifti",
        "--run",
        tiny_run,
        "--dry-run",
        "--json",
    )
    assert (would.json["total"], would.json["already"]) == (1024, 0)
    assert "write 1024 of 1024" in medaug(
        *MAKE, "-n", "1Ki", "--out", "nifti", "--run", tiny_run, "--dry-run"
    ).out  # fmt: skip
    assert medaug("demo", "--dry-run", "--json").json["n"] == 64
    assert list(tmp_path.iterdir()) == []


def test_models_are_listed_from_the_registry(medaug: Medaug) -> None:
    listed = medaug("models", "--json").json
    assert set(listed) == set(MODELS)
    assert {name: row["presets"] for name, row in listed.items()} == {n: presets(n) for n in MODELS}
    text = medaug("models").out.splitlines()
    assert len(text) == len(MODELS) == 14


def test_inspect_knows_everything_that_is_made(
    medaug: Medaug, phantom_root: Path, phantom_cache: Path, tiny_run: Path, tmp_path: Path
) -> None:
    medaug(*MAKE, "-n", 2, "--out", "nifti", "--run", tiny_run)
    paths = {
        phantom_root: "scan source",
        phantom_cache: "slice cache",
        tiny_run: "run",
        tiny_run / "model.safetensors": "weight file",
        next((tiny_run / "checkpoints").iterdir()): "training state",
        tmp_path / "nifti": "synthesised folder",
        tmp_path / "nifti/labelsTr/syn_000000.nii.gz": "NIfTI image",
    }
    for path, what in paths.items():
        found = medaug("inspect", path, "--json")
        assert found.code == 0, (path, found)
        assert found.json["what"] == what
        assert found.json["problems"] == []
    assert medaug("inspect", tiny_run).out.startswith("what: run\n")
    (tmp_path / "nifti/labelsTr/syn_000001.nii.gz").unlink()
    broken = medaug("inspect", tmp_path / "nifti", "--json")
    assert broken.code == 1
    assert broken.json["problems"] == [
        f"{tmp_path / 'nifti/labelsTr/syn_000001.nii.gz'}: named in the manifest but not there"
    ]
    swapped = tmp_path / "nifti/imagesTr/syn_000000_0000.nii.gz"
    swapped.write_bytes((tmp_path / "nifti/imagesTr/syn_000001_0000.nii.gz").read_bytes())
    assert medaug("inspect", tmp_path / "nifti", "--json").json["problems"][0] == (
        f"{tmp_path / 'nifti'}: the files of syn_000000 are not as they were written; run the same "
        "synthesize command again, which writes them anew"
    )
    about = tmp_path / "nifti" / "run.json"
    about.write_text(about.read_text().replace('"seed": 0', '"seed": 1'))
    assert medaug("inspect", tmp_path / "nifti").err == (
        f"medaug: {about}: damaged, the content does not match its checksum\n"
    )


def test_a_failed_scan_is_named_and_the_exit_status_says_so(
    medaug: Medaug, phantom_root: Path, tmp_path: Path
) -> None:
    root = tmp_path / "scans"
    shutil.copytree(phantom_root / "Pancreas-CT", root / "Pancreas-CT")
    shutil.copytree(
        phantom_root / "TCIA_pancreas_labels-02-05-2017",
        root / "TCIA_pancreas_labels-02-05-2017",
    )
    series = sorted((root / "Pancreas-CT/PANCREAS_0002").rglob("*.dcm"))
    series[7].unlink()
    write_patient(root, 25)
    planned = medaug("prepare", root, "--size", 32, "--dry-run")
    assert planned.code == 0
    assert planned.out.endswith(" from 3 cases\n")
    assert not Path("cache").exists()
    done = medaug("prepare", root, "--size", 32, "--json")
    assert done.code == 1
    assert list(done.json["failed"]) == ["PANCREAS_0002"]
    for told in (planned.err, done.err):
        assert "excluded: PANCREAS_0025: " in told
        assert "failed: PANCREAS_0002: " in told
    assert len(done.json["done"]) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [*MAKE, "-n", "0", "--out", "x"],
            "medaug: n must be at least 1, got 0",
        ),
        (
            [*MAKE, "-n", "-5", "--out", "x"],
            "medaug: n must be at least 1, got -5",
        ),
        (
            [*MAKE, "-n", "some", "--out", "x"],
            "medaug: n must be a number such as 5000, 50Ki or 2Mi, got 'some'",
        ),
        (
            [*MAKE, "-n", "5", "--out", "x", "--shard", "8"],
            "medaug: shard must be i/k, such as 0/8 for the first of eight, got '8'",
        ),
        (
            [*MAKE, "-n", "5", "--out", "x"],
            "medaug: runs: no trained run there; train one first (medaug train --help)",
        ),
        (
            [*MAKE, "-n", "5", "--out", "x", "--run", "none"],
            "medaug: none: no such run or weight file",
        ),
        (
            ["inspect", "none"],
            "medaug: none: no such file or folder",
        ),
        (
            ["train", "--data", "phantom", "--set", "train.bach=3"],
            "medaug: config train.bach is not known; did you mean train.batch",
        ),
        (
            ["train", "--data", "phantom", "--images", "0"],
            "medaug: images must be at least 1, got 0",
        ),
        (
            ["train", "--data", "phantom", "--size", "4"],
            "medaug: config data.size: Input should be greater than or equal to 8, got 4",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_mistake_is_one_line_and_status_2(
    medaug: Medaug, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = medaug(*arguments)
    assert result.code == 2
    assert result.err == message + "\n"
    assert result.out == ""
    assert list(tmp_path.iterdir()) == []


def test_output_of_another_run_is_refused(medaug: Medaug, tiny_run: Path) -> None:
    assert medaug(*MAKE, "-n", 2, "--out", "nifti", "--run", tiny_run).code == 0
    other = medaug(*MAKE, "-n", 2, "--out", "nifti", "--run", tiny_run, "--seed", 3)
    assert other.code == 2
    assert other.err.startswith("medaug: nifti: ")
    assert "seed" in other.err


def test_an_unknown_setting_of_a_file_names_itself(medaug: Medaug, tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("trian: {batch: 3}\n")
    result = medaug("train", "--data", "phantom", "--config", path)
    assert result.code == 2
    assert result.err == "medaug: config trian is not known; did you mean train\n"


def test_the_demo_from_noise_in_small(medaug: Medaug, monkeypatch: pytest.MonkeyPatch) -> None:
    from medaug.cli import demonstration

    small = {**TINY, "train": {**TINY["train"], "images": 64}}
    monkeypatch.setattr(demonstration, "SETTINGS", small)
    monkeypatch.setattr(demonstration, "PATIENTS", 3)
    done = medaug("demo", "--out", "d", "--scratch", "-n", 3, "--json", "--device", "cpu")
    assert done.code == 0, done.err
    assert "nobody was scanned" in done.err
    assert "shipped" not in done.err
    assert Path(done.json["preview"]).exists()
    assert done.json["real"]["sound"] > 0.9


def test_a_run_is_given_masks_and_told_what_alternatives_show(
    medaug: Medaug, layout_run: Path, masks_run: Path
) -> None:
    make = [*MAKE, "-n", 3, "--run", layout_run, "--uncertainty", 2]
    for out, options, mask in (
        ("a", ["--uncertainty-source", "mask"], "a real layout deformed at strength 1"),
        ("b", ["--mask-strength", 0.5], "a real layout deformed at strength 0.5"),
        ("c", ["--masks", masks_run, "--uncertainty-source", "network"], "a layout drawn by"),
    ):
        made = medaug(*make, "--out", out, *options)
        assert made.code == 0, made.err
        with Path(out, "manifest.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert all(row["mask"].startswith(mask) for row in rows)
        source = options[-1] if "--uncertainty-source" in options else "latent"
        assert {row["uncertainty_source"] for row in rows} == {source}


def test_scans_without_labels_join_training(
    medaug: Medaug, phantom_root: Path, tmp_path: Path
) -> None:
    scans = tmp_path / "scans"
    for series in sorted(phantom_root.rglob("*.dcm")):
        place = scans / "somebody" / series.parent.parent.parent.name / series.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(series, place)
    train = ["train", "--data", phantom_root, "--run", "run", *SETTINGS, "--unlabeled", scans]
    done = medaug(*train, "--json")
    assert done.code == 0, done.err
    assert json.loads(Path("run/run.json").read_text())["unlabeled"]
    lost = medaug("train", "--data", phantom_root, "--run", "r2", *SETTINGS, "--unlabeled", "none")
    assert lost.code == 2
    assert "none: no such folder; name a folder of scans without labels" in lost.err
