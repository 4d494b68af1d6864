"""Archives that are not read in place are refused with the command that unpacks them."""

import shlex
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from medaug.core.errors import DataError
from medaug.data import open_source
from tests.conftest import miniature, write_label


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A task of Medical Decathlon, with what macOS leaves beside it."""
    root = tmp_path / "made" / "Task07_Pancreas"
    hu, mask = miniature(1)
    write_label(root / "imagesTr" / "pancreas_001.nii.gz", hu)
    write_label(root / "labelsTr" / "pancreas_001.nii.gz", mask)
    (root / "dataset.json").write_text(
        '{"modality": {"0": "CT"}, "labels": {"0": "background", "1": "pancreas", "2": "cancer"}}'
    )
    (root / "._dataset.json").write_bytes(b"\0\5\26\7")
    return root


def packed(task: Path, archive: Path, mode: str) -> Path:
    archive.parent.mkdir(exist_ok=True)
    with tarfile.open(archive, mode) as made:
        made.add(task / "._dataset.json", "._Task07_Pancreas")
        made.add(task, task.name)
    return archive


def refused(path: Path) -> str:
    with pytest.raises(DataError) as error:
        open_source(str(path))
    return str(error.value)


@pytest.mark.parametrize(
    ("ending", "mode"), [(".tar", "w"), (".tar.gz", "w:gz"), (".tgz", "w:gz"), (".tar.xz", "w:xz")]
)
@pytest.mark.parametrize("named", ["file", "folder"])
def test_what_a_tar_says_to_do_opens_it(
    task: Path, tmp_path: Path, ending: str, mode: str, named: str
) -> None:
    archive = packed(task, tmp_path / "my data" / f"Task07{ending}", mode)
    told = refused(archive if named == "file" else archive.parent)
    assert told.startswith(f"{archive}: an archive, and folders are opened; run ")
    command, then = told.partition("; run ")[2].split(", then name ")
    subprocess.run(shlex.split(command), check=True)
    source = open_source(then)
    assert [case.id for case in source.cases()[0]] == ["pancreas_001"]
    assert dict(source.labels) == {"pancreas": 1, "cancer": 2}


def test_a_tar_without_a_folder_gets_one(task: Path, tmp_path: Path) -> None:
    archive = tmp_path / "flat.tar"
    with tarfile.open(archive, "w") as made:
        for path in sorted(task.rglob("*.nii.gz")):
            made.add(path, path.name)
    told = refused(archive)
    folder = tmp_path / "flat"
    assert f"run mkdir -p {folder} && tar -xf {archive} -C {folder}, then name {folder}" in told


def test_a_damaged_tar_is_named(task: Path, tmp_path: Path) -> None:
    archive = packed(task, tmp_path / "a" / "x.tar.gz", "w:gz")
    archive.write_bytes(np.random.default_rng(0).bytes(999))
    assert refused(archive) == f"{archive}: not a whole tar archive; download it again"


@pytest.mark.parametrize(
    ("name", "command"),
    [("Task07.7z", "7z x {file} -o{to}"), ("TASK07.RAR", "unrar x {file} {to}")],
)
def test_7z_and_rar_name_their_program(tmp_path: Path, name: str, command: str) -> None:
    archive = tmp_path / name
    archive.write_bytes(b"7z\xbc\xaf\x27\x1c")
    to = tmp_path / archive.stem
    assert command.format(file=archive, to=to) in refused(archive)
    assert refused(archive).endswith(f"then name {to}")


def test_a_zip_of_another_collection_is_to_be_unpacked(task: Path, tmp_path: Path) -> None:
    archive = tmp_path / "amos22.zip"
    with zipfile.ZipFile(archive, "w") as made:
        for path in sorted(p for p in task.rglob("*") if p.is_file()):
            made.write(path, path.relative_to(task.parent))
    assert f"run unzip {archive} -d {tmp_path / 'amos22'}, then name" in refused(archive)


def test_what_opens_beside_an_archive_is_opened(task: Path) -> None:
    packed(task, task / "kept.tar", "w")
    assert open_source(str(task)).cases()[0]
