"""The snippets of README, quickstart and report run: commands as plans, Python as it stands."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from medaug.cli import main
from medaug.training.workflow import train
from tests.support import downloading
from tests.support import web as served

ROOT = Path(__file__).parents[2]
TRAINING = ("README.md", "docs/quickstart.md")
"""Pages that make the runs they name."""
PAGES = (*TRAINING, "docs/report.md")
TEXT = {page: (ROOT / page).read_text() for page in PAGES}
RUNS = ("pancreas-spatial_vaegan", "scans", "scans-64")
"""Runs on scans that the pages name."""


def blocks(page: str, language: str) -> list[str]:
    fences = re.findall(r"^```(\w*)\n(.*?)^```", TEXT[page], re.DOTALL | re.MULTILINE)
    return [content for kind, content in fences if kind == language]


def commands(page: str) -> list[list[str]]:
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines]


COMMANDS = [command for page in PAGES for command in commands(page)]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with twenty digits in the real layout, their cache, and a run on them."""
    root = tmp_path_factory.mktemp("digits")
    files = root / "data/mnist"
    files.mkdir(parents=True)
    for part in ("train", "t10k"):
        for what, head, shape in (("images", 0x803, (20, 28, 28)), ("labels", 0x801, (20,))):
            name = f"{part}-{what}-idx{len(shape)}-ubyte"
            header = np.array([head, *shape], ">u4").tobytes()
            content = np.resize(np.arange(10, dtype=np.uint8), shape)
            (files / name).write_bytes(header + content.tobytes())
    tiny = {"model": {"name": "vae", "width": 8, "latent_dim": 4}, "train": {"images": 64}}
    places = {"root": files, "cache": root / "cache/mnist", "run": root / "runs/mnist-vae"}
    train("mnist", tiny, device="cpu", workers=0, **places)
    return root


@pytest.fixture
def place(
    phantom_root: Path,
    phantom_cache: Path,
    tiny_run: Path,
    digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A folder as a reader has it: scans and digits in data/, own scans, and a run on each."""
    shutil.copytree(digits, tmp_path, dirs_exist_ok=True)
    for folder in ("data/pancreas", "scans"):
        (tmp_path / folder).symlink_to(phantom_root)
    for cache in ("pancreas-128px-400mm", "scans"):
        (tmp_path / "cache" / cache).symlink_to(phantom_cache)
    for run in RUNS:
        shutil.copytree(tiny_run, tmp_path / "runs" / run)
    learned = json.loads((tiny_run / "run.json").read_text())["_cache"]  # relative to the run
    beside = Path(os.path.normpath(tmp_path / "runs" / RUNS[0] / learned))
    beside.parent.mkdir(exist_ok=True)
    beside.symlink_to(phantom_cache)
    monkeypatch.chdir(tmp_path)
    for name in ("MEDAUG_DATA", "MEDAUG_CACHE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.parametrize(
    "command", [c for c in COMMANDS if c[:1] == ["medaug"]], ids=lambda c: " ".join(c[:3])
)
@pytest.mark.usefixtures("no_proxies")
def test_commands(
    place: Path,
    command: list[str],
    web: served.Web,
    nbia: served.Nbia,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planned = ("demo", "download", "train", "synthesize", "evaluate", "downstream")
    more = ["--dry-run"] if command[1] in planned and "--dry-run" not in command else []
    if command[1] == "download":
        more += downloading.words(downloading.settings(web, nbia))
    monkeypatch.setattr(sys, "argv", [*command, *more])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code, command


@pytest.mark.long
@pytest.mark.parametrize("command", [c for c in COMMANDS if c[:1] == ["torchrun"]])
def test_torchrun_starts_it(place: Path, command: list[str]) -> None:
    words = [sys.executable, "-m", "torch.distributed.run", *command[1:], "--dry-run"]
    done = subprocess.run(words, cwd=place, env={**os.environ, "PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("config:") == 1


def test_jobs_are_there() -> None:
    jobs = [command[1] for command in COMMANDS if command[:1] == ["sbatch"]]
    assert all((ROOT / job).read_text().startswith("#!/bin/bash\n") for job in jobs)


def test_every_command_is_tried() -> None:
    kinds = {command[0] for command in COMMANDS if command}
    others = {"scripts/demo", "scripts/test", "python3", "source", "pip"}
    assert kinds - others == {"medaug", "torchrun", "sbatch"}


@pytest.mark.parametrize("page", TRAINING)
def test_the_runs_and_caches_it_names_are_those_that_it_makes(
    place: Path, page: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = []
    for command in commands(page):
        if command[:2] == ["medaug", "train"]:
            monkeypatch.setattr(sys, "argv", [*command, "--dry-run", "--json"])
            with pytest.raises(SystemExit):
                main()
            made.append(json.loads(capsys.readouterr().out))
    assert set(re.findall(r"runs/[\w-]+", TEXT[page])) == {plan["run"] for plan in made}
    assert set(re.findall(r"cache/[\w-]+", TEXT[page])) <= {plan["cache"] for plan in made}


def test_the_extras_it_names_exist() -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    pages = [page.read_text() for page in files]
    named = {
        extra
        for page in pages
        for found in re.findall(r"'\.\[([\w,]+)\]'", page)
        for extra in found.split(",")
    }
    assert {"dicom", "codecs", "dp"} <= named <= known.keys()
    assert not any("install medaug[" in page for page in pages)


@pytest.mark.parametrize(
    "command", [c for c in COMMANDS if c and c[0].startswith("scripts/")], ids=lambda c: c[0]
)
def test_scripts_are_there(command: list[str]) -> None:
    script = ROOT / command[0]
    assert script.stat().st_mode & 0o111
    assert script.read_text().startswith("#!/usr/bin/env bash\n")


@pytest.mark.parametrize(
    ("page", "code"), [(page, code) for page in PAGES for code in blocks(page, "python")]
)
def test_python(place: Path, page: str, code: str) -> None:
    exec(compile(code, page, "exec"), {})


@pytest.mark.parametrize("page", PAGES)
def test_links_and_the_picture_exist(page: str) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", TEXT[page]):
        assert ((ROOT / page).parent / target).exists(), target


def test_the_folder_it_shows_is_the_folder_that_is_written(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = "medaug synthesize -n 1 --out nifti --run runs/pancreas-spatial_vaegan --no-filter"
    monkeypatch.setattr(sys, "argv", command.split())
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    shown = set(re.findall(r"[\w/]+\.(?:json|csv|png|nii\.gz)\b", blocks("README.md", "")[0]))
    written = {str(p.relative_to("nifti")) for p in Path("nifti").rglob("*.*") if p.name[0] != "."}
    assert shown == written
