"""Folders of samples: the same bytes through kills, shards, extension and full disks."""

import csv
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medaug import files, journal
from medaug.errors import ConfigError, OutputError
from medaug.job import Judge
from medaug.synthesis import plan, synthesize
from medaug.types import Sample


class Toy:
    """Noise with a square mask, in the manner of a generator, without loading torch."""

    block_size, channels = 16, 1

    def __init__(self, kind: str = "ct", size: int = 12, weights: str = "a", pause_s: float = 0):
        self.kind, self.size, self.pause_s = kind, size, pause_s
        self.fingerprint = hashlib.sha256(weights.encode()).hexdigest()
        self.labels = {"pancreas": 1} if kind == "ct" else {}
        self.config: dict[str, Any] = {"data": {"size": size, "fov_mm": 400.0}}
        self.privacy: dict[str, Any] | None = None

    def fix(self, condition: Mapping[str, str | float] | None) -> dict[str, float]:
        return {name: float(value) for name, value in (condition or {}).items()}

    def depends_on(self, source: str, uncertainty: int) -> dict[str, str | None]:
        return {"masks": None, "source": None if source == "latent" else source}

    def uncertainty_of(self, source: str) -> str:
        return "noise"

    def block(
        self,
        number: int,
        seed: int = 0,
        uncertainty: int = 8,
        condition: Mapping[str, str | float] | None = None,
        source: str = "latent",
        judge: Judge | None = None,
    ) -> list[Sample]:
        time.sleep(self.pause_s)
        start = number * self.block_size
        return [self._sample(i, seed, uncertainty) for i in range(start, start + self.block_size)]

    def _sample(self, index: int, seed: int, uncertainty: int) -> Sample:
        rng = np.random.default_rng([seed, index])
        shape = (self.size, self.size + 2)
        x = rng.integers(-160, 240, (uncertainty + 1, *shape)).astype(np.int16)
        label = np.zeros(shape, np.uint8)
        label[2:5, 3 : 6 + index % 3] = 1
        labels = np.repeat(label[None], uncertainty, 0)
        labels[::2, 4] = 0
        if self.kind != "ct":
            x = (x + 160).clip(0, 255).astype(np.uint8)
        spread = x[1:].astype(np.float32).std(0) if uncertainty else np.zeros(shape, np.float32)
        ct = self.kind == "ct"
        return Sample(
            index=index,
            image=x[0],
            label=label if ct else None,
            affine=np.array(
                [[2.5, 0, 0, -190], [0, 1.25, 0, -200 + index], [0, 0, 1, 7.5], [0, 0, 0, 1]]
            ),
            alternatives=x[1:],
            alternative_labels=labels if ct else None,
            std=spread.astype(np.float32),
            entropy=labels.any(0).astype(np.float32) if ct else None,
            origin={} if ct else {"class": index % 10},
        )


def tree(folder: Path) -> dict[str, str]:
    """Every file below ``folder``, hidden ones too, with a digest of its content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """When and as what each sample file was written."""
    found = {}
    for path in folder.glob("*/syn_*"):
        stat = path.stat()
        found[str(path.relative_to(folder))] = (stat.st_mtime_ns, stat.st_ino)
    return found


def start(
    out: Path, n: int, shard: tuple[int, int] = (0, 1), pause_s: float = 0.0, more: str = ""
) -> Any:
    """``synthesize`` from a process of its own."""
    code = (
        "import sys; from pathlib import Path; from tests.test_synthesize import Toy, synthesize;"
        f"synthesize(Toy(pause_s={pause_s}), {n}, Path(sys.argv[1]), uncertainty=2, shard={shard}"
        f"{more})"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(out)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: Any) -> None:
    """Wait for a process that must succeed."""
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


def test_the_folder_is_as_drawn(tmp_path: Path) -> None:
    report = synthesize(Toy(), 20, tmp_path / "out", uncertainty=3)
    out = tmp_path / "out"
    assert (report.written, report.already, report.total) == (20, 0, 20)
    assert {path.name for path in out.iterdir()} == {
        *("dataset.json", "manifest.csv", "run.json", "preview.png"),
        *("imagesTr", "labelsTr", "uncertainty"),
    }
    assert len(list((out / "imagesTr").iterdir())) == 20
    for kind in ("std", "entropy", "samples", "masks"):
        assert (out / "uncertainty" / f"syn_000019_{kind}.nii.gz").exists()
    assert json.loads((out / "dataset.json").read_text()) | {"description": ""} == {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "pancreas": 1},
        "numTraining": 20,
        "file_ending": ".nii.gz",
        "description": "",
    }
    run = json.loads((out / "run.json").read_text())
    assert run["settings"]["weights"] == Toy().fingerprint
    assert (run["command"], run["n"], run["labels"]) == ("synthesize", 20, {"pancreas": 1})
    with (out / "manifest.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert tuple(rows[0]) == journal.COLUMNS
    assert [row["case"] for row in rows] == [f"syn_{i:06d}" for i in range(20)]
    sample = Toy().block(0, uncertainty=3)[0]
    assert rows[0]["mask_area_mm2"] == f"{9 * 2.5 * 1.25:.2f}"
    assert float(rows[0]["mean_std"]) == pytest.approx(sample.std.mean(), abs=1e-3)
    assert float(rows[0]["mean_std_in_mask"]) == pytest.approx(
        sample.std[sample.label == 1].mean(), abs=1e-3
    )
    assert rows[0]["mean_entropy_bits"] == "1.0000"
    assert rows[0]["uncertainty_source"] == "latent"


def test_pictures_go_to_png_with_their_class(tmp_path: Path) -> None:
    synthesize(Toy("image"), 3, tmp_path / "out", uncertainty=2)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        *("images", "uncertainty", "manifest.csv", "run.json", "preview.png"),
    }
    rows = journal.read(tmp_path / "out")
    assert [rows[i]["class"] for i in range(3)] == ["0", "1", "2"]
    assert rows[0]["label"] == rows[0]["mask_area_mm2"] == ""


def test_without_alternatives_there_is_no_uncertainty(tmp_path: Path) -> None:
    synthesize(Toy(), 2, tmp_path / "out", uncertainty=0)
    assert not (tmp_path / "out" / "uncertainty").exists()
    assert journal.read(tmp_path / "out")[1]["uncertainty_source"] == ""


@pytest.mark.parametrize("n", [0, -3])
def test_n_must_be_positive(tmp_path: Path, n: int) -> None:
    with pytest.raises(ConfigError) as error:
        synthesize(Toy(), n, tmp_path / "out")
    assert str(error.value) == f"n must be at least 1, got {n}"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard": (8, 8)}, "shard 8/8: the first number counts from 0, so 0/8 to 7/8"),
        ({"shard": (-1, 2)}, "shard -1/2: the first number counts from 0, so 0/2 to 1/2"),
        ({"shard": (0, 0)}, "shard 0/0: the first number counts from 0, so 0/1"),
        ({"uncertainty": -1}, "uncertainty must be at least 0, got -1"),
        ({"compress_level": 10}, "compress_level must be 0 to 9, got 10"),
        (
            {"format": "nifty"},
            "format 'nifty' is not known, did you mean 'nifti'? (known: nifti, dicom, png)",
        ),
    ],
)
def test_arguments_out_of_range(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        synthesize(Toy(), 4, tmp_path / "out", **options)
    assert str(error.value) == message
    assert not (tmp_path / "out").exists()


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").write_text("tolerated")
    (tmp_path / "thesis.docx").write_text("years of work")
    with pytest.raises(OutputError) as error:
        synthesize(Toy(), 4, tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: holds files that medaug did not write, such as thesis.docx; "
        "choose a new or empty folder"
    )
    (tmp_path / "thesis.docx").unlink()
    assert synthesize(Toy(), 4, tmp_path, uncertainty=1).written == 4


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("")
    with pytest.raises(OutputError) as error:
        synthesize(Toy(), 4, path)
    assert str(error.value) == f"{path}: is a file, and a folder is wanted"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "its run.json was not written by medaug synthesize; choose a new or empty folder"),
        ("[]", "its run.json was not written by medaug synthesize; choose a new or empty folder"),
        (
            '{"command": "evaluate", "settings": {}}',
            "holds the result of medaug evaluate; choose a new or empty folder",
        ),
    ],
)
def test_the_result_of_something_else(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(OutputError) as error:
        synthesize(Toy(), 4, tmp_path)
    assert str(error.value) == f"{tmp_path}: {message}"


@pytest.mark.parametrize(
    ("generator", "options", "difference"),
    [
        (Toy(weights="b"), {}, ("weights", Toy().fingerprint[:12], Toy("", 0, "b").fingerprint)),
        (Toy(), {"seed": 1}, ("seed", 0, 1)),
        (Toy(), {"uncertainty": 2}, ("uncertainty", 1, 2)),
        (Toy(), {"format": "png"}, ("format", "nifti", "png")),
        (Toy(), {"compress_level": 9}, ("compress_level", 1, 9)),
        (Toy(), {"condition": {"class": "3"}}, ("condition", "none", "class=3")),
    ],
)
def test_another_runs_folder_is_refused(
    tmp_path: Path, generator: Toy, options: dict[str, Any], difference: tuple[str, Any, Any]
) -> None:
    synthesize(Toy(), 2, tmp_path, uncertainty=1)
    before = tree(tmp_path)
    name, there, asked = difference
    asked = asked[:12] if name == "weights" else asked
    for call in (synthesize, plan):
        with pytest.raises(OutputError) as error:
            call(generator, 4, tmp_path, **({"uncertainty": 1} | options))
        assert str(error.value) == (
            f"{tmp_path}: holds samples made with {name} {there}, asked for {name} {asked}; "
            "choose another folder, or the settings it was made with"
        )
    assert tree(tmp_path) == before


def test_the_manifest_says_what_a_sample_was_told(tmp_path: Path) -> None:
    class Told(Toy):
        def _sample(self, index: int, seed: int, uncertainty: int) -> Sample:
            sample = super()._sample(index, seed, uncertainty)
            sample.origin["condition"] = {"liver, left": 1.0, "height": 0.25}
            return sample

    synthesize(Told(), 2, tmp_path, uncertainty=0, condition={"height": "0.25"})
    assert journal.read(tmp_path)[1]["condition"] == "liver_ left=1;height=0.25"
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["settings"]["condition"] == {"height": 0.25}
    again = synthesize(Told(), 2, tmp_path, uncertainty=0, condition={"height": 0.25})
    assert again.written == 0


def test_an_edited_manifest_is_refused(tmp_path: Path) -> None:
    synthesize(Toy(), 2, tmp_path, uncertainty=1)
    (tmp_path / "manifest.csv").write_text("index;case\n0;syn_000000\n")
    with pytest.raises(OutputError) as error:
        synthesize(Toy(), 4, tmp_path, uncertainty=1)
    assert str(error.value) == (
        f"{tmp_path / 'manifest.csv'}: not a manifest of this version (its first line lists other "
        "columns); choose another folder"
    )


def test_a_plan_counts_and_writes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert plan(Toy(), 40, out, uncertainty=1).missing == 40
    assert not out.exists()
    synthesize(Toy(), 20, out, uncertainty=1)
    before = tree(out)
    counted = plan(Toy(), 40, out, uncertainty=1, shard=(0, 2))
    assert (counted.total, counted.already, counted.missing) == (24, 16, 8)
    assert tree(out) == before


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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a small file system cannot be mounted here (needs root on Linux)")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_stops_with_one_sentence_and_the_run_goes_on(
    small_disk: Path, tmp_path: Path
) -> None:
    out = small_disk / "out"
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
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
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


def test_a_trained_generator_gives_the_same_folder_in_shards_and_in_steps(
    tiny_run: Path, tmp_path: Path
) -> None:
    from medaug.generator import Generator

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
