"""Folders of samples: the same bytes through kills, shards, extension and full disks."""

import random
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medaug.core.errors import OutputError
from medaug.core.types import Sample
from medaug.runtime import files
from medaug.synthesis import journal
from medaug.synthesis.synthesize import synthesize
from tests.support.disks import small_disk
from tests.support.toy import Toy, finish, start
from tests.support.trees import tree


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """When and as what each sample file was written."""
    found = {}
    for path in folder.glob("*/syn_*"):
        stat = path.stat()
        found[str(path.relative_to(folder))] = (stat.st_mtime_ns, stat.st_ino)
    return found


def test_extending_equals_asking_for_more_at_once(tmp_path: Path) -> None:
    synthesize(Toy(), 21, tmp_path / "grown", uncertainty=2)
    kept = stamps(tmp_path / "grown")
    report = synthesize(Toy(), 37, tmp_path / "grown", uncertainty=2)
    assert (report.written, report.already, report.total) == (16, 21, 37)
    assert kept.items() <= stamps(tmp_path / "grown").items()
    synthesize(Toy(), 37, tmp_path / "once", uncertainty=2)
    assert tree(tmp_path / "grown") == tree(tmp_path / "once")


def test_asking_for_less_changes_nothing_and_says_so(tmp_path: Path) -> None:
    synthesize(Toy(), 20, tmp_path, uncertainty=2)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    report = synthesize(Toy(), 5, tmp_path, uncertainty=2)
    assert str(report) == f"{tmp_path}: all 5 samples were there already, nothing to do"
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


def test_shards_in_any_order_equal_one_run(tmp_path: Path) -> None:
    order = list(range(8))
    random.Random(3).shuffle(order)
    written = 0
    for number in order:
        written += synthesize(
            Toy(), 150, tmp_path / "shards", uncertainty=2, shard=(number, 8)
        ).written
    assert written == 150
    synthesize(Toy(), 150, tmp_path / "once", uncertainty=2)
    assert tree(tmp_path / "shards") == tree(tmp_path / "once")


def test_shards_at_the_same_time_equal_one_run(tmp_path: Path) -> None:
    shards = [start(tmp_path / "shards", 200, (number, 2), pause_s=0.02) for number in range(2)]
    for process in shards:
        finish(process)
    synthesize(Toy(), 200, tmp_path / "once", uncertainty=2)
    assert tree(tmp_path / "shards") == tree(tmp_path / "once")


def test_a_missing_file_is_written_again_and_no_other(tmp_path: Path) -> None:
    synthesize(Toy(), 20, tmp_path, uncertainty=2)
    before, kept = tree(tmp_path), stamps(tmp_path)
    (tmp_path / "labelsTr" / "syn_000003.nii.gz").unlink()
    assert synthesize(Toy(), 20, tmp_path, uncertainty=2).written == 1
    assert tree(tmp_path) == before
    changed = {name for name, stamp in stamps(tmp_path).items() if kept[name] != stamp}
    assert changed == {"labelsTr/syn_000003.nii.gz"}


@pytest.mark.long
def test_killed_again_and_again_it_goes_on(tmp_path: Path) -> None:
    out, n = tmp_path / "out", 240
    moments = random.Random(11)
    kept: dict[str, tuple[int, int]] = {}
    for _ in range(5):
        process = start(out, n, pause_s=0.03)
        while not list(out.glob(".journal*")):
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.25))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert kept.items() <= stamps(out).items()
        kept = stamps(out)
    assert 0 < len(kept) < 5 * n
    (out / "imagesTr").mkdir(exist_ok=True)
    (out / "imagesTr" / ".syn_000007_0000.nii.gz.abc123_x.part").write_bytes(b"half")
    finish(start(out, n))
    assert kept.items() <= stamps(out).items()
    synthesize(Toy(), n, tmp_path / "once", uncertainty=2)
    assert tree(out) == tree(tmp_path / "once")


def test_leftovers_of_another_shard_are_left_to_it(tmp_path: Path) -> None:
    synthesize(Toy(), 64, tmp_path / "out", uncertainty=1, shard=(0, 2))
    alive = tmp_path / "out" / "imagesTr" / ".syn_000016_0000.nii.gz.abc123_x.part"
    alive.write_bytes(b"half")
    synthesize(Toy(), 64, tmp_path / "out", uncertainty=1, shard=(0, 2))
    assert alive.exists()
    synthesize(Toy(), 64, tmp_path / "out", uncertainty=1, shard=(1, 2))
    assert not alive.exists()


@pytest.mark.parametrize(
    ("asked", "refused"), [((0, 1), True), ((1, 3), True), ((0, 2), True), ((1, 2), False)]
)
def test_shares_that_overlap_do_not_run_together(
    tmp_path: Path, asked: tuple[int, int], refused: bool
) -> None:
    synthesize(Toy(), 2, tmp_path, uncertainty=1)
    with journal.locked(tmp_path):
        log, _ = journal.enter(tmp_path, (0, 2), Toy.block_size)
    try:
        if not refused:
            assert synthesize(Toy(), 20, tmp_path, uncertainty=1, shard=asked).written == 4
            return
        with pytest.raises(OutputError) as error:
            synthesize(Toy(), 2, tmp_path, uncertainty=1, shard=asked)
        assert str(error.value) == (
            f"{tmp_path}: another process is writing shard 0/2 there, which overlaps shard "
            f"{asked[0]}/{asked[1]}; wait for it to end"
        )
    finally:
        log.close()


def test_a_broken_last_line_of_a_journal_is_ignored(tmp_path: Path) -> None:
    synthesize(Toy(), 4, tmp_path, uncertainty=1)
    before = tree(tmp_path)
    lines = (tmp_path / "manifest.csv").read_bytes().splitlines(keepends=True)
    (tmp_path / "manifest.csv").unlink()
    torn = lines[1] + lines[2] + lines[3][:40]
    (tmp_path / ".journal-0-of-1").write_bytes(torn)
    assert sorted(journal.read(tmp_path)) == [0, 1]
    assert synthesize(Toy(), 4, tmp_path, uncertainty=1).written == 2
    assert tree(tmp_path) == before


def test_a_full_disk_stops_with_one_sentence_and_the_run_goes_on(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "400k") as disk:
        out = disk / "out"
        with pytest.raises(OutputError) as error:
            synthesize(Toy(), 100, out, uncertainty=2)
        assert re.fullmatch(
            rf"{re.escape(str(out))}/\S+: no space left on the disk; "
            "free some and run the same command again",
            str(error.value),
        )
        assert not list(out.rglob("*.part"))
        synthesize(Toy(), 100, tmp_path / "once", uncertainty=2)
        whole = tree(tmp_path / "once")
        assert all(whole[k] == v for k, v in tree(out).items() if "/" in k)
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        synthesize(Toy(), 100, out, uncertainty=2)
        assert tree(out) == whole


def test_a_refused_write_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    calls = iter(range(10**6))

    def full(handle: int) -> None:
        if next(calls) > 50:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(OutputError, match="no space left on the disk"):
            synthesize(Toy(), 40, out, uncertainty=2)
    assert not list(out.rglob("*.part"))
    assert synthesize(Toy(), 40, out, uncertainty=2).already > 0
    synthesize(Toy(), 40, tmp_path / "once", uncertainty=2)
    assert tree(out) == tree(tmp_path / "once")


def test_writers_work_while_the_generator_does(tmp_path: Path) -> None:
    class Watching(Toy):
        """Draws no further block before the last one is on disk."""

        def block(self, number: int, *rest: Any, **options: Any) -> list[Sample]:
            last = tmp_path / "uncertainty" / f"syn_{number * self.block_size - 1:06d}_masks.nii.gz"
            deadline = time.monotonic() + 30
            while number and not last.exists():
                assert time.monotonic() < deadline, f"{last.name} waits for the generator to end"
                time.sleep(0.01)
            return super().block(number, *rest, **options)

    report = synthesize(Watching(), 64, tmp_path, uncertainty=2)
    assert report.written == 64


def test_a_failing_generator_leaves_the_folder_to_be_continued(tmp_path: Path) -> None:
    class Failing(Toy):
        def block(self, number: int, *rest: Any, **options: Any) -> list[Sample]:
            if number == 1:
                raise KeyboardInterrupt
            return super().block(number, *rest, **options)

    with pytest.raises(KeyboardInterrupt):
        synthesize(Failing(), 40, tmp_path, uncertainty=1)
    assert not list(tmp_path.rglob("*.part"))
    assert synthesize(Toy(), 40, tmp_path, uncertainty=1).written <= 40
    assert len(journal.read(tmp_path)) == 40


@pytest.mark.long
def test_a_trained_generator_gives_the_same_folder_in_shards_and_in_steps(
    tiny_run: Path, tmp_path: Path
) -> None:
    from medaug.synthesis.generator import Generator

    def fresh() -> Generator:
        return Generator.from_pretrained(tiny_run, device="cpu")

    synthesize(fresh(), 40, tmp_path / "once", uncertainty=2)
    for number in (2, 0, 1):
        synthesize(fresh(), 40, tmp_path / "shards", uncertainty=2, shard=(number, 3))
    for n in (5, 20, 40):
        synthesize(fresh(), n, tmp_path / "steps", uncertainty=2)
    assert tree(tmp_path / "shards") == tree(tmp_path / "steps") == tree(tmp_path / "once")
    with Image.open(tmp_path / "once" / "preview.png") as picture:
        assert picture.width > picture.height > 400
