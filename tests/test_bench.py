"""The benchmark rows: what they report, and that the bare loops play the same games as medaug."""

import importlib
import json
import math
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from medaug.data import open_source
from medaug.data.cache import SliceCache
from medaug.evaluate.masks import Masks
from medaug.synthesis import synthesize
from tests.toy import Toy

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "scripts" / "benchmarks"
ROWS = [
    *("demo", "prepare", "preparing", "access"),
    *("wait", "train", "synthesize", "writing", "pipeline"),
    *("startup", "phantom", "layout", "filter", "defects", "copies", "metrics", "real"),
]
SMALL: dict[str, dict[str, Any]] = {
    "vaegan modern": {"width": 8, "prior_width": 16},
    "vaegan author": {"latent_dim": 8},
    "wgan_gp modern": {"width": 8, "critic_turns": 2},
    "wgan_gp author": {"width": 8, "critic_turns": 2},
}


@pytest.fixture
def row(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a row's file as it sees itself when it runs: its neighbours are top-level modules."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if (SCRIPTS / f"{name}.py").exists():
            del sys.modules[name]


@pytest.fixture
def results(row: Any) -> ModuleType:
    return row("results")


def test_list_names_every_row_and_installs_nothing() -> None:
    done = subprocess.run(
        [ROOT / "scripts" / "bench", "--list"],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.split()[0] for line in done.stdout.splitlines()] == ROWS
    assert all((SCRIPTS / f"{name}.py").exists() for name in ROWS)
    assert done.stderr == ""


def test_an_unknown_row_is_refused() -> None:
    command = [sys.executable, SCRIPTS / "bench.py", "trian"]
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
    how = results.Asked(quick=False, work=tmp_path, results=tmp_path / "results")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "other.json").write_text('{"not": "a row"}')
    figures = {"scans": str(tmp_path / "data" / "a"), "log": str(ROOT / "build" / "log")}
    claims = [results.Claim("time", 1.5, "<", 2, "s"), results.Claim("peak", 3, "<", 2, "GB")]
    assert results.report(how, "demo", claims, figures, n=4, seed=7) == 3
    assert results.report(how, "wait", claims[:1], {}, n=1, seed=None) == 0
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


def test_a_quick_look_never_touches_the_results(results: ModuleType) -> None:
    assert results.asked([]).results == ROOT / "docs" / "results"
    how = results.asked(["--quick"])
    assert how.work == ROOT / "build" / "bench" / "quick"
    assert how.results.is_relative_to(how.work)


def test_a_peak_is_of_its_own_process(results: ModuleType, row: Any) -> None:
    assert 1e6 < results.fresh("results", "peak_bytes") < 1e8 < results.peak_bytes()


def test_demo_keeps_the_figures_of_its_report(row: Any, tmp_path: Path) -> None:
    demo = row("demo")
    (tmp_path / "report.json").write_text('{"real": {"sound": 1.0}}')
    assert demo.read(tmp_path) == {"real": {"sound": 1.0}}
    assert [c.reached for s in (299.0, 300.0) for c in demo.claims(s)] == [True, False]


def test_prepare_compares_the_best_times(row: Any) -> None:
    figures = {"simpleitk_seconds": [0.5, 0.4], "prepare_seconds": [1.0, 3.0], "peak_bytes": 9e8}
    ratio, peak = row("prepare").claims(figures)
    assert (ratio.value, ratio.reached) == (2.5, True)
    assert (peak.value, peak.reached) == (0.9, True)


def test_prepare_unpacks_one_scan_and_both(row: Any, tmp_path: Path) -> None:
    prepare = row("prepare")
    for number in (1, 2):
        series = tmp_path / "flat" / f"PANCREAS_{number:04d}" / "study" / "series"
        series.mkdir(parents=True)
        (series / "1-001.dcm").touch()
        with tarfile.open(tmp_path / f"PANCREAS_{number:04d}.tar.xz", "w:xz") as packed:
            packed.add(tmp_path / "flat" / f"PANCREAS_{number:04d}", f"PANCREAS_{number:04d}")
    with zipfile.ZipFile(tmp_path / "labels.zip", "w") as packed_labels:
        for number in (1, 2):
            packed_labels.writestr(f"label{number:04d}.nii.gz", b"")
    one, both = prepare.unpack(tmp_path, tmp_path / "out")
    assert len(list(both.rglob("*.dcm"))) == len(list(both.rglob("label*.nii.gz"))) == 2
    assert len(list((one / prepare.CASE).rglob("*.dcm"))) == 1
    assert [p.name for p in one.glob("label*")] == ["label0001.nii.gz"]


def test_preparing_holds_time_memory_and_kills_against_their_bounds(row: Any) -> None:
    preparing = row("preparing")
    seconds = {"10": 4.0, "20": 7.0, "40": 10.0, "80": 18.0}
    runs = {
        n: [{"seconds": s, "peak_bytes": 1e9}, {"seconds": s + 5, "peak_bytes": 2e9}]
        for n, s in seconds.items()
    }
    kills = [{"same": True, "complete": False}] * 9 + [{"same": False, "complete": True}]
    linear, flat, differing, midway = preparing.claims({"runs": runs, "kills": kills})
    assert (linear.value, linear.reached) == (pytest.approx(1), True)
    assert (flat.value, flat.reached) == (1, True)
    assert (differing.value, differing.reached) == (1, False)
    assert (midway.value, midway.reached) == (90, True)
    quadratic = {n: [{"seconds": int(n) ** 2, "peak_bytes": int(n)}] for n in seconds}
    linear, flat, *_ = preparing.claims({"runs": quadratic, "kills": kills})
    assert not linear.reached
    assert not flat.reached


def test_preparing_measures_all_processes_of_the_command(row: Any, tmp_path: Path) -> None:
    preparing = row("preparing")
    scans = preparing.people(tmp_path, 2, (64, 64, 20), (6.0, 6.0, 9.5))
    told = preparing.command(scans, tmp_path / "cache")
    assert 1e8 < told["peak_bytes"] < 5e9
    assert told["seconds"] > 0.5
    assert len(SliceCache.open(tmp_path / "cache").cases) == 2
    one = preparing.people(tmp_path, 1, (64, 64, 20), (6.0, 6.0, 9.5))
    assert len(open_source(str(one)).cases()[0]) == 1  # the second stays out of it


def test_preparing_kills_and_compares_every_byte(
    row: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preparing = row("preparing")
    scans = preparing.people(tmp_path, 5, (64, 64, 20), (6.0, 6.0, 9.5))
    told = preparing.interrupted(scans, tmp_path / "kills", 6)
    assert [kill["same"] for kill in told] == [True] * 6
    assert any(not kill["complete"] for kill in told)
    whole = preparing.contents(tmp_path / "kills" / "whole")
    assert len(whole) == 1 + 5 * 4
    monkeypatch.setattr(preparing, "contents", lambda cache: {str(cache): ""})
    assert not preparing.interrupted(scans, tmp_path / "again", 1)[0]["same"]


def test_access_takes_the_median_of_paired_ratios(row: Any) -> None:
    access = row("access")
    told = {
        access._name(way, workers): speeds
        for workers in access.WORKERS
        for way, speeds in (
            (access.OURS, [3000.0, 4000.0, 900.0]),
            (access.PERSISTENT, [100.0, 100.0, 100.0]),
            (access.GRID, [200.0, 200.0, 200.0]),
        )
    }
    found = [(claim.value, claim.reached) for claim in access.claims(told)]
    assert found == [(30, True)] * 2 + [(15, False)] * 2


def test_access_hands_out_the_same_slices_every_way(
    row: Any,
    phantom_root: Path,
    phantom_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    access = row("access")
    monkeypatch.setattr(access, "BATCH", 8)
    cache, cases = SliceCache.open(phantom_cache), open_source(str(phantom_root)).cases()[0]
    ways = access.loaders(cache, cases, tmp_path)
    access.agree(cache, ways)
    monkeypatch.setattr(access, "WORKERS", (0,))
    told = access.measure(ways, dict.fromkeys(ways, 24), 2)
    assert len(told) == len(ways) == 4
    assert all(len(speeds) == 2 and min(speeds) > 0 for speeds in told.values())
    mirrored = ways | {access.GRID: lambda n, w: [{k: b[k].flip(-1) for k in access.KEYS}
                                                  for b in ways[access.GRID](n, w)]}  # fmt: skip
    with pytest.raises(AssertionError, match="GridPatchDataset: another slice"):
        access.agree(cache, mirrored)


def test_wait_reports_shares_of_a_real_run(row: Any, phantom_cache: Path, tmp_path: Path) -> None:
    wait = row("wait")
    model = {"width": 8, "prior_width": 16, "prior_steps": 2}
    told = wait.measure(SliceCache.open(phantom_cache), model, 64, tmp_path / "run")
    (claim,) = wait.claims({"tiny": told})
    assert told["images"] == 64
    assert claim.value == pytest.approx(100 * told["waited_seconds"] / told["seconds"])
    assert 0 < claim.value < 100


def test_train_takes_the_median_of_paired_ratios(row: Any) -> None:
    told = {"medaug_images_per_s": [90, 50, 99], "bare_images_per_s": [100, 100, 100]}
    (claim,) = row("train").claims({"game": told})
    assert claim.value == pytest.approx(0.9)


def test_train_measures_both_sides(row: Any, phantom_cache: Path, tmp_path: Path) -> None:
    train = row("train")
    assert len(train.GAMES) == 6
    trainer = train.set_up(
        SliceCache.open(phantom_cache), SMALL["vaegan modern"], tmp_path / "run", batch=4
    )
    told = train.measure(trainer, 2, 0.01)
    assert len(told["medaug_images_per_s"]) == len(told["bare_images_per_s"]) == 2
    assert min(told["medaug_images_per_s"] + told["bare_images_per_s"]) > 0


@pytest.mark.parametrize(
    "name",
    [
        "vaegan modern, autoencode",
        "vaegan modern, sharpen",
        "vaegan modern, prior",
        "vaegan author",
        "wgan_gp modern",
        "wgan_gp author",
    ],
)
def test_bare_loops_play_the_same_game(
    name: str, row: Any, phantom_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same start, same batch, same draws: two rounds must end at the same weights."""
    train, bare = row("train"), row("bare")
    wishes = {**train.GAMES[name], **SMALL[name.partition(",")[0]]}
    if name == "vaegan author":
        wishes["margin"] = 10.0  # a gate that never closes: the bare loop has none
    trainer = train.set_up(
        SliceCache.open(phantom_cache), wishes, tmp_path / "run", batch=4, precision="float32"
    )
    model, turns = trainer.model, trainer.model.turns(0.0)
    batch = trainer.feed.batch(0, 4 * turns[0].batches)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    twin = train.build(
        trainer.config.model.name, trainer.config.model.arguments, trainer.feed.shape
    )
    twin.load_state_dict(before)
    loop = bare.loop(twin.train(), batch.x, "float32")
    assert loop.images == sum(len(batch.x) for _ in turns)

    totals: dict[str, float] = {}

    def noted(moves: Any) -> Any:
        totals.update({player: move.total().item() for player, move in moves.items()})
        return gradients(moves)

    torch.manual_seed(0)
    for _ in range(2):
        losses = loop.step()
    torch.manual_seed(0)
    gradients = trainer.game.gradients
    with monkeypatch.context() as patch:
        patch.setattr(trainer.game, "gradients", noted)
        patch.setattr("medaug.rounds.torch.manual_seed", lambda seed: None)
        for _ in range(2):
            for turn in turns:
                trainer.game.turn(turn, batch, 0, model.optim(0.0))

    for player, loss in losses.items():
        assert float(loss) == pytest.approx(totals[player], rel=1e-4)
    moved = 0
    for key, ours in model.state_dict().items():
        apart, way = ours - twin.state_dict()[key], (ours - before[key]).float().abs().mean()
        # a slope that is all but zero may round to either sign, and both optimisers step by signs
        assert apart.float().abs().mean() <= 0.01 * way, key
        moved += bool(way)
    assert moved


def test_synthesize_holds_both_accounts_of_writing_against_the_bound(row: Any) -> None:
    synthesize = row("synthesize")
    figures = {
        "generate_alone": {"seconds": 10.0, "cpu_seconds": 18.0},
        "synthesize": {
            "seconds": 13.0,
            "generate_seconds": 12.5,
            "write_seconds": 0.5,
            "cpu_seconds": 20.0,
        },
        "peak_bytes": {"64": 500, "256": 505, "1024": 510},
    }
    told = synthesize.derived(figures)
    assert told["cpu_seconds_of_writing"] == 2
    by_report, whole, spread = synthesize.claims(told)
    assert (by_report.value, by_report.reached) == (pytest.approx(4), True)
    assert (whole.value, whole.reached) == (pytest.approx(30), False)
    assert (spread.value, spread.reached) == (pytest.approx(2), True)


def test_synthesize_times_a_real_generator(row: Any, tiny_run: Path, tmp_path: Path) -> None:
    synthesize = row("synthesize")
    few = synthesize.with_few_steps(tiny_run / "model.safetensors", tmp_path / "few.safetensors")
    generator = synthesize.Generator.from_pretrained(few)
    assert generator.model.code.steps == synthesize.FEW_STEPS
    told = synthesize.write_too(generator, 3, tmp_path / "out")
    assert told["seconds"] == pytest.approx(told["generate_seconds"] + told["write_seconds"])
    assert synthesize.generate_alone(generator, 3)["cpu_seconds"] > 0


def test_writing_holds_the_whole_against_the_slower_part(row: Any) -> None:
    writing = row("writing")
    figures = {
        "generate_alone": {"seconds": 10.0, "cpu_seconds": 18.0},
        "write_alone": {"seconds": 4.0, "cpu_seconds": 6.0},
        "both": {"seconds": 11.0, "cpu_seconds": 25.0},
    }
    told = writing.derived(figures)
    assert told["total_over_sum"] == pytest.approx(11 / 14)
    assert told["cores_that_writing_alone_uses"] == 1.5
    (claim,) = writing.claims(told)
    assert (claim.value, claim.reached) == (pytest.approx(1.1), True)
    figures["write_alone"]["seconds"], figures["both"]["seconds"] = 12.0, 15.0
    assert not writing.claims(writing.derived(figures))[0].reached


def test_writing_replays_what_a_generator_drew(row: Any, tiny_run: Path, tmp_path: Path) -> None:
    writing = row("writing")
    generator = writing.Generator.from_pretrained(tiny_run)
    told = writing.measure(generator, 20, tmp_path)
    assert all(time > 0 for part in told.values() for time in part.values())
    first, again = (
        nibabel.load(tmp_path / "alone" / f"imagesTr/syn_{i:06d}_0000.nii.gz").get_fdata()
        for i in (3, 3 + 16)
    )
    assert not np.array_equal(first, again)
    both = nibabel.load(tmp_path / "both" / "imagesTr/syn_000003_0000.nii.gz").get_fdata()
    assert np.array_equal(first, both)
    replay = writing.Replay(generator, [generator.block(0, uncertainty=1)])
    assert [sample.index for sample in replay.block(2)] == list(range(32, 48))


def test_pipeline_takes_the_median_of_paired_ratios(row: Any) -> None:
    told = {"without": [100.0, 50.0, 200.0], "p = 1": [90.0, 20.0, 170.0]}
    (claim,) = row("pipeline").claims(told)
    assert (claim.value, claim.reached) == (pytest.approx(0.85), True)


def test_pipeline_runs_both_ways_from_real_files(
    row: Any, phantom_cache: Path, tmp_path: Path
) -> None:
    pipeline = row("pipeline")
    files = pipeline.write_slices(SliceCache.open(phantom_cache), tmp_path / "slices")
    assert len(files) > 20
    assert all(image.exists() and label.exists() for image, label in files)
    bank = tmp_path / "bank"
    synthesize(Toy(size=32), 16, bank, uncertainty=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "PROBABILITIES", (0.0,))
        told = pipeline.measure(files, bank, 48, 1)
    assert set(told) == {"without", "p = 0"}
    assert all(len(speeds) == 1 and speeds[0] > 0 for speeds in told.values())


def test_startup_counts_heavy_packages(row: Any) -> None:
    startup = row("startup")
    assert "medaug" in startup.loaded()
    times, heavy = startup.claims([0.5, 0.3], ["medaug", "torch"])
    assert (times.value, times.reached) == (0.3, True)
    assert (heavy.value, heavy.reached) == (1, False)


def test_phantom_holds_hu_area_and_place_against_real_masks(row: Any) -> None:
    real, synthetic = Masks(50, 100.0, 800.0, 1.0, 1.0), Masks(50, 80.0, 1010.0, 1.0, 0.96)
    hu, area, sound = row("phantom").claims(real, synthetic)
    assert (hu.value, hu.reached) == (20, True)
    assert (area.value, area.reached) == (pytest.approx(26.25), False)
    assert (sound.value, sound.reached) == (pytest.approx(96), True)


def test_metrics_holds_time_and_memory_against_their_bounds(row: Any) -> None:
    metrics = row("metrics")
    seconds, peak = metrics.claims({"seconds": 310.0, "peak_bytes": 3.9e9})
    assert (seconds.value, seconds.reached) == (310.0, False)
    assert (peak.value, peak.reached) == (pytest.approx(3.9), True)


def test_metrics_measures_warped_slices_in_a_process_of_its_own(
    row: Any, phantom_cache: Path, tmp_path: Path
) -> None:
    metrics = row("metrics")
    metrics.write_evidence(SliceCache.open(phantom_cache), 60, tmp_path / "slices.npz")
    evidence = metrics.read_evidence(tmp_path / "slices.npz")
    assert len(evidence.synthetic) == len(evidence.train) == len(evidence.heldout) == 60
    assert len(np.unique(evidence.synthetic.images, axis=0)) == 60
    told = metrics.measure(tmp_path / "slices.npz", 1)
    assert told["figures"] > 30
    assert told["seconds"] > sum(told["seconds_of"].values()) * 0.99
    assert told["peak_bytes"] > 1e8
