"""Only ``medaug download`` opens a connection: every other command runs where none can be made."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import medaug
from tests.conftest import TINY

BLOCK = """
import sys

NAMES = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}
ADDRESSES = {"socket.connect", "socket.sendto"}

def refuse(event, arguments):
    away = event in ADDRESSES and not isinstance(arguments[-1], (str, bytes))
    if away or event in NAMES:
        raise ConnectionRefusedError(f"the network was touched: {event} {arguments[1:]}")

sys.addaudithook(refuse)
"""
"""Installed in every process of the test, workers included; addresses that are text are local."""

RUN = """
import json, sys, warnings
from medaug import cli
from medaug.cli import demonstration

demonstration.PATIENTS, demonstration.SETTINGS = 3, json.loads(sys.argv[2])
for command in json.loads(sys.argv[1]):
    sys.argv = ["medaug", *command]
    code = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = stop.code
    print("ended", command[0], code or 0, flush=True)
"""


@pytest.fixture(scope="module")
def blocked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which no process can reach a network."""
    folder = tmp_path_factory.mktemp("blocked")
    (folder / "sitecustomize.py").write_text(BLOCK)
    paths = [str(folder), str(Path(medaug.__file__).parents[1])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def test_the_block_blocks(blocked: dict[str, str], tmp_path: Path) -> None:
    code = "import urllib.request as u; u.urlopen('http://127.0.0.1:9/')"
    tried = subprocess.run(
        [sys.executable, "-c", code], env=blocked, capture_output=True, text=True
    )
    assert "the network was touched: socket.getaddrinfo" in tried.stderr
    ask = "download", "mnist", "--root", "d", "--yes", "--set", "download.attempts=1"
    tried = subprocess.run(
        [sys.executable, "-m", "medaug", *ask],
        env=blocked,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert tried.returncode == 2
    assert "run the same command again later" in tried.stderr


def test_no_other_command_touches_the_network(
    blocked: dict[str, str], phantom_root: Path, tmp_path: Path
) -> None:
    tiny = [w for k, v in TINY["model"].items() for w in ("--set", f"model.{k}={json.dumps(v)}")]
    few = ["--device", "cpu", "--workers", "1"]
    cpu = ["--device", "cpu"]
    known = ["--data", "c", "--run", "r", "--images", "48", "--set", "train.batch=8"]
    commands = [
        ["prepare", str(phantom_root), "--cache", "c", "--size", "32", "--workers", "2"],
        ["train", *known, *tiny, *cpu],
        ["synthesize", "-n", "6", "--out", "s", "--run", "r", "--uncertainty", "2", "--no-filter",
         "--with-real", "c", *cpu],
        ["evaluate", "--out", "e", "--synthetic", "s", "--against", "c", *cpu],
        ["explore", "r", "--reconstruct", "--cache", "c", "--rows", "2", "--out", "x.png", *cpu],
        ["inspect", "r"],
        ["models"],
        ["nnunet-splits", "s", "--folds", "2"],
        ["downstream", "--data", "c", "--out", "d", "-n", "2", "--subsets", "1", "--arms",
         "standard", "--steps", "2", "--set", "downstream.resamples=100", *few],
        ["demo", "--out", "demo", "--scratch", "-n", "3", *cpu],
    ]  # fmt: skip
    from medaug.cli import app

    names = {info.name or str(info.callback.__name__) for info in app.registered_commands}
    assert {command[0] for command in commands} == names - {"download"}
    small = {**TINY, "train": {**TINY["train"], "images": 64}}
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(commands), json.dumps(small)],
        env=blocked,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    ended = [line for line in done.stdout.splitlines() if line.startswith("ended ")]
    assert ended == [f"ended {command[0]} 0" for command in commands], done.stderr
    assert "the network was touched" not in done.stderr


def test_one_module_imports_what_opens_connections() -> None:
    package = Path(medaug.__file__).parent
    networked = {"urllib3", "requests", "httpx", "aiohttp", "socket", "ftplib", "http", "urllib"}
    found = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            used = [n for n in names if n.split(".")[0] in networked and n != "urllib.parse"]
            if used:
                found.add(str(path.relative_to(package)))
    assert found == {"data/download/http.py"}
