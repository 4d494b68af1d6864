"""The benchmarks: how a row is started, judged and kept, and the rows that measure short things."""

import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from medaug.data.cache.prepare import SliceCache
from medaug.evaluation.metrics.mask_shapes import MaskSummary
from tests.support.script_modules import SCRIPTS

ROOT = Path(__file__).parents[2]
ROWS = [
    *("demo", "prepare", "preparing", "growth", "access"),
    *("wait", "train", "ranks", "cpu", "gpu", "synthesize", "compiled", "threads", "writing"),
    *("pipeline", "startup", "phantom", "layout", "filter", "defects", "copies", "metrics", "real"),
]


def test_list_names_every_row_and_installs_nothing(row: Any) -> None:
    done = subprocess.run(
        [ROOT / "scripts" / "bench", "--list"],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.split()[0] for line in done.stdout.splitlines()] == ROWS
    files = {name: row("bench").FILES.get(name, name) for name in ROWS}
    sources = {f: (SCRIPTS / "benchmarks" / f"{f}.py").read_text() for f in files.values()}
    assert all(f"\ndef measure_{name}(" in sources[file] for name, file in files.items())
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("words", "group"),
    [
        ("", "bench"),
        ("--quick", "bench"),
        ("cpu", "bench"),
        ("wait gpu --quick", "bench"),
        ("gpu wait", "bench"),
        ("--quick wait demo", "run"),
    ],
)
def test_the_rivals_are_installed_for_the_rows_that_train_them(
    words: str, group: str, tmp_path: Path
) -> None:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "bench", tmp_path / "scripts")
    stub(tmp_path / "scripts" / "setup")
    stub(tmp_path / ".venv" / "bin" / "python")
    environment = {k: v for k, v in os.environ.items() if k != "MEDAUG_NO_SETUP"}
    command = [tmp_path / "scripts" / "bench", *words.split()]
    subprocess.run(command, env=environment, check=True)
    assert (tmp_path / "scripts" / "setup.told").read_text().split() == [group]
    told = (tmp_path / ".venv" / "bin" / "python.told").read_text().split()
    assert told == ["scripts/benchmarks/bench.py", *words.split()]


@pytest.mark.parametrize(
    ("group", "wanted"), [("run", "."), ("bench", ".[bench]"), ("dev", ". --group dev")]
)
def test_setup_installs_a_group_once(group: str, wanted: str, tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup", tmp_path / "scripts")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    stub(tmp_path / ".venv" / "bin" / "python")
    told = tmp_path / ".venv" / "bin" / "python.told"
    for again in range(2):
        done = subprocess.run(
            [tmp_path / "scripts" / "setup", group],
            env={**os.environ, "PYTHON": sys.executable},
            capture_output=True,
            text=True,
            check=True,
        )
        assert bool(done.stderr) == (not again)
    last = told.read_text().splitlines()[-1]
    assert last.endswith(f" --constraint constraints.txt --editable {wanted}")
    assert len(told.read_text().splitlines()) == 2
    assert (tmp_path / ".venv" / "medaug-run").exists()


def stub(path: Path) -> None:
    """A program that writes its arguments beside itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('#!/bin/sh\necho "$@" >>"$0.told"\n')
    path.chmod(0o755)


def test_an_unknown_row_is_refused() -> None:
    command = [sys.executable, SCRIPTS / "benchmarks" / "bench.py", "trian"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"no row 'trian' (rows: {', '.join(ROWS)})" in done.stderr


@pytest.mark.parametrize(("row_ends", "bench_says"), [(0, 0), (3, 1), (1, 2), (2, 2), (-9, 2)])
def test_a_crash_is_not_a_row_that_falls_short(
    row_ends: int, bench_says: int, row: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = row("bench")
    done = subprocess.CompletedProcess([], row_ends)
    monkeypatch.setattr(bench.subprocess, "run", lambda *a, **k: done)
    assert bench.run("demo", quick=True) == bench_says


def test_a_claim_keeps_its_bound_or_falls_short(results: ModuleType) -> None:
    assert results.Claim("time", 0.39, "<", 0.4, "s").verdict == "pass"
    assert results.Claim("time", 0.4, "<", 0.4, "s").verdict == "FALLS SHORT"
    assert results.Claim("speed", 0.9, ">=", 0.9, "x").verdict == "pass"
    assert results.Claim("packages", 0, "<=", 0).verdict == "pass"
    assert results.Claim("speed", math.nan, ">=", 0.9, "x").verdict == "FALLS SHORT"
    claim = results.Claim("time", 0.2149, "<", 0.4, "s")
    assert (claim.figure, claim.limit) == ("0.215 s", "< 0.4 s")


def test_a_report_is_a_line_a_file_and_a_row_of_the_table(
    results: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MEDAUG_TEST_DATA", str(tmp_path / "data"))
    setup = results.Setup(quick=False, work=tmp_path, results=tmp_path / "results")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "other.json").write_text('{"not": "a row"}')
    figures = {"scans": str(tmp_path / "data" / "a"), "log": str(ROOT / "build" / "log")}
    claims = [results.Claim("time", 1.5, "<", 2, "s"), results.Claim("peak", 3, "<", 2, "GB")]
    assert results.report(setup, "demo", results.Measured(claims, figures, 4, 7)) == 3
    assert results.report(setup, "wait", results.Measured(claims[:1], {}, 1, None)) == 0
    part = results.Measured([], {}, 1, None, incomplete=True)
    assert results.report(replace(setup, results=tmp_path / "part"), "gpu", part) == 2
    assert capsys.readouterr().out.splitlines() == [
        "demo: time: 1.5 s (< 2 s): pass",
        "demo: peak: 3 GB (< 2 GB): FALLS SHORT",
        "wait: time: 1.5 s (< 2 s): pass",
    ]
    content = json.loads((tmp_path / "results" / "demo.json").read_text())
    assert content["figures"] == {"scans": "$MEDAUG_TEST_DATA/a", "log": "./build/log"}
    assert (content["n"], content["seed"]) == (4, 7)
    assert content["commands"] == ["scripts/bench demo"]
    assert [c["reached"] for c in content["claims"]] == [True, False]
    assert {"cpu", "cores", "memory_gib", "torch", "bf16"} <= content["machine"].keys()
    page = (tmp_path / "results" / "README.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| [")]
    assert len(rows) == 3
    assert rows[1].startswith("| [demo](demo.json) | peak | < 2 GB | 3 GB | FALLS SHORT | A | ")
    assert rows[1].endswith(" | `scripts/bench demo` |")
    assert page.count("Machine A: ") == 1
    assert page == results.table(tmp_path / "results")


def test_the_table_ends_with_the_other_pages(results: ModuleType, tmp_path: Path) -> None:
    assert results.pages(tmp_path) == []
    for name, words in (("b", "Made by `scripts/b --n 3` on CPU."), ("notes", "By hand.")):
        (tmp_path / f"{name}.md").write_text(f"# Of {name}\n\n{words}\n")
    (tmp_path / "README.md").write_text(results.table(tmp_path))
    page = results.table(tmp_path)
    assert page == (tmp_path / "README.md").read_text()
    assert page.endswith("| --- | --- | --- |\n| [b](b.md) | Of b | `scripts/b --n 3` |\n")


def test_the_page_of_results_is_as_its_files_make_it(results: ModuleType) -> None:
    """``python scripts/benchmarks/results.py`` makes it anew."""
    assert (results.RESULTS / "README.md").read_text() == results.table(results.RESULTS)


def test_a_quick_look_never_touches_the_results(results: ModuleType) -> None:
    assert results.Setup.of(False).results == ROOT / "docs" / "results"
    setup = results.Setup.of(True)
    assert setup.work == ROOT / "build" / "bench" / "quick"
    assert setup.results.is_relative_to(setup.work)


def test_a_peak_is_of_its_own_process(row: Any) -> None:
    processes = row("processes")
    assert 1e6 < processes.fresh("processes", "peak_bytes") < 1e8 < processes.peak_bytes()


def test_a_process_that_measures_nothing_says_why(row: Any) -> None:
    processes = row("processes")
    with pytest.raises(processes.NotMeasured, match=r"^KeyError: 'cores'$"):
        processes.fresh("results", "describe", {"cpu": "one"})
    with pytest.raises(processes.NotMeasured, match=r"^ended with -6$"):
        processes.fresh("os", "abort")


def test_demo_keeps_the_figures_of_its_report(
    row: Any, results: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = row("demo")
    setup = results.Setup(quick=True, work=tmp_path, results=tmp_path / "out")

    def run(setup: Any) -> None:
        (folder / "synthetic").mkdir(parents=True)
        (folder / "synthetic" / "preview.png").touch()
        (folder / "report.json").write_text('{"real": {"sound": 1.0}}')

    folder = tmp_path / "demo"
    monkeypatch.setattr(demo, "demo_command", lambda setup: ["scripts/demo"])
    monkeypatch.setattr(demo, "run_demo", run)
    assert demo.measure_demo(setup).figures["report"] == {"real": {"sound": 1.0}}
    assert (tmp_path / "out" / "demo.png").exists()
    assert [c.reached for s in (299.0, 300.0) for c in demo.demo_claims(s)] == [True, False]


def test_startup_counts_heavy_packages(row: Any) -> None:
    startup = row("demo")
    assert "medaug" in startup.loaded()
    times, heavy = startup.startup_claims([0.5, 0.3], ["medaug", "torch"])
    assert (times.value, times.reached) == (0.3, True)
    assert (heavy.value, heavy.reached) == (1, False)


def test_phantom_holds_hu_area_and_place_against_real_masks(row: Any) -> None:
    real, synthetic = (
        MaskSummary(50, 100.0, 800.0, 1.0, 1.0),
        MaskSummary(50, 80.0, 1010.0, 1.0, 0.96),
    )
    hu, area, sound = row("demo").phantom_claims(real, synthetic)
    assert (hu.value, hu.reached) == (20, True)
    assert (area.value, area.reached) == (pytest.approx(26.25), False)
    assert (sound.value, sound.reached) == (pytest.approx(96), True)


def test_metrics_holds_time_and_memory_against_their_bounds(row: Any) -> None:
    metrics = row("metrics")
    seconds, peak = metrics.claims({"seconds": 310.0, "peak_bytes": 3.9e9})
    assert (seconds.value, seconds.reached) == (310.0, False)
    assert (peak.value, peak.reached) == (pytest.approx(3.9), True)


@pytest.mark.long
def test_metrics_measures_warped_slices_in_a_process_of_its_own(
    row: Any, phantom_cache: Path, tmp_path: Path
) -> None:
    metrics = row("metrics")
    metrics.write_evidence(SliceCache.open(phantom_cache), 60, tmp_path / "slices")
    evidence = metrics.read_evidence(tmp_path / "slices")
    assert len(evidence.synthetic) == len(evidence.train) == len(evidence.heldout) == 60
    assert len(np.unique(evidence.synthetic.images, axis=0)) == 60
    told = row("processes").fresh("metrics", "take", tmp_path / "slices", 1)
    assert told["figures"] > 30
    assert told["seconds"] > sum(told["seconds_of"].values()) * 0.99
    assert told["peak_bytes"] > 1e8
