"""``medaug evaluate``: what it takes, measures once, writes, and refuses."""

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medaug.core.errors import CacheError, ConfigError, DataError, OutputError
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
from medaug.evaluation import evaluate, saved_parts
from medaug.evaluation.families import FAMILIES
from medaug.evaluation.report import SCHEMA, gather, plan
from medaug.evaluation.settings import resolve_evaluate
from medaug.evaluation.subject import Subject, open_setting
from medaug.synthesis.generator import Generator
from medaug.synthesis.synthesize import synthesize
from tests.conftest import Medaug
from tests.support import report_parts
from tests.support.evaluated import foreign_folder, nifti, settled

pytestmark = pytest.mark.usefixtures("two_parts")


@pytest.fixture(scope="module")
def made(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty samples with alternatives, as medaug synthesize writes them."""
    folder = tmp_path_factory.mktemp("made") / "syn"
    generator = Generator.from_pretrained(tiny_run, "cpu")
    synthesize(generator, 20, folder, uncertainty=3, format="nifti")
    return folder


def test_files_that_were_changed_are_refused(
    made: Path, phantom_cache: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(made, changed)
    first, second = (changed / "labelsTr" / f"syn_00000{n}.nii.gz" for n in (5, 6))
    first.write_bytes(second.read_bytes())
    with pytest.raises(DataError, match="the files of syn_000005 are not as they were written"):
        settled(changed, phantom_cache)


@pytest.fixture
def foreign(phantom_cache: Path, tmp_path: Path) -> Path:
    return foreign_folder(SliceCache.open(phantom_cache), tmp_path / "foreign")


def test_our_own_folder_is_read_as_it_was_drawn(
    made: Path, tiny_run: Path, phantom_cache: Path, tmp_path: Path
) -> None:
    setting = settled(made, phantom_cache)
    evidence = gather(setting, tmp_path)
    drawn = list(Generator.from_pretrained(tiny_run, "cpu").generate(20, 0, 3))
    low, high = setting.frame.window_hu
    for name in ("labels", "std", "entropy"):
        one = {"labels": "label"}.get(name, name)
        assert np.array_equal(
            getattr(evidence.synthetic, name), [getattr(s, one) for s in drawn]
        ), name
    assert np.array_equal(evidence.synthetic.images, [s.image.clip(low, high) for s in drawn])
    assert evidence.synthetic.cases[:2] == ["syn_000000", "syn_000001"]
    cache = SliceCache.open(phantom_cache)
    assert {*evidence.heldout.cases} == {*cache.split["heldout"]}
    assert {*evidence.train.cases} <= {*cache.split["train"]}


def test_a_run_is_drawn_the_same_as_its_folder(
    made: Path, tiny_run: Path, phantom_cache: Path, tmp_path: Path
) -> None:
    ours = open_setting(tiny_run, None, None, 20, 0, 3, resolve_evaluate({}), "cpu")
    assert ours.cache.path == phantom_cache
    drawn, read = (
        gather(s, tmp_path / str(i)).synthetic
        for i, s in enumerate((ours, settled(made, phantom_cache)))
    )
    for name in ("images", "labels", "std", "entropy"):
        assert np.array_equal(getattr(drawn, name), getattr(read, name)), name
    again = gather(ours, tmp_path / "0").synthetic  # from the chunks kept
    assert np.array_equal(again.images, drawn.images)


def test_stacks_give_several_slices_a_case(
    tiny_run: Path, phantom_cache: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "stacks"
    generator = Generator.from_pretrained(tiny_run, "cpu")
    synthesize(generator, 2, folder, uncertainty=0, stack=4)
    config = resolve_evaluate({"min_label_pixels": 0})
    setting = open_setting(None, folder, phantom_cache, 1, 0, 0, config, "cpu")
    slices = gather(setting, tmp_path / "kept").synthetic
    assert slices.cases == ["syn_000000"] * 4 + ["syn_000001"] * 4
    assert slices.heights.tolist() == [0, 1, 2, 3] * 2
    assert slices.std is None


def test_real_slices_beside_synthetic_ones_do_not_count(
    tiny_run: Path, phantom_cache: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mixed"
    generator = Generator.from_pretrained(tiny_run, "cpu")
    synthesize(generator, 3, folder, uncertainty=0, with_real=phantom_cache)
    assert list((folder / "imagesTr").glob("real_*"))
    assert len(gather(settled(folder, phantom_cache), tmp_path / "kept").synthetic) == 3


def test_what_does_not_fit_is_refused_with_the_way_out(
    foreign: Path, phantom_cache: Path, made: Path, tiny_run: Path, tmp_path: Path
) -> None:
    cache = SliceCache.open(phantom_cache)
    other = tmp_path / "other"
    nifti(other / "a.nii.gz", np.full((3, 48, 48), -50, np.int16), (7.5, 7.5, 2.0))
    with pytest.raises(
        DataError, match=r"48 x 48 pixels of 7.5 x 7.5 mm, .*--cache NEW --size 48 --fov 360"
    ):
        gather(settled(other, phantom_cache), tmp_path / "kept")
    bright = tmp_path / "bright"
    side = next(iter(cache.cases.values())).spacing_mm
    nifti(bright / "images" / "a.nii.gz", np.full((3, 32, 32), 90, np.int16), side)
    with pytest.raises(DataError, match="no value below 0 in any of its images"):
        gather(settled(bright, phantom_cache), tmp_path / "kept")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("L", (32, 32)).save(pictures / "a.png")
    with pytest.raises(DataError, match=r"holds pictures such as a.png, whose grey levels are no"):
        settled(pictures, phantom_cache)
    synthesize(Generator.from_pretrained(tiny_run, "cpu"), 1, tmp_path / "png", format="png")
    with pytest.raises(DataError, match="PNG holds 256 grey levels and no HU"):
        settled(tmp_path / "png", phantom_cache)
    (foreign / "imagesTr" / "a_0000.nii.gz").write_bytes(b"no")
    with pytest.raises(DataError, match="1 cases cannot be used"):
        settled(foreign, phantom_cache)
    with pytest.raises(DataError, match="no such folder"):
        settled(tmp_path / "nowhere", phantom_cache)
    with pytest.raises(ConfigError, match="name the cache"):
        settled(made, None)


def test_nobody_held_out_is_one_clear_sentence(
    made: Path,
    phantom_root: Path,
    tmp_path: Path,
    medaug: Medaug,
) -> None:
    from medaug.data import open_source

    all_in = tmp_path / "all"
    settings = CacheSettings(size=32, holdout=0.0)
    prepare(open_source(str(phantom_root)), all_in, settings, 0)
    with pytest.raises(CacheError, match=r"no patient is held out.*--holdout 0.3"):
        settled(made, all_in)
    told = medaug("prepare", phantom_root, "--cache", "new", "--size", 32, "--holdout", 0.5)
    assert "2 for training, 2 held out" in told.out
    assert settled(made, Path("new")).cache.split["heldout"]


def test_the_report_holds_every_figure_bound_and_verdict(
    made: Path, tiny_run: Path, phantom_cache: Path, tmp_path: Path
) -> None:
    report = evaluate(tmp_path / "r", run=tiny_run, synthetic=made, device="cpu")
    content = json.loads((tmp_path / "r" / "report.json").read_text())
    assert content == report.content
    assert content["schema"] == SCHEMA
    assert report.passed is False  # noise is unlike real slices
    assert report.failed == ["fidelity.frechet.coarse"]
    figures = {figure["name"]: figure for figure in content["figures"]}
    distance = figures["fidelity.frechet.coarse"]
    assert distance["bound"] == {"least": None, "most": 3, "of": "ratio"}
    assert distance["ratio"] == pytest.approx(distance["value"] / distance["real"])
    assert distance["passed"] is False
    assert distance["n_real"] == len(gather(settled(made, phantom_cache), tmp_path / "k").heldout)
    assert figures["fidelity.mean_hu"]["passed"] is None
    assert content["parts"]["privacy"]["passed"] is True
    assert content["parts"]["privacy"]["details"] == {"generator": True}
    assert content["against"]["heldout"] == SliceCache.open(phantom_cache).split["heldout"]
    assert content["judged"]["settings"]["seed"] == 0
    assert (tmp_path / "r" / "index.html").stat().st_size > 10_000


def test_real_heldout_slices_pass_and_training_slices_are_copies(
    foreign: Path, phantom_cache: Path, tmp_path: Path
) -> None:
    (foreign / "dataset.json").unlink()
    shutil.rmtree(foreign / "labelsTr")
    report = evaluate(tmp_path / "r", synthetic=foreign, against=phantom_cache, device="cpu")
    assert report.passed
    assert report.verdict == "Within the bounds: fidelity and privacy."
    cache = SliceCache.open(phantom_cache)
    case = cache.cases[cache.split["train"][0]]
    nifti(foreign / "imagesTr" / "a_0000.nii.gz", np.array(case.image), case.spacing_mm)
    report = evaluate(tmp_path / "r", synthetic=foreign, against=phantom_cache, device="cpu")
    assert "privacy.exact_copies" in report.failed  # another content, so measured anew


def test_a_kill_loses_at_most_one_part(
    made: Path, phantom_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {"synthetic": made, "against": phantom_cache, "device": "cpu"}
    monkeypatch.setitem(FAMILIES, "privacy", report_parts.broken)
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path / "r", **asked)
    assert not (tmp_path / "r" / "report.json").exists()
    assert plan(tmp_path / "r", **asked).there == ["fidelity"]
    monkeypatch.setitem(FAMILIES, "fidelity", report_parts.broken)
    monkeypatch.setitem(FAMILIES, "privacy", report_parts.privacy)
    first = evaluate(tmp_path / "r", **asked)  # would be interrupted if it measured fidelity again
    page = (tmp_path / "r" / "index.html").read_bytes()
    monkeypatch.setitem(FAMILIES, "fidelity", report_parts.fidelity)
    fresh = evaluate(tmp_path / "fresh", **asked)
    assert fresh.content["figures"] == first.content["figures"]
    told = {"reproduce", "seconds"}
    assert {k: v for k, v in fresh.content.items() if k not in told} == {
        k: v for k, v in first.content.items() if k not in told
    }
    assert page == (tmp_path / "fresh" / "index.html").read_bytes().replace(b"fresh", b"r")


def test_a_damaged_part_is_measured_again(made: Path, phantom_cache: Path, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"synthetic": made, "against": phantom_cache, "device": "cpu"}
    first = evaluate(tmp_path, **asked)
    (tmp_path / "parts" / "fidelity.npz").unlink()
    (tmp_path / "parts" / "privacy.json").write_text('{"version": 1, "key"')
    assert plan(tmp_path, **asked).there == []
    assert evaluate(tmp_path, **asked).content == first.content


def test_another_seed_or_cap_is_measured_anew(
    made: Path, phantom_cache: Path, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {"synthetic": made, "against": phantom_cache, "device": "cpu"}
    evaluate(tmp_path, **asked)
    assert plan(tmp_path, **asked).there == ["fidelity", "privacy"]
    assert plan(tmp_path, **asked, seed=1).there == []
    capped = resolve_evaluate({"slices": 10})
    assert plan(tmp_path, **asked, config=capped).there == []
    report = evaluate(tmp_path, **asked, config=capped)
    assert {figure["n"] for figure in report.content["figures"]} == {10}


def test_bounds_come_from_the_config_without_measuring_again(
    made: Path, phantom_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {"synthetic": made, "against": phantom_cache, "device": "cpu"}
    evaluate(tmp_path, **asked)
    for name in ("fidelity", "privacy"):
        monkeypatch.setitem(FAMILIES, name, report_parts.broken)

    def judged(bounds: dict[str, Any]) -> tuple[bool | None, list[str]]:
        report = evaluate(tmp_path, **asked, config=resolve_evaluate({"bounds": bounds}))
        return report.passed, report.failed

    assert judged({}) == (False, ["fidelity.frechet.coarse"])
    assert judged({"fidelity": {"frechet": {"coarse": {"most": 1e9}}}}) == (True, [])
    assert judged({"fidelity.frechet.coarse": None}) == (True, [])
    strict = {"fidelity.frechet.coarse": None, "fidelity.mean_hu": {"least": 1e6}}
    assert judged(strict) == (False, ["fidelity.mean_hu"])
    with pytest.raises(ConfigError, match=r"bounds.fidelity.frechet.corse.*did you mean fidelity"):
        judged({"fidelity.frechet.corse": {"most": 1}})
    assert judged({"anatomy.area": {"most": 1}})[0] is False  # of a part not measured here


def test_what_cannot_be_measured_fails_its_bound_and_is_null_in_json(
    made: Path, phantom_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FAMILIES, "diversity", report_parts.lacking)
    asked: dict[str, Any] = {"synthetic": made, "against": phantom_cache, "device": "cpu"}
    report = evaluate(tmp_path, **asked, families=["diversity"])
    assert report.failed == ["diversity.recall"]
    text = (tmp_path / "report.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["figures"][0]["value"] is None
    assert json.loads(text)["parts"]["diversity"]["details"] == {"nan": None, "n": 3}
    assert list(json.loads(text)["parts"]) == ["diversity"]
    assert "not measured" in (tmp_path / "index.html").read_text()


def test_parts_come_back_as_they_went(made: Path, phantom_cache: Path, tmp_path: Path) -> None:
    setting = settled(made, phantom_cache)
    subject = Subject(gather(setting, tmp_path), setting)
    for measure in (report_parts.fidelity, report_parts.privacy):
        family = measure(subject)
        saved_parts.save(tmp_path, "x", "key", family)
        back = saved_parts.load(tmp_path, "x", "key")
        assert back is not None
        assert list(back.figures) == list(family.figures)
        assert [{**vars(c), "lines": list(c.lines.items())} for c in back.curves] == [
            {**vars(c), "lines": list(c.lines.items())} for c in family.curves
        ]
        for ours, theirs in zip(back.pictures, family.pictures, strict=True):
            for row, other in zip(ours.rows, theirs.rows, strict=True):
                assert all(np.array_equal(a, b) for a, b in zip(row, other, strict=True))
        assert saved_parts.load(tmp_path, "x", "another") is None


def test_the_command_gates_plans_and_answers_in_json(
    medaug: Medaug,
    made: Path,
    phantom_cache: Path,
) -> None:
    ask = ("evaluate", "--out", "r", "--synthetic", made, "--against", phantom_cache)
    would = medaug(*ask, "--dry-run", "--json")
    assert would.code == 0
    assert would.json["families"] == ["fidelity", "privacy"]
    assert not Path("r").exists()
    told = medaug(*ask)
    assert told.code == 0
    assert "Not within the bounds: fidelity; privacy held." in told.out
    assert medaug(*ask, "--gate").code == 1
    loose = ("--set", "evaluate.bounds.fidelity.frechet.coarse.most=1e9")
    names = ("fidelity.frechet.coarse", "privacy.exact_copies")
    unbound = (word for name in names for word in ("--set", f"evaluate.bounds.{name}=null"))
    assert medaug(*ask, "--gate", *unbound).code == 1
    answer = medaug(*ask, "--gate", "--json", *loose)
    assert answer.code == 0
    assert answer.json["passed"] is True
    assert answer.json == json.loads(Path("r/report.json").read_text())
    again = answer.json["reproduce"]
    for word, place in (("OUT", "again"), ("SYNTHETIC", made), ("CACHE", phantom_cache)):
        again = again.replace(word, str(place))
    assert medaug(*shlex.split(again)[1:]).code == 0
    there = json.loads(Path("again/report.json").read_text())
    assert there["figures"] == answer.json["figures"]
    looked = medaug("inspect", "r", "--json")
    assert looked.json["what"] == "report"
    assert looked.json["verdict"] == answer.json["verdict"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--families", "fidelty"], "did you mean 'fidelity'"),
        (["--set", "filter.tail=1"], "config filter is not known here; known: evaluate"),
        (
            ["--set", "evaluate.slice=1"],
            "did you mean evaluate.slices",
        ),
        (["--set", "evaluate.labels=[spleen]"], "has no label 'spleen'"),
        (["--set", "evaluate.window_hu=[1, 0]"], "lower bound must be below"),
        (["--seed", "-1"], "seed must be at least 0"),
        (["--downstream", "no.json"], "no.json: no result of a downstream study"),
        (["--against", "nowhere"], "nowhere: no such folder"),
        (["--synthetic", "gone"], "gone: no such folder"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    medaug: Medaug,
    made: Path,
    phantom_cache: Path,
    words: list[str],
    said: str,
) -> None:
    ask = ["evaluate", "--out", "r", "--synthetic", made, "--against", phantom_cache, *words]
    told = medaug(*ask)
    assert told.code == 2
    assert said in told.err
    assert told.err.count("\n") == 1
    assert not Path("r").exists()


def test_a_folder_of_something_else_is_refused(
    made: Path, phantom_cache: Path, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {"synthetic": made, "against": phantom_cache, "device": "cpu"}
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"holds notes.txt, which is no report"):
        evaluate(tmp_path, **asked)
    with pytest.raises(OutputError, match="which is no report"):
        evaluate(made, **asked)
