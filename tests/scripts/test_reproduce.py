"""The tables of generators are made, kept and refused as they say, on random pictures."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts" / "reproducing"
Table = Callable[..., str]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two thousand blurred dots a part, their class by the half they lie in."""
    root = tmp_path_factory.mktemp("files")
    (root / "mnist").mkdir()
    draws = np.random.default_rng(0)
    for part in ("train", "t10k"):
        x, y = draws.integers(4, 24, (2, 2000))
        grid = np.arange(28)
        across = np.exp(-((grid[None] - x[:, None]) ** 2) / 8)
        down = np.exp(-((grid[None] - y[:, None]) ** 2) / 8)
        images = (255 * down[:, :, None] * across[:, None]).astype(np.uint8)
        contents = (("images", 0x803, images), ("labels", 0x801, (x * 10 // 28).astype(np.uint8)))
        for what, head, content in contents:
            name = f"{part}-{what}-idx{content.ndim}-ubyte"
            header = np.array([head, *content.shape], ">u4").tobytes()
            (root / "mnist" / name).write_bytes(header + content.tobytes())
    return root


@pytest.fixture
def table(
    pictures: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Table:
    """Call a script with quick settings; the text of its table."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setenv("MEDAUG_TEST_DATA", str(pictures))
    work = tmp_path_factory.getbasetemp() / "reproduce"

    def call(name: str, *options: str) -> str:
        module: Any = __import__(name)
        quick = ["--quick", "--data", "mnist", "--device", "cpu", "--work", str(work)]
        results = ["--results", str(work / "results")]
        monkeypatch.setattr(sys, "argv", [name, *quick, *results, *options])
        assert module.main() == 0
        return (work / "results" / f"{name}-quick.md").read_text()

    return call


@pytest.mark.slow
def test_rows_are_kept_and_not_mixed(table: Table, tmp_path_factory: Any) -> None:
    asked = ("--models", "vae", "--presets", "author", "--images", "64")
    text = table("digits", *asked)
    assert "| *real* |" in text
    assert "| vae | author | 64 (short) |" in text
    work = tmp_path_factory.getbasetemp() / "reproduce"
    (row,) = (work / "quick" / "rows").glob("*.json")
    written = row.stat().st_mtime_ns
    again = table("digits", *asked)
    assert again == text
    assert row.stat().st_mtime_ns == written
    kept = json.loads((work / "results" / "digits-quick.json").read_text())
    assert kept["rows"][0]["mse"] > 0
    assert kept["rows"][0]["frechet_ratio"] > kept["real"]["mnist"]["frechet_ratio"]
    with pytest.raises(SystemExit) as stop:
        table("digits", *asked[:-1], "96")
    assert str(stop.value) == (
        f"reproduce: {row} was made with other settings; choose another --work"
    )


@pytest.mark.slow
def test_priors_share_one_autoencoder(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import board

    monkeypatch.setattr(board, "QUICK_WIDTH", 4)
    text = table("priors", "--images", "128")
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in lines[3:]] == [
        "| gaussian", "| gmm", "| adversarial", "| flow, 2 steps", "| flow, 24 steps",
    ]  # fmt: skip


@pytest.mark.slow
def test_the_downstream_table_is_kept_beside_how_it_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    few = ["--n", "2", "--arms", "standard", "cutmix", "synthetic-joint", "--steps", "8"]
    places = ["--work", str(tmp_path), "--results", str(tmp_path / "results"), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["downstream", "--quick", *few, *places])
    assert __import__("downstream").main() == 0
    text = (tmp_path / "results" / "downstream-quick.md").read_text()
    content = json.loads((tmp_path / "results" / "downstream-quick.json").read_text())
    assert f"`{content['command']}`" in text
    assert content["command"] == f"scripts/reproduce downstream --quick {few[0]} 2 " + " ".join(
        ["--steps", "8", *few[2:6]]
    )
    assert [row["arm"] for row in content["table"]["rows"]] == few[3:6]
    assert str(tmp_path) not in text + json.dumps(content)
