"""The options of ``medaug prepare`` about scans are options of ``medaug train`` as well."""

import json
from pathlib import Path

import pytest

from medaug.data.cache.prepare import SliceCache
from medaug.synthesis.generator import Generator
from tests.cli.test_cli import SETTINGS
from tests.conftest import Medaug
from tests.support import magnetic

OPTIONS = ["--labels", "liver", "--modality", "MR", "--names", "names.json"]


@pytest.fixture
def amos(tmp_path: Path) -> Path:
    """Three MR scans as AMOS22 numbers them, whose dataset.json says CT and names no label."""
    return magnetic.write(tmp_path / "amos", ["amos_0507", "amos_0510", "amos_0540"])


@pytest.mark.long
@pytest.mark.parametrize("first", ["prepare", "train"])
def test_both_make_and_take_the_same_cache(
    medaug: Medaug, amos: Path, tmp_path: Path, first: str
) -> None:
    Path("names.json").write_text(json.dumps({"labels": {"pancreas": 1, "liver": 2}}))
    geometry = ["--size", 32]
    prepare = ["prepare", amos, *geometry, *OPTIONS, "--json"]
    train = ["train", "--data", amos, "--run", "run", *SETTINGS, *OPTIONS, "--json"]
    dry = medaug(*train, "--dry-run")
    assert dry.code == 0, dry.err
    assert not Path("cache").exists()
    for command in (prepare, train) if first == "prepare" else (train, prepare):
        done = medaug(*command)
        assert done.code == 0, done.err
    (place,) = Path("cache").iterdir()
    assert str(place) == dry.json["cache"]
    assert place.name.endswith("-mr-liver")
    cache = SliceCache.open(place)
    assert (cache.modality, cache.labels) == ("MR", {"liver": 2})
    if first == "train":
        assert done.json["done"] == []
    assert Generator.from_pretrained(Path("run"), "cpu").kind == "mr"


def test_what_cannot_be_granted_is_refused(medaug: Medaug, phantom_cache: Path, amos: Path) -> None:
    for option, value in (("--labels", "pancreas"), ("--modality", "CT"), ("--names", "btcv")):
        done = medaug("train", "--data", phantom_cache, "--run", "run", option, value)
        assert done.code == 2
        assert f"{option[2:]} is for scans, and this is a finished cache" in done.err
    for option, value, told in (
        ("--labels", "spleen", "spleen"),
        ("--modality", "PET", "modality 'PET' is not known (known: CT, MR)"),
        ("--names", "nobody", "nobody"),
    ):
        done = medaug("train", "--data", amos, "--run", "run", option, value)
        assert done.code == 2, done.err
        assert told in done.err
    assert not Path("run").exists()
    assert not Path("cache").exists()
