"""The page about layout mode: its commands and snippets run in turn, its numbers are the code's."""

import csv
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medaug import Generator
from medaug.cli import main
from medaug.core.errors import ConfigError, DataError
from medaug.core.modality import CT, MR
from medaug.synthesis.masks.deformed import AMOUNTS, NUDGE
from tests.synthesis.test_nnunet import verified

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "layouts.md").read_text()
BRIEF = shlex.split(
    "--images 96 --size 32 --device cpu --workers 0 --set model.width=8 --set model.prior.width=16 "
    "--set model.prior.steps=4 --set train.batch=8 --set train.snapshot_every=16 "
    "--set train.precision=float32"
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.S | re.M)


def command(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a command of the page as it stands, but small: few images, few samples, no filter."""
    words = shlex.split(line)
    if words[1] == "train":
        words += BRIEF
    else:
        words[words.index("-n") + 1] = "3"
        words += ["--no-filter"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code, line


def write_mask(file: Path, label: int = 1) -> None:
    mask = np.zeros((50, 60, 3), np.uint8)
    mask[20:32, 25:40, 1] = label
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(mask, np.diag([6, 6, 5, 1.0])), file)


@pytest.fixture(scope="module")
def place(phantom_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where all commands of the page were run, in turn."""
    root = tmp_path_factory.mktemp("page")
    shutil.copytree(phantom_root, root / "scans")
    shutil.copytree(next((phantom_root / "Pancreas-CT").iterdir()), root / "more" / "one")
    write_mask(root / "masks" / "square.nii.gz")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for name in ("MEDAUG_DATA", "MEDAUG_CACHE"):
            patch.delenv(name, raising=False)
        for block in blocks("bash"):
            for line in filter(None, block.splitlines()):
                command(line, patch)
    return root


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def labels(folder: Path) -> np.ndarray:
    files = sorted((folder / "labelsTr").glob("*.nii.gz"))
    return np.stack([np.asarray(nib.load(file).dataobj)[..., 0] for file in files])


def settings(folder: Path) -> dict[str, object]:
    return json.loads((folder / "run.json").read_text())["settings"]


@pytest.mark.long
def test_the_commands_write_what_the_page_says(place: Path) -> None:
    said = {
        "drawn": "a real layout deformed at strength 1",
        "bent": "a real layout deformed at strength 1.5",
        "mine": "a mask of the user's",
        "shapes": "a layout drawn by the run of masks",
        "torn": "a real layout deformed at strength 1",
    }
    prints = set()
    for name, origin in said.items():
        verified(place / name)
        prints.add(settings(place / name)["masks"])
        for row in rows(place / name):
            assert row["mask"].startswith(origin)
            assert row["uncertainty_source"] == ("mask" if name == "torn" else "latent")
    assert len(prints) == len(said) - 1  # drawn and torn are given the same masks
    assert set(np.unique(labels(place / "mine"))) == {0, 1}
    assert (labels(place / "mine") == labels(place / "mine")[0]).all()
    assert (labels(place / "torn") == 2).any()  # nnU-Net's ignore


def test_other_masks_in_the_same_folder_are_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    words = "medaug synthesize -n 3 --out mine --run runs/layout --masks cache/scans --no-filter"
    monkeypatch.setattr(sys, "argv", words.split())
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "masks" in capsys.readouterr().err


def test_the_snippets_run(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    sources, anew = blocks("python")
    exec(sources, {})
    found = [(words[0], float(words[-2]), float(words[-1])) for words in
             map(str.split, capsys.readouterr().out.splitlines())]  # fmt: skip
    assert [name for name, _, _ in found] == ["latent", "network", "mask"]
    assert all(std > 0 for _, std, _ in found)
    assert [entropy > 0 for _, _, entropy in found] == [False, False, True]
    names: dict[str, np.ndarray] = {}
    exec(anew, names)
    assert names["varied"].shape == names["redrawn"].shape == names["image"].shape
    assert np.array_equal(names["same"], names["label"])
    assert not np.array_equal(names["varied"], names["redrawn"])


def test_ids_that_are_not_known_are_refused_by_name(place: Path, tmp_path: Path) -> None:
    write_mask(tmp_path / "other.nii.gz", 9)
    with pytest.raises(DataError, match=r"other\.nii\.gz: label id 9 is not known .*1 pancreas"):
        Generator.from_pretrained(place / "runs/layout", masks=tmp_path)
    with pytest.raises(ConfigError, match="0 to 4, got 5"):
        Generator.from_pretrained(place / "runs/layout", mask_strength=5)


def test_the_numbers_are_the_codes() -> None:
    low, middle, high = CT.bands
    ranges = [f"below {low:g}", f"{low:g} to {middle:g}", f"{middle:g} to {high:g}"]
    ranges += [f"above {high:g}"]
    for (name, number), span in zip(CT.tissues.items(), ranges, strict=True):
        assert f"| {number} | {name} | {span} |\n" in PAGE
    assert f"above {CT.body_in_slice} HU" in PAGE
    text = " ".join(PAGE.split())
    void, dark, medium, _ = MR.tissues
    low, middle, high = MR.bands
    assert f"{void} below {low:g} thousandths, {dark} to {middle:g}, {medium} to {high:g}" in text
    assert list(MR.tissues.values()) == list(CT.tissues.values())
    assert f"above {MR.body_in_slice}." in text
    assert (
        f"rotation is up to {AMOUNTS['rotate']} radians, scaling up to {AMOUNTS['scale']}" in text
    )
    assert f"shifts up to {AMOUNTS['shift']} of the field" in text
    assert f"deviation of {AMOUNTS['elastic']} half fields" in text
    assert f"the mask deformed at strength {NUDGE}" in text


def test_the_page_is_linked_and_its_links_lead_somewhere() -> None:
    assert "(docs/layouts.md)" in (DOCS.parent / "README.md").read_text()
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", PAGE):
        assert (DOCS / target).exists()
