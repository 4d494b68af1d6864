"""The benchmark rows that read scans: each measures what it says, on small real input."""

import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from medaug.data import open_source
from medaug.data.cache.prepare import SliceCache


def test_prepare_compares_the_best_times(row: Any) -> None:
    figures = {"simpleitk_seconds": [0.5, 0.4], "prepare_seconds": [1.0, 3.0], "peak_bytes": 9e8}
    ratio, peak = row("scans").prepare_claims(figures)
    assert (ratio.value, ratio.reached) == (2.5, True)
    assert (peak.value, peak.reached) == (0.9, True)


def test_prepare_unpacks_one_scan_and_both(row: Any, tmp_path: Path) -> None:
    material = row("material")
    for number in (1, 2):
        series = tmp_path / "flat" / f"PANCREAS_{number:04d}" / "study" / "series"
        series.mkdir(parents=True)
        (series / "1-001.dcm").touch()
        with tarfile.open(tmp_path / f"PANCREAS_{number:04d}.tar.xz", "w:xz") as packed:
            packed.add(tmp_path / "flat" / f"PANCREAS_{number:04d}", f"PANCREAS_{number:04d}")
    with zipfile.ZipFile(tmp_path / "labels.zip", "w") as packed_labels:
        for number in (1, 2):
            packed_labels.writestr(f"label{number:04d}.nii.gz", b"")
    one, both = material.unpack(tmp_path, tmp_path / "out")
    assert len(list(both.rglob("*.dcm"))) == len(list(both.rglob("label*.nii.gz"))) == 2
    assert len(list((one / material.CASE).rglob("*.dcm"))) == 1
    assert [p.name for p in one.glob("label*")] == ["label0001.nii.gz"]


def test_preparing_holds_time_memory_and_kills_against_their_bounds(row: Any) -> None:
    preparing = row("scans")
    seconds = {"10": 4.0, "20": 7.0, "40": 10.0, "80": 18.0}
    runs = {
        n: [{"seconds": s, "peak_bytes": 1e9}, {"seconds": s + 5, "peak_bytes": 2e9}]
        for n, s in seconds.items()
    }
    kills = [{"same": True, "complete": False}] * 9 + [{"same": False, "complete": True}]
    linear, flat, differing, midway = preparing.preparing_claims({"runs": runs, "kills": kills})
    assert (linear.value, linear.reached) == (pytest.approx(1), True)
    assert (flat.value, flat.reached) == (1, True)
    assert (differing.value, differing.reached) == (1, False)
    assert (midway.value, midway.reached) == (90, True)
    quadratic = {n: [{"seconds": int(n) ** 2, "peak_bytes": int(n)}] for n in seconds}
    linear, flat, *_ = preparing.preparing_claims({"runs": quadratic, "kills": kills})
    assert not linear.reached
    assert not flat.reached


@pytest.mark.long
def test_preparing_measures_all_processes_of_the_command(row: Any, tmp_path: Path) -> None:
    preparing = row("scans")
    scans = preparing.people(tmp_path, 2, (64, 64, 20), (6.0, 6.0, 9.5))
    told = preparing.watched(scans, tmp_path / "cache")
    assert 1e8 < told["peak_bytes"] < 5e9
    assert told["seconds"] > 0.5
    assert len(SliceCache.open(tmp_path / "cache").cases) == 2
    one = preparing.people(tmp_path, 1, (64, 64, 20), (6.0, 6.0, 9.5))
    assert len(open_source(str(one)).cases()[0]) == 1  # the second stays out of it


@pytest.mark.long
def test_preparing_kills_and_compares_every_byte(
    row: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preparing = row("scans")
    scans = preparing.people(tmp_path, 5, (64, 64, 20), (6.0, 6.0, 9.5))
    told = preparing.interrupted(scans, tmp_path / "kills", 6)
    assert [kill["same"] for kill in told] == [True] * 6
    assert any(not kill["complete"] for kill in told)
    whole = preparing.contents(tmp_path / "kills" / "whole")
    assert len(whole) == 1 + 5 * 4
    monkeypatch.setattr(preparing, "contents", lambda cache: {str(cache): ""})
    assert not preparing.interrupted(scans, tmp_path / "again", 1)[0]["same"]


def test_access_takes_the_median_of_paired_ratios(row: Any) -> None:
    access = row("scans")
    told = {
        access._name(way, workers): speeds
        for workers in access.WORKERS
        for way, speeds in (
            (access.OURS, [3000.0, 4000.0, 900.0]),
            (access.PERSISTENT, [100.0, 100.0, 100.0]),
            (access.GRID, [200.0, 200.0, 200.0]),
        )
    }
    found = [(claim.value, claim.reached) for claim in access.access_claims(told)]
    assert found == [(30, True)] * 2 + [(15, False)] * 2


def test_access_hands_out_the_same_slices_every_way(
    row: Any,
    phantom_root: Path,
    phantom_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    access = row("scans")
    monkeypatch.setattr(access, "BATCH", 8)
    cache, cases = SliceCache.open(phantom_cache), open_source(str(phantom_root)).cases()[0]
    ways = access.loaders(cache, cases, tmp_path)
    access.agree(cache, ways)
    monkeypatch.setattr(access, "WORKERS", (0,))
    told = access.speeds(ways, dict.fromkeys(ways, 24), 2)
    assert len(told) == len(ways) == 5
    assert all(len(speeds) == 2 and min(speeds) > 0 for speeds in told.values())
    mirrored = ways | {access.GRID: lambda n, w: [{k: b[k].flip(-1) for k in access.KEYS}
                                                  for b in ways[access.GRID](n, w)]}  # fmt: skip
    with pytest.raises(AssertionError, match="GridPatchDataset: another slice"):
        access.agree(cache, mirrored)
