"""The README's snippets run: commands as plans, Python as it stands."""

import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from medaug.cli import main

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    fences = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    return [content for kind, content in fences if kind == language]


COMMANDS = [
    shlex.split(line, comments=True) for block in blocks("bash") for line in block.splitlines()
]


@pytest.fixture
def place(
    phantom_root: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder as the README's reader has it: scans in data/, and a run."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/pancreas").symlink_to(phantom_root)
    digits = tmp_path / "data/mnist"
    digits.mkdir()
    for part in ("train", "t10k"):
        for what, head, shape in (("images", 0x803, (3, 28, 28)), ("labels", 0x801, (3,))):
            name = f"{part}-{what}-idx{len(shape)}-ubyte"
            header = np.array([head, *shape], ">u4").tobytes()
            (digits / name).write_bytes(header + np.zeros(shape, np.uint8).tobytes())
    shutil.copytree(tiny_run, tmp_path / "runs/pancreas-vaegan")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEDAUG_DATA", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    "command", [c for c in COMMANDS if c[0] == "medaug"], ids=lambda c: " ".join(c[:3])
)
def test_commands(place: Path, command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    dry = command[1] in ("train", "synthesize") and "--dry-run" not in command
    monkeypatch.setattr(sys, "argv", [*command, *(["--dry-run"] if dry else [])])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code, command


@pytest.mark.parametrize(
    "command", [c for c in COMMANDS if c[0].startswith("scripts/")], ids=lambda c: c[0]
)
def test_scripts_are_there(command: list[str]) -> None:
    script = ROOT / command[0]
    assert script.stat().st_mode & 0o111
    assert script.read_text().startswith("#!/usr/bin/env bash\n")


@pytest.mark.parametrize("code", blocks("python"))
def test_python(place: Path, code: str) -> None:
    exec(compile(code, "README.md", "exec"), {})


def test_links_and_the_picture_exist() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", TEXT):
        assert (ROOT / target).exists(), target


def test_the_folder_it_shows_is_the_folder_that_is_written(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["medaug", "synthesize", "-n", "1", "--out", "nifti"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    shown = set(re.findall(r"[\w/]+\.(?:json|csv|png|nii\.gz)\b", blocks("")[0]))
    written = {str(p.relative_to("nifti")) for p in Path("nifti").rglob("*.*") if p.name[0] != "."}
    assert shown == written
