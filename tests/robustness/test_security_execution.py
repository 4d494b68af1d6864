"""No file that is read runs code: pickles in every disguise and YAML tags."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from medaug.core.config import read_yaml
from medaug.core.errors import CacheError, ConfigError, DataError, MedaugError, WeightsError
from medaug.data.cache.store import SliceCache, sealed_case, unsealed_case
from medaug.evaluation import saved_parts
from medaug.evaluation.downstream import synthesis
from medaug.evaluation.features.script import Script
from medaug.evaluation.slices import from_run
from medaug.runtime.files import write_checked
from tests.conftest import TINY, Medaug
from tests.support.hostile import FORMS, object_array, object_arrays, pickled, plant, torch_zip


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@pytest.mark.parametrize("form", FORMS)
def test_the_canary_is_left_by_a_library_that_trusts(
    form: str, tmp_path: Path, canary: Path
) -> None:
    file = tmp_path / f"planted.{form}"
    file.write_bytes(FORMS[form](canary))
    if form == "pkl":
        pickle.loads(file.read_bytes())
    elif form in ("pt", "pth"):
        torch.load(file, weights_only=False)
    else:
        found = np.load(file, allow_pickle=True)
        if form == "npz":
            found["image"]
    assert canary.exists()


@pytest.mark.parametrize("form", FORMS)
def test_no_command_runs_a_pickle_that_it_is_given(
    form: str, medaug: Medaug, tmp_path: Path, canary: Path, phantom_cache: Path
) -> None:
    file = tmp_path / f"planted.{form}"
    for name in (file, file.with_suffix(".safetensors"), file.with_suffix(".zip")):
        name.write_bytes(FORMS[form](canary))
        config = tmp_path / "extractors.yaml"
        config.write_text(f"extractors: [{name}]")
        commands = [
            ("inspect", name),
            ("synthesize", "-n", 1, "--out", "out", "--run", name),
            ("train", "--data", phantom_cache, "--init", name, "--run", "run", "--device", "cpu"),
            ("prepare", name),
            ("train", "--data", phantom_cache, "--config", name),
        ]
        for command in commands:
            done = medaug(*command)
            assert done.code in (1, 2), (command, done.out, done.err)
            assert "Traceback" not in done.err
            assert not canary.exists(), command
        with pytest.raises(MedaugError):
            Script(name, (-160.0, 240.0))
        assert not canary.exists()


def test_pickles_beside_real_scans_are_left_alone(
    medaug: Medaug, phantom_root: Path, tmp_path: Path, canary: Path
) -> None:
    root = tmp_path / "scans"
    shutil.copytree(phantom_root, root)
    for folder in [root, *(p for p in root.rglob("*") if p.is_dir())]:
        plant(folder, canary)
    assert medaug("prepare", root, "--cache", "cache", "--size", 32, "--workers", 0).code == 0
    assert medaug("inspect", root, "--out", "page.html").code == 0
    assert medaug("inspect", "cache").code == 0
    assert not canary.exists()


@pytest.mark.parametrize("layout", ["folders", "side by side", "folder each", "organs"])
def test_pickles_in_the_place_of_images_and_labels_are_refused(
    layout: str, medaug: Medaug, tmp_path: Path, canary: Path
) -> None:
    names = {
        "folders": ("images/a.nii.gz", "labels/a.nii.gz"),
        "side by side": ("a.nii", "a_label.nii"),
        "folder each": ("a/scan.nrrd", "a/label.nrrd"),
        "organs": ("a/ct.nii.gz", "a/segmentations/liver.nii.gz"),
    }[layout]
    for form in FORMS:
        root = tmp_path / form
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(FORMS[form](canary))
        done = medaug("prepare", root, "--cache", root / "cache")
        assert done.code == 2, done.err
        assert "Traceback" not in done.err
    assert not canary.exists()


@pytest.mark.parametrize("name", ["data_batch_1", "test_batch", "batches.meta"])
def test_cifar_for_python_is_refused_unread(
    name: str, medaug: Medaug, tmp_path: Path, canary: Path
) -> None:
    for part in ("data_batch_1", "test_batch", "batches.meta"):
        (tmp_path / part).write_bytes(pickled(canary))
    assert medaug("prepare", tmp_path, "--cache", tmp_path / "cache").code == 2
    assert not canary.exists()


def test_a_cache_of_python_objects_is_refused(
    phantom_cache: Path, tmp_path: Path, canary: Path
) -> None:
    for number, content in enumerate((object_array(canary), pickled(canary), torch_zip(canary))):
        for name in ("image.npy", "label.npy", "classes.npy", "attributes.npy"):
            place = tmp_path / f"cache-{number}-{name}"
            shutil.copytree(phantom_cache, place)
            case = next(iter(SliceCache.open(place).cases))
            file = place / "cases" / case / "case.json"
            told = unsealed_case(json.loads(file.read_text()))
            told["bytes"][name] = len(content)
            file.write_text(json.dumps(sealed_case(told)))
            (place / "cases" / case / name).write_bytes(content)
            with pytest.raises(CacheError, match=f"{name}: "):
                getattr(SliceCache.open(place).cases[case], name.removesuffix(".npy"))
    assert not canary.exists()


def test_checkpoints_that_are_pickles_are_refused(
    medaug: Medaug, phantom_cache: Path, tiny_run: Path, tmp_path: Path, canary: Path
) -> None:
    for form, content in FORMS.items():
        run = tmp_path / form
        shutil.copytree(tiny_run, run)
        for file in (*run.glob("checkpoints/*"), run / "model.safetensors"):
            file.write_bytes(content(canary))
        settings = [
            f"--set={section}.{key}={value}".replace(" ", "")
            for section, values in TINY.items()
            for key, value in values.items()
        ]
        settings.append("--set=data.name=pancreas")
        trained = medaug("train", "--data", phantom_cache, "--run", run, "--device=cpu", *settings)
        assert trained.code == 2
        assert "checkpoints is sound" in trained.err
        assert medaug("synthesize", "-n", 1, "--out", "out", "--run", run).code == 2
        assert medaug("inspect", run).code == 1
    assert not canary.exists()


def test_kept_arrays_of_python_objects_are_refused(tmp_path: Path, canary: Path) -> None:
    file = tmp_path / "part.npz"
    for content in (object_arrays(canary, "image", "0-0-0"), pickled(canary), torch_zip(canary)):
        write_checked(file, content)
        assert from_run._chunk(file) is None
        file.write_bytes(content)
        with pytest.raises(DataError, match="damaged; delete it"):
            synthesis.kept(file)
        picture = {"title": "t", "caption": "c", "cells": [1], "row_names": []}
        told = {"version": saved_parts.VERSION, "key": "k", "pictures": [picture]}
        (tmp_path / "part.json").write_text(json.dumps(told))
        write_checked(file, content)
        assert saved_parts.load(tmp_path, "part", "k") is None
    assert not canary.exists()


TAGS = [
    "!!python/object/apply:os.mkdir [{}]",
    "!!python/object/new:os.mkdir [{}]",
    "!!python/name:os.mkdir",
    "!!python/module:os",
    "model: {{name: !!python/object/apply:os.mkdir [{}]}}",
    "model: &a {{name: vae, width: !!python/object/apply:subprocess.call [[mkdir, {}]]}}",
]


@pytest.mark.parametrize("text", TAGS)
def test_yaml_tags_make_no_objects(text: str, medaug: Medaug, tmp_path: Path, canary: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(text.format(canary))
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_yaml(config)
    for words in (["--config", config], ["--set", f"train.seed={text.format(canary)}"]):
        done = medaug("train", "--data", "phantom", "--run", "run", "--dry-run", *words)
        assert done.code == 2
    assert not canary.exists()


def test_a_damaged_script_is_refused(tmp_path: Path) -> None:
    file, window = tmp_path / "features.ts", (-160.0, 240.0)
    network = torch.jit.trace(torch.nn.Flatten(), torch.zeros(1, 3, 8, 8))
    torch.jit.save(network, file)
    assert Script(file, window)(np.zeros((2, 8, 8), np.int16)).shape == (2, 192)
    good = file.read_bytes()
    for spoiled in (good[:-9], good[9:], good[: len(good) // 2], b""):
        file.write_bytes(spoiled)
        with pytest.raises(WeightsError, match=r"features\.ts: not a TorchScript file"):
            Script(file, window)
