"""A study goes on where it stopped with the same bytes, and refuses what cannot be meant."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from medaug.core.errors import ConfigError, DataError, OutputError
from medaug.data.cache.prepare import SliceCache
from medaug.evaluation.downstream import lesson as lessons
from medaug.evaluation.downstream import nnunet, student
from medaug.evaluation.downstream.running import plan, run, tasks
from medaug.evaluation.downstream.settings import resolve_study
from medaug.evaluation.downstream.streams import IGNORED, Pool, plain
from medaug.evaluation.downstream.table import load
from tests.conftest import TINY, Medaug
from tests.support.lessons import LENIENT, LITTLE, lesson

ARMS = ["real", "standard", "cutmix", "synthetic-joint", "pseudo-labels", "ceiling"]
SETTINGS: dict[str, Any] = {
    "model": TINY["model"],
    "train": {"images": 64, "batch": 8, "snapshot_every": 64, "precision": "float32"},
    "filter": LENIENT,
    "downstream": {**LITTLE, "n": [1, 3], "subsets": 1, "arms": ARMS},
}


def study(cache: Path, **more: Any) -> tuple[SliceCache, Any]:
    opened = SliceCache.open(cache)
    return opened, resolve_study(opened, SETTINGS, {"downstream": more})


@pytest.fixture(scope="module")
def whole(phantom_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study run in one go."""
    out = tmp_path_factory.mktemp("study") / "out"
    run(*study(phantom_cache), out, "cpu")
    return out


def without_times(out: Path) -> tuple[dict[str, bytes], Any]:
    rows = {path.name: path.read_bytes() for path in (out / "rows").iterdir()}
    content = json.loads((out / "downstream.json").read_text())
    content.pop("seconds")
    for row in content["table"]["rows"]:
        row.pop("seconds")
    return rows, content


def test_every_row_is_there_or_says_why_not(whole: Path, phantom_cache: Path) -> None:
    names = [task.name for task in tasks(study(phantom_cache)[1])]
    assert len(names) == 11
    assert sorted(names) == sorted(path.stem for path in (whole / "rows").iterdir())
    rows = {name: json.loads((whole / "rows" / f"{name}.json").read_text()) for name in names}
    heldout = SliceCache.open(phantom_cache).split["heldout"]
    for name, row in rows.items():
        if row["skipped"] is None:
            assert list(row["cases"]) == heldout
            taught = row["images"]["student"]
            assert taught == (24 if name.endswith("pseudo-labels") else 12)
        assert not set(row["patients"]) & set(heldout)
    assert "no training patient is left over" in rows["n3-s0-pseudo-labels"]["skipped"]
    assert len(rows["all-s0-ceiling"]["patients"]) == 3
    assert rows["n1-s0-synthetic-joint"]["images"]["generator"] == 64
    assert "generator-n1-s0-joint" in rows["n1-s0-synthetic-joint"]["used"]
    assert "student-n1-s0-standard" in rows["n1-s0-pseudo-labels"]["used"]


def test_the_table_can_be_read_again(whole: Path) -> None:
    made = load(whole / "downstream.json")
    kept = json.loads((whole / "downstream.json").read_text())
    assert kept["version"] == 1
    assert json.loads(json.dumps(made.plain())) == kept["table"]
    assert (whole / "downstream.md").read_text() == made.markdown()
    costly = {row.arm: row.seconds for row in made.rows if row.n == 1}
    assert costly["synthetic-joint"] > costly["standard"] > 0
    with pytest.raises(DataError, match="no result of a downstream study"):
        load(whole / "study.json")


def test_a_killed_study_goes_on_with_the_same_bytes(
    whole: Path, phantom_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, taught, teach = tmp_path / "out", [], student.train_segmenter

    def dies(*given: Any, **how: Any) -> Any:
        taught.append(given)
        if len(taught) == 3:
            raise KeyboardInterrupt
        return teach(*given, **how)

    monkeypatch.setattr(lessons, "train_segmenter", dies)
    with pytest.raises(KeyboardInterrupt):
        run(*study(phantom_cache), out, "cpu")
    assert len(list((out / "rows").iterdir())) == 2
    run(*study(phantom_cache), out, "cpu")
    assert without_times(out) == without_times(whole)
    before = len(taught)
    run(*study(phantom_cache), out, "cpu")
    assert len(taught) == before


def test_arms_join_later_and_a_lost_row_comes_back(
    whole: Path, phantom_cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out, symlinks=True)
    lost = ["n1-s0-cutmix", "n1-s0-synthetic-joint"]
    for name in lost:
        (out / "rows" / f"{name}.json").unlink()
        (out / "students" / f"{name}.safetensors").unlink()
    shutil.rmtree(out / "samples")
    planned = plan(*study(phantom_cache), out)
    assert planned.missing == lost
    fewer = run(*study(phantom_cache, arms=["real", "standard"]), out, "cpu")
    assert [row.arm for row in fewer.rows] == ["real", "standard"] * 2
    run(*study(phantom_cache), out, "cpu")
    assert without_times(out) == without_times(whole)


def test_a_folder_of_another_study_is_refused(whole: Path, phantom_cache: Path) -> None:
    with pytest.raises(OutputError, match=r"holds a study with downstream.steps 3, asked for 5"):
        run(*study(phantom_cache, steps=5), whole, "cpu")


def test_what_cannot_be_run_is_refused_before_anything_is_written(
    phantom_cache: Path, tmp_path: Path
) -> None:
    for more, says in (
        ({"n": [9]}, "9 patients asked for, 3 can be learned from"),
        ({"arms": ["cutmx"]}, "did you mean 'cutmix'"),
        ({"trainer": "nnunet"}, "nnU-Net v2 is not installed here"),
    ):
        with pytest.raises(ConfigError, match=says):
            run(*study(phantom_cache, **more), tmp_path / "out", "cpu")
    with pytest.raises(ConfigError, match=r"downstream.stpes is not known; did you mean"):
        study(phantom_cache, stpes=3)
    with pytest.raises(ConfigError, match=r"config data.size: 64 asked for, .* has 32"):
        resolve_study(SliceCache.open(phantom_cache), {"data": {"size": 64}})
    assert not (tmp_path / "out").exists()


def test_the_command_plans_runs_and_answers(
    medaug: Medaug,
    phantom_cache: Path,
    tmp_path: Path,
) -> None:
    asked = ["downstream", "--data", phantom_cache, "--out", "out", "-n", "2", "--subsets", 1,
             "--arms", "standard,cutmix", "--steps", 2, "--device", "cpu",
             "--set", "downstream.resamples=100", "--json"]  # fmt: skip
    planned = medaug(*asked, "--dry-run")
    assert planned.json["plan"]["missing"] == ["n2-s0-standard", "n2-s0-cutmix"]
    assert not (tmp_path / "out").exists()
    done = medaug(*asked)
    assert [row["arm"] for row in done.json["rows"]] == ["standard", "cutmix"]
    assert "0 help" in done.err
    wrong = medaug(*asked, "--arms", "standerd")
    assert (wrong.code, wrong.out) == (2, "")
    assert "did you mean 'standard'" in wrong.err


def test_nnunet_is_handed_what_the_arm_draws(
    two_caches: list[SliceCache],
    tmp_path: Path,
) -> None:
    one = lesson(two_caches[0], tmp_path)
    real = one.real()
    marked = real.labels.copy()
    marked[:, :4] = IGNORED
    folder = tmp_path / "Dataset001_medaug"
    stream = plain(Pool(real.images, marked, real.owners))
    nnunet.write_dataset(folder, stream, one, 5)
    about = json.loads((folder / "dataset.json").read_text())
    assert about["labels"] == {"background": 0, "pancreas": 1, "ignore": 2}
    assert about["numTraining"] == 5
    images, labels = (sorted((folder / what).iterdir()) for what in ("imagesTr", "labelsTr"))
    assert [p.name for p in images] == [f"slice_{k:05d}_0000.nii.gz" for k in range(5)]
    assert [p.name for p in labels] == [f"slice_{k:05d}.nii.gz" for k in range(5)]
    image, label = (nibabel.load(files[3]) for files in (images, labels))
    assert image.shape == label.shape == (32, 32, 1)
    assert image.header.get_zooms()[:2] == pytest.approx((one.pixel_mm,) * 2)
    drawn = np.asarray(image.dataobj)[:, :, 0].T
    assert any(np.array_equal(drawn, known) for known in real.images)
    assert (np.asarray(label.dataobj)[:, :4, 0] == 2).all()


TOOL = """#!{python}
import os, pathlib, shutil, sys
name, told = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
with open(pathlib.Path(os.environ["nnUNet_raw"]).parent / "calls.txt", "a") as log:
    print(name, *told, file=log)
if name == "nnUNetv2_predict":
    source, target = (pathlib.Path(told[told.index(k) + 1]) for k in ("-i", "-o"))
    target.mkdir()
    for file in source.iterdir():
        import nibabel, numpy
        image = nibabel.load(file)
        found = (numpy.asarray(image.dataobj) > 80).astype("u1")
        place = target / file.name.replace("_0000.nii", ".nii")
        nibabel.save(nibabel.Nifti1Image(found, image.affine), place)
"""


def test_nnunets_commands_are_called_in_turn_and_read_back(
    phantom_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its three commands are stood in for by a threshold, since it is not a dependency."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in nnunet.TOOLS:
        (tools / name).write_text(TOOL.format(python=sys.executable))
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=":")
    monkeypatch.setattr(nnunet, "find_spec", lambda name: name)
    settings = {"trainer": "nnunet", "arms": ["real", "standard"], "n": [2], "nnunet_slices": 4}
    made = run(*study(phantom_cache, **settings), tmp_path / "out", "cpu")
    assert [row.arm for row in made.rows] == ["real", "standard"]
    assert 0 < made.rows[0].scores["dice"].mean == made.rows[1].scores["dice"].mean
    for name, trainer in (("real", nnunet.PLAIN_TRAINER), ("standard", "nnUNetTrainerNoMirroring")):
        calls = (
            (tmp_path / "out" / "nnunet" / f"n2-s0-{name}" / "calls.txt").read_text().split("\n")
        )
        assert [call.split(" ")[0] for call in calls[:3]] == list(nnunet.TOOLS)
        assert trainer in calls[1]
        assert trainer in calls[2]
