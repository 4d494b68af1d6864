"""The hammers of scripts/torture in short, and that they notice what is lost."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.script_modules import modules_of

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts" / "torturing"
HAMMERS = [
    *("kill", "terminate", "full", "readonly", "flip", "nan"),
    *("double", "clock", "descriptors", "filesize", "memory"),
]


@pytest.fixture
def part() -> Iterator[Callable[[str], Any]]:
    """Imports a file of the script."""
    with modules_of("torturing") as module:
        yield module


def torture(work: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT / "tests" / "support"), str(ROOT)])
    return subprocess.run(
        [sys.executable, SCRIPTS / "torture.py", "--quick", "--work", work, *words],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("hammers", "strikes"), [(("kill", "flip"), 1), (("nan", "full", "descriptors"), 1)]
)
def test_nothing_is_lost(hammers: tuple[str, ...], strikes: int, tmp_path: Path) -> None:
    done = torture(tmp_path, "--strikes", str(strikes), *hammers)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "results" / "torture.json").read_text())
    total = told["total"]
    assert total["tried"] == total["survived"] > 0
    assert (total["lost"], total["hung"], total["tracebacks"]) == (0, 0, 0)
    assert {*told["hammers"], *told["left_out"]} == {*hammers}
    assert "| all |  |" in (tmp_path / "results" / "torture.md").read_text()


@pytest.mark.slow
def test_nothing_is_lost_to_any_hammer(tmp_path: Path) -> None:
    done = torture(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_hammers_are_listed(tmp_path: Path) -> None:
    done = torture(tmp_path, "--list")
    assert [line.split()[0] for line in done.stdout.splitlines()] == HAMMERS
    assert torture(tmp_path, "hug").returncode == 2


def test_a_hang_and_a_traceback_are_seen(part: Any, tmp_path: Path) -> None:
    process = part("process")
    asleep = process.Command(["models"], before=lambda: time.sleep(60))
    end = process.Running(asleep, tmp_path / "a").wait(0.3)
    assert end.hung
    assert end.seconds < 30
    wrong = process.run(process.Command(["models"], before=lambda: 1 / 0), tmp_path / "b")
    assert (wrong.code, wrong.traceback, wrong.hung) == (1, True, False)
    unknown = process.run(process.Command(["evaluate", "--families", "x"]), tmp_path / "c")
    assert unknown.code == 2
    assert not unknown.traceback


COVERED = [
    "checkpoints/1.safetensors",
    "checkpoints/2.safetensors",
    "parts/a.json",
    "parts/drawn-b",
]


@pytest.mark.parametrize(
    ("flipped", "taken"),
    [
        ("checkpoints/1.safetensors", ["checkpoints/2.safetensors"]),
        ("checkpoints/2.safetensors", []),
        ("checkpoints/0.safetensors", []),
        ("parts/drawn-b", ["parts/a.json"]),
        ("parts/a.json", []),
    ],
)
def test_what_keeps_a_flipped_file_from_being_read_is_taken_away(
    part: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flipped: str, taken: list[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "support"))
    for name in COVERED:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    uncovered = part("spoiled")._uncovered(tmp_path, f"{flipped}: bit 7 of byte 5 of 9")
    assert uncovered == bool(taken)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("*/*")}
    assert left == set(COVERED) - set(taken)


def test_a_difference_is_a_loss(part: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "support"))
    trial, process = part("victims"), part("process")
    assert trial.difference({"a": "1"}, {"a": "1"}) == ""
    told = trial.difference({"a": "1", "b": "2"}, {"a": "3", "c": "4"})
    assert told == "a differs; b missing; c left over"
    end = process.End(0, 1.0, "")
    trials = [trial.Trial("x", "one", "", [end]), trial.Trial("x", "two", told, [end], "midway")]
    found = trial.counted(trials)
    counts = {"tried": 2, "survived": 1, "lost": 1, "hung": 0, "tracebacks": 0}
    assert found["groups"] == {"x": {**counts, "notes": {"midway": 1}}}
    assert found["losses"][0]["lost"] == told


def test_what_was_counted_is_not_tried_again(
    part: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "support"))
    torture, trial, process = part("torture"), part("victims"), part("process")
    place = tmp_path / "kill.json"
    trials = [trial.Trial("x", "one", "", [process.End(0, 1.0, "")], "midway")]
    told = torture.struck("kill", iter(trials), place)
    assert told["groups"]["x"]["survived"] == 1
    assert torture.struck("kill", (1 / 0 for _ in range(1)), place) == told
    assert {**told, "seconds": 0} == {**trial.counted(trials), "seconds": 0}
