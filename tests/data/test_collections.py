"""Folders are recognised by looking at them, and NIfTI collections paired by name."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from medaug.data import open_source
from medaug.data.sources.collections import Collection, open_collection
from medaug.data.sources.pancreas import PancreasCT
from medaug.training.workflow import plan
from tests.conftest import miniature, write_label
from tests.support.refusals import refused


def write_pair(image: Path, label: Path | None, seed: int) -> None:
    hu, mask = miniature(seed)
    write_label(image, hu)
    if label is not None:
        write_label(label, mask)


def named(root: Path) -> list[tuple[str, str, str]]:
    source = open_source(str(root))
    assert isinstance(source, Collection)
    cases, problems = source.cases()
    assert problems == []
    return [(c.id, c.image[0].name, c.label.files[0].name if c.label else "") for c in cases]


def test_a_folder_is_called_by_its_layout_in_letters_a_shell_leaves_alone(tmp_path):
    root = tmp_path / "Doe, Jane"
    write_pair(root / "a.nii.gz", root / "a_label.nii.gz", 1)
    source = open_source(str(root))
    assert source.name == "side by side"
    planned = plan(source, str(root), {})
    assert re.fullmatch(r"side-by-side-[0-9a-f]{8}-128px-400mm", planned.cache.name)
    assert re.fullmatch(r"side-by-side-[0-9a-f]{8}-spatial_vaegan", planned.run.name)


def test_nnunet_layout(tmp_path):
    for seed in (2, 1):
        write_pair(
            tmp_path / "imagesTr" / f"case_{seed:03d}_0000.nii.gz",
            tmp_path / "labelsTr" / f"case_{seed:03d}.nii.gz",
            seed,
        )
    (tmp_path / "imagesTr" / "._case_001_0000.nii.gz").write_bytes(b"junk")
    (tmp_path / "dataset.json").write_text(
        json.dumps({"labels": {"background": 0, "pancreas": 1, "tumour": 2}})
    )
    assert named(tmp_path) == [
        ("case_001", "case_001_0000.nii.gz", "case_001.nii.gz"),
        ("case_002", "case_002_0000.nii.gz", "case_002.nii.gz"),
    ]
    assert open_collection(tmp_path).labels == {"pancreas": 1, "tumour": 2}


def test_decathlon_layout(tmp_path):
    """Names may end in four digits that are no channel."""
    write_pair(
        tmp_path / "imagesTr" / "amos_0001.nii.gz", tmp_path / "labelsTr/amos_0001.nii.gz", 1
    )
    (tmp_path / "dataset.json").write_text(
        json.dumps({"labels": {"0": "background", "1": "pancreas", "2": "cancer"}})
    )
    assert named(tmp_path) == [("amos_0001", "amos_0001.nii.gz", "amos_0001.nii.gz")]
    assert open_collection(tmp_path).labels == {"pancreas": 1, "cancer": 2}


def test_plain_folders_and_pairs_side_by_side(tmp_path):
    write_pair(tmp_path / "a" / "images" / "x.nii", tmp_path / "a" / "labels" / "x.nii.gz", 1)
    assert named(tmp_path / "a") == [("x", "x.nii", "x.nii.gz")]
    write_pair(tmp_path / "b" / "x.nii.gz", tmp_path / "b" / "x_label.nii.gz", 1)
    assert named(tmp_path / "b") == [("x", "x.nii.gz", "x_label.nii.gz")]
    assert open_collection(tmp_path / "b").labels == {"label_1": 1}


def test_what_cannot_be_paired_is_named(tmp_path):
    write_pair(tmp_path / "images" / "a.nii.gz", tmp_path / "labels" / "a.nii.gz", 1)
    write_pair(tmp_path / "images" / "b.nii.gz", None, 2)
    write_pair(tmp_path / "images" / "c_0000.nii.gz", tmp_path / "labels" / "c.nii.gz", 3)
    write_pair(tmp_path / "images" / "c_0001.nii.gz", None, 3)
    write_pair(tmp_path / "images" / "d.nii.gz", tmp_path / "labels" / "d.nii.gz", 4)
    (tmp_path / "images" / "d.nii.gz").write_text("<html>")
    write_pair(tmp_path / "images" / "e.nii.gz", None, 5)
    write_label(tmp_path / "labels" / "e.nii.gz", miniature(5, (48, 40, 12))[1])
    cases, problems = open_collection(tmp_path).cases()
    assert [(c.id, c.label is None) for c in cases] == [("a", False), ("b", True)]
    assert [str(p) for p in problems] == [
        "c: 2 images (c_0000.nii.gz, c_0001.nii.gz); one channel of CT is needed",
        "d: d.nii.gz is not a NIfTI file",
        "e: label has shape (48, 40, 12), image (48, 40, 16); "
        "pair by PatientID, not by list position",
    ]


def test_a_strange_dataset_json_is_refused(tmp_path):
    write_pair(tmp_path / "images" / "a.nii.gz", tmp_path / "labels" / "a.nii.gz", 1)
    (tmp_path / "dataset.json").write_text('{"labels": ["background"]}')
    with refused(
        f"{tmp_path / 'dataset.json'}: no labels as name: id (nnU-Net) or id: name (Decathlon) "
        "in it"
    ):
        open_collection(tmp_path)


def test_nothing_there(tmp_path, monkeypatch):
    monkeypatch.delenv("MEDAUG_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    known = "pancreas, mnist, fashion-mnist, phantom"
    with refused(f"scans: no such folder, and not one of {known}"):
        open_source("scans")
    Path("scans").write_text("")
    with refused(f"scans: a file, not a folder, and not one of {known}"):
        open_source("scans")
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / ".DS_Store").write_text("")
    with refused(f"{empty}: the folder is empty"):
        open_source(str(empty))
    (empty / "notes.txt").write_text("")
    with refused(
        f"{empty}: nothing in it is known; looked for Pancreas-CT (PANCREAS_0001/.../*.dcm), "
        "imagesTr + labelsTr (nnU-Net, Decathlon, AMOS, WORD), s0000/ct.nii.gz + segmentations "
        "(TotalSegmentator), img + label (BTCV), images + labels or masks, case.nii.gz beside "
        "case_label.nii.gz, volume files (.nii.gz, .nii, .nrrd, .mha, .mhd) and DICOM series, "
        "idx files (train-images-idx3-ubyte, ...) and pictures (PNG, JPEG, CIFAR-10 binaries)"
    ):
        open_source(str(empty))


def test_a_name_without_its_data_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.delenv("MEDAUG_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    with refused(
        "pancreas: no folder data/pancreas (nor $MEDAUG_DATA set to a folder that has it); get the "
        "data with medaug download pancreas --root data/pancreas, or name its folder with --root"
    ):
        open_source("pancreas")
    with refused(
        "mnist: no folder nowhere; get the data with medaug download mnist --root nowhere, or name "
        "its folder with --root"
    ):
        open_source("mnist", Path("nowhere"))


def test_a_name_is_looked_up_in_medaug_data_first(collection, tmp_path, monkeypatch):
    collection(1, root=tmp_path / "elsewhere" / "pancreas")
    monkeypatch.setenv("MEDAUG_DATA", str(tmp_path / "elsewhere"))
    source = open_source("pancreas")
    assert isinstance(source, PancreasCT)
    assert source.root == tmp_path / "elsewhere" / "pancreas"


def test_importing_sources_is_light():
    code = "import sys, medaug.data; print({'torch', 'monai', 'numpy'} & set(sys.modules))"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert found.stdout.strip() == "set()", found.stderr


@pytest.mark.real
def test_a_real_scan_from_elsewhere(real_data, tmp_path):
    """TotalSegmentator's example in RAS, its pancreas kept as the only label."""
    folder = real_data / "totalsegmentator-example"
    image = next(p for p in folder.rglob("*.nii.gz") if "seg" not in p.name and "ct" in p.name)
    label = next(p for p in folder.rglob("pancreas.nii.gz"))
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    (tmp_path / "images" / "s.nii.gz").write_bytes(image.read_bytes())
    (tmp_path / "labels" / "s.nii.gz").write_bytes(label.read_bytes())
    assert named(tmp_path) == [("s", "s.nii.gz", "s.nii.gz")]
