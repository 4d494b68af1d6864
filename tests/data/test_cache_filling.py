"""A cache is filled whole, whoever stops it: kills, full disks, second processes, broken scans."""

import contextlib
import json
import re
import shutil
import subprocess
import threading
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from medaug.core.errors import CacheError, OutputError
from medaug.data.cache import fill
from medaug.data.cache.prepare import SliceCache, prepare
from medaug.data.sources.pancreas import PancreasCT
from medaug.runtime import files
from medaug.runtime.files import exclusive
from tests.conftest import miniature, write_label
from tests.data.test_cache import SETTINGS
from tests.support.disks import small_disk
from tests.support.refusals import refused
from tests.support.trees import tree


@pytest.fixture
def source(collection) -> PancreasCT:
    return PancreasCT(collection(*range(1, 6)))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_bytes_do_not_depend_on_workers(source, cache, tmp_path):
    for name, workers in (("none", 0), ("two", 2), ("default", None)):
        prepare(source, tmp_path / name, SETTINGS, workers)
    trees = [tree(tmp_path / name, ".lock") for name in ("none", "two", "default")]
    assert trees[0] == trees[1] == trees[2]
    assert len(trees[0]) == 1 + 5 * 4


def test_the_same_command_again_does_nothing(source, cache):
    prepare(source, cache, SETTINGS, workers=0)
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    report = prepare(source, cache, SETTINGS, workers=0)
    assert (report.done, len(report.skipped)) == ([], 5)
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == before


def test_new_scans_are_added(source, cache, collection, tmp_path):
    prepare(source, cache, SETTINGS, workers=0)
    old = SliceCache.open(cache).fingerprint
    collection(9)
    report = prepare(source, cache, SETTINGS, workers=0)
    assert report.done == ["PANCREAS_0009"]
    assert SliceCache.open(cache).fingerprint != old
    prepare(source, tmp_path / "fresh", SETTINGS, workers=0)
    assert tree(cache, ".lock") == tree(tmp_path / "fresh", ".lock")


def test_killed_at_any_moment_it_goes_on(source, cache, tmp_path):
    prepare(source, tmp_path / "whole", SETTINGS, workers=0)
    cut_short = 0
    for attempt, delay in enumerate((0.0, 0.02, 0.05, 0.1, 0.2)):
        folder = tmp_path / f"cut{attempt}"
        process = get_context("fork").Process(target=prepare, args=(source, folder, SETTINGS, 2))
        process.start()
        deadline = time.monotonic() + 30
        while not (folder / "cache.json").exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(delay)
        process.kill()
        process.join()
        if not json.loads((folder / "cache.json").read_text())["complete"]:
            cut_short += 1
            with pytest.raises(CacheError, match="the cache is half-written: "):
                SliceCache.open(folder)
        prepare(source, folder, SETTINGS, workers=0)
        visible = {
            name: digest for name, digest in tree(folder, ".lock").items() if "/." not in name
        }
        assert visible == tree(tmp_path / "whole", ".lock")
    assert cut_short > 0


def test_the_workers_of_a_killed_process_may_take_a_moment_to_die(source, cache):
    """A worker that hangs in a write keeps its parent's lock for as long."""
    with contextlib.ExitStack() as dying:
        dying.enter_context(exclusive(cache))
        threading.Timer(0.5, dying.pop_all().close).start()
        report = prepare(source, cache, SETTINGS, workers=0)
    assert len(report.done) == len(SliceCache.open(cache).cases)


def test_a_half_written_cache_is_refused(source, cache):
    prepare(source, cache, SETTINGS, workers=0)
    for name in ("PANCREAS_0001", "PANCREAS_0004"):
        shutil.rmtree(cache / "cases" / name)
    with refused(
        f"{cache}: the cache is half-written: 3 of 5 cases; "
        "run the same prepare command again to finish it",
        CacheError,
    ):
        SliceCache.open(cache)
    report = prepare(source, cache, SETTINGS, workers=0)
    assert report.done == ["PANCREAS_0001", "PANCREAS_0004"]
    SliceCache.open(cache)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_scan_that_fails_is_named_and_the_others_go_on(source, cache, workers):
    _, mask = miniature(3)
    label = source.root / "TCIA_pancreas_labels-02-05-2017" / "label0003.nii.gz"
    write_label(label, np.ascontiguousarray(mask[::-1]))
    next(source.root.glob("**/PANCREAS_0004/*/*/1-003.dcm")).unlink()
    write_label(label.with_name("label0005.nii.gz"), miniature(5)[1] * 4)
    report = prepare(source, cache, SETTINGS, workers)
    assert report.done == ["PANCREAS_0001", "PANCREAS_0002"]
    assert [p.case for p in report.failed] == ["PANCREAS_0003", "PANCREAS_0004", "PANCREAS_0005"]
    assert str(report.failed[0]).startswith(
        "PANCREAS_0003: label lies better on the image mirrored left to right ("
    )
    assert [str(p) for p in report.failed[1:]] == [
        "PANCREAS_0004: slice 3 of 16 is missing; download the series again",
        "PANCREAS_0005: label0005.nii.gz holds the value 4, known labels are 0, 1",
    ]
    assert sorted(SliceCache.open(cache).cases) == ["PANCREAS_0001", "PANCREAS_0002"]

    write_label(label, mask)
    report = prepare(source, cache, SETTINGS, workers)
    assert report.done == ["PANCREAS_0003"]
    assert [p.case for p in report.failed] == ["PANCREAS_0004", "PANCREAS_0005"]


FULL = "no space left on the disk; free some and run the same command again"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk_stops_it_and_it_goes_on_later(source, tmp_path, workers):
    with small_disk(tmp_path / "disk", "128k") as disk:
        with pytest.raises(OutputError, match=f": {re.escape(FULL)}$"):
            prepare(source, disk / "cache", SETTINGS, workers)
        with pytest.raises(CacheError, match=r"the cache is half-written: [0-4] of 5 cases"):
            SliceCache.open(disk / "cache")
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        prepare(source, disk / "cache", SETTINGS, workers)
        prepare(source, tmp_path / "whole", SETTINGS, workers=0)
        assert tree(disk / "cache", ".lock") == tree(tmp_path / "whole", ".lock")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_told_as_such(tmp_path, monkeypatch):
    """The system's own refusal, where no disk can be mounted."""
    array = np.zeros((20, 64, 64), np.int16)
    write = fill._write_array
    monkeypatch.setattr(fill, "_write_array", lambda path, array: write(Path("/dev/full"), array))
    folder = tmp_path / "cases" / "a"
    with refused(f"{folder}: {FULL}", OutputError):
        fill.write_case(folder, {"image": array}, np.eye(4), {})
    assert list((tmp_path / "cases").iterdir()) == []


def test_two_processes_do_not_fill_one_cache(source, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PATIENCE_S", 0.1)
    with exclusive(tmp_path / "cache"), pytest.raises(OutputError) as caught:
        prepare(source, tmp_path / "cache", SETTINGS, 0)
    assert str(caught.value) == (
        f"{tmp_path / 'cache'}: another process is working in it; wait for it"
    )
