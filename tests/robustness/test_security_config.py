"""Config files, weight files and run folders name only what is installed, and no other place."""

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from medaug.core.batch import Shape
from medaug.core.config import parse_set, resolve
from medaug.core.errors import ConfigError, DataError, MedaugError, WeightsError
from medaug.core.registry import model
from medaug.data.formats.limits import check_beside
from medaug.models import build
from medaug.synthesis.generator import Generator
from medaug.training.checkpoint import read_header, read_tensors, write_tensors
from tests.conftest import Medaug
from tests.support.hostile import pickled

STRANGERS = [
    "os:system", "builtins:eval", "medaug.models.vae:VAE", "subprocess", "../../evil", "/tmp/evil",
    "vae.__init__", "vaegan.phased.x", "medaug.cli", "", "vae\0", "vae\n",
]  # fmt: skip


@pytest.mark.parametrize("name", STRANGERS)
def test_a_model_is_one_that_is_registered(name: str, medaug: Medaug, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        model(name)
    with pytest.raises(ConfigError):
        resolve({"model": {"name": name}})
    with pytest.raises(ConfigError):
        resolve({"model": {"preset": name}})
    if "\0" not in name:
        for words in (["--model", name], [f"--set=model.name={json.dumps(name)}"]):
            assert medaug("train", "--data", "phantom", "--dry-run", *words).code == 2
    assert [p.name for p in tmp_path.iterdir()] == []


def test_a_preset_is_no_way_to_other_files(medaug: Medaug, tmp_path: Path) -> None:
    (tmp_path / "evil-modern.yaml").write_text("train: {seed: 7}")
    (tmp_path / "vae-evil.yaml").write_text("train: {seed: 7}")
    for name, preset in ((f"{tmp_path}/evil", "modern"), ("vae", f"../{tmp_path}/vae-evil")):
        with pytest.raises(ConfigError):
            resolve({"model": {"name": name, "preset": preset}})


@pytest.mark.parametrize("name", ["../../escaped", "/tmp/escaped", "..", "a/b", "a\0b", ".hidden"])
def test_the_name_of_data_is_no_place(name: str) -> None:
    with pytest.raises(ConfigError, match=r"config data\.name"):
        resolve({"data": {"name": name}})


def test_keys_of_python_objects_are_unknown_keys() -> None:
    for key in ("train.__dict__", "__init__.x", "data.model_config", "__class__.__init__"):
        with pytest.raises(ConfigError):
            resolve(parse_set([f"{key}=1"]), {"model": {"name": "vae"}})
    for key in ("__class__", "self", "form"):
        asked = resolve(parse_set([f"model.{key}=os"]), {"model": {"name": "vae"}}).model
        with pytest.raises(ConfigError):
            build(asked.name, asked.arguments, Shape(1, 1, 32))


def altered(file: Path, target: Path, change: dict[str, Any]) -> Path:
    """A weight file with a true checksum and another header."""
    tensors, header, _ = read_tensors(file)
    header = {k: v for k, v in json.loads(json.dumps(header)).items() if k != "version"}
    for path, value in change.items():
        place = header
        *above, last = path.split(".")
        for key in above:
            place = place[key]
        place[last] = value
    write_tensors(target, tensors, header)
    return target


ABSURD = [
    {"config.model.name": "os:system"},
    {"config.model.name": "../../evil"},
    {"config.model.width": 10**9},
    {"config.model.width": 60_000},
    {"config.model.width": -1},
    {"config.model.width": "__import__('os')"},
    {"shape.size": 2**20},
    {"shape.channels": 10**7},
    {"shape": []},
    {"shape": {"evil": 1}},
    {"config": None},
    {"config.model": {}},
    {"classes": 3},
]


@pytest.mark.parametrize("change", ABSURD, ids=lambda change: "-".join(change))
def test_a_header_that_announces_anything_is_refused(
    change: dict[str, Any], tiny_run: Path, tmp_path: Path
) -> None:
    file = altered(tiny_run / "model.safetensors", tmp_path / "w.safetensors", change)
    with pytest.raises(MedaugError):
        Generator.from_pretrained(file, "cpu")


def test_a_sparse_file_of_terabytes_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", 2**40) + b"{")
        stream.truncate(2**41)
    with pytest.raises(WeightsError, match="not a safetensors file"):
        read_header(file)


def everything(root: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("place", ["../../outside", "/outside", "../../outside\0", "~"])
def test_a_run_that_names_other_places_writes_nowhere_else(
    place: str, medaug: Medaug, tiny_run: Path, phantom_cache: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    run = home / "runs" / "run"
    shutil.copytree(tiny_run, run)
    shutil.copytree(phantom_cache, home / "outside")
    facts = json.loads((run / "run.json").read_text())
    named = str(home / "outside") if place == "/outside" else place
    facts |= {"_cache": named, "_unlabeled": named}
    (run / "run.json").write_text(json.dumps(facts))
    before = everything(home / "outside")
    done = medaug("synthesize", "-n", 1, "--out", "out", "--run", run, "--device=cpu",
                  "--no-filter")  # fmt: skip
    assert done.code in (0, 2), done.err
    assert "Traceback" not in done.err
    assert everything(home / "outside") == before
    assert {p.name for p in tmp_path.iterdir()} <= {"home", "out"}
    assert {p.name for p in home.iterdir()} == {"outside", "runs"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.mhd", "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_SHORT\n"
                  "ElementDataFile = {}\n"),
        ("a.mha", "NDims = 3\nDimSize = 2 2 2\nElementType = MET_SHORT\n"
                  "  ElementDataFile=LIST\n{}\n"),
        ("a.nhdr", "NRRD0004\ntype: short\ndimension: 3\nsizes: 2 2 2\nencoding: raw\n"
                   "data file: {}\n\n"),
        ("a.nrrd", "NRRD0004\ntype: short\ndimension: 3\nsizes: 2 2 2\nencoding: raw\n"
                   "datafile: LIST\n{}\n"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("target", ["../secret.raw", "/etc/passwd", "sub/../../secret.raw"])
def test_a_header_reads_no_file_of_another_folder(
    name: str, text: str, target: str, tmp_path: Path
) -> None:
    (tmp_path / "secret.raw").write_bytes(bytes(16))
    file = tmp_path / "scans" / name
    file.parent.mkdir()
    file.write_text(text.format(target))
    with pytest.raises(DataError, match="outside its own folder"):
        check_beside(file)
    (file.parent / "voxels.raw").write_bytes(bytes(16))
    file.write_text(text.format("voxels.raw"))
    check_beside(file)


def test_a_header_without_end_is_refused(tmp_path: Path) -> None:
    for name, start in (("a.nrrd", b"NRRD0004\n"), ("a.mhd", b"NDims = 3\n")):
        (tmp_path / name).write_bytes(start + b"# filler\n" * 200_000 + b"data file: ../x\n")
        with pytest.raises(DataError, match="has a header of more than"):
            check_beside(tmp_path / name)


def test_weights_are_tensors_and_json_alone(tiny_run: Path, tmp_path: Path) -> None:
    content = (tiny_run / "model.safetensors").read_bytes()
    assert not any(mark in content[:200] for mark in (b"PK\3\4", b"\x80\4", b"\x80\2"))
    tensors, header, _ = read_tensors(tiny_run / "model.safetensors")
    assert all(type(value) is torch.Tensor for value in tensors.values())
    assert json.loads(json.dumps(header)) == header
    (tmp_path / "w.safetensors").write_bytes(pickled(tmp_path / "canary"))
    with pytest.raises(WeightsError, match="a pickle"):
        read_header(tmp_path / "w.safetensors")
