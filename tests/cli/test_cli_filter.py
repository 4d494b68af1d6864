"""The commands and the filter: noise is refused, and where there is none it says so."""

import re
import shutil
from functools import partial
from pathlib import Path

import pytest

from medaug.synthesis.filter import open_filter
from medaug.synthesis.filter.settings import FilterConfig
from medaug.synthesis.generator import Generator
from medaug.training.run import trained_on
from tests.conftest import Medaug

PAGE = Path(__file__).parents[2] / "docs" / "filter.md"


def test_the_snippet_of_the_page_runs(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = Path("runs/pancreas-spatial_vaegan")
    shutil.copytree(tiny_run, run)
    data = Generator.from_pretrained(run).settings.data
    few = partial(FilterConfig, segmenter_images=16, folds=2)
    monkeypatch.setattr("medaug.synthesis.filter.filter.FilterConfig", few)
    open_filter(run / "filter.safetensors", cache=trained_on(tiny_run), data=data)
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    told: list[list[str]] = []
    exec(snippet, {"print": told.append})
    assert len(told[0]) == 4


def test_noise_does_not_pass_the_filter_and_nothing_is_written(
    medaug: Medaug, tiny_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    few = ["--set", "filter.segmenter_images=16", "--set", "filter.folds=2"]
    made = medaug("synthesize", "-n", 4, "--out", "out", "--run", run, "--uncertainty", 0, *few)
    assert made.code == 2
    assert "was refused 64 times, mostly for" in made.err
    assert "--no-filter" in made.err
    assert (run / "filter.safetensors").exists()
    assert not list(Path("out").glob("imagesTr/*"))
    kept = (run / "filter.safetensors").stat().st_mtime_ns
    lax = ["noise_above", "body_share", "hu_margin", "hu_spread", "area_factor", "components_more"]
    lax += ["agreement_margin", "copy_share"]
    loose = [part for name in lax for part in ("--set", f"filter.{name}=null")]
    loose += ["--set", "filter.empty=allow"]
    made = medaug("synthesize", "-n", 4, "--out", "out2", "--run", run, *few, *loose, "--json")
    assert made.code == 0, made.err
    assert made.json["refused"] == {}
    assert (run / "filter.safetensors").stat().st_mtime_ns == kept


def test_where_no_filter_can_be_had_it_says_so(
    medaug: Medaug, tiny_run: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "alone.safetensors"
    shutil.copy(tiny_run / "model.safetensors", alone)
    make = ["synthesize", "-n", 2, "--out", "out", "--run", alone, "--uncertainty", 0]
    made = medaug(*make)
    assert made.code == 0, made.err
    assert "not filtered: " in made.err
    assert "the slices it was trained on are not at hand" in made.err
    must = medaug(*make, "--filter")
    assert must.code == 2
    assert "leave --filter out" in must.err
    unknown = medaug(*make, "--set", "filter.hu_margins=3")
    assert unknown.code == 2
    assert "did you mean filter.hu_margin" in unknown.err
    other = medaug(*make, "--set", "data.size=3")
    assert other.err == "medaug: config data is not known here; known: filter\n"
