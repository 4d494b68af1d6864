"""Folders of samples: what is in them, and what is refused before one is touched."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from medaug.core.errors import ConfigError, OutputError
from medaug.core.types import Sample
from medaug.synthesis import journal
from medaug.synthesis.manifest import COLUMNS
from medaug.synthesis.synthesize import plan, synthesize
from tests.support.toy import Toy
from tests.support.trees import tree


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
    assert tuple(rows[0]) == COLUMNS
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


NOT_OURS = (
    "its run.json is damaged, or was not written by medaug synthesize; choose a new or empty folder"
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", NOT_OURS),
        ("[]", NOT_OURS),
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
