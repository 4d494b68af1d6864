"""Names from elsewhere stay in their folder, and do nothing to a terminal, a page or a table."""

import csv
import io
import json
import os
import re
import shlex
import shutil
from html.parser import HTMLParser
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medaug.core.config import resolve
from medaug.core.errors import CacheError, DataError
from medaug.core.text import LONGEST_NAME, cell, file_name, is_file_name, tell, visible
from medaug.core.types import Sample
from medaug.data import open_source
from medaug.data.cache.store import SliceCache
from medaug.data.checks.reduced import Finding
from medaug.data.quality import Judged
from medaug.data.quality.page import render
from medaug.data.sources.collections.collection import Collection, Entry
from medaug.data.sources.phantom.source import draw
from medaug.data.sources.unlabeled import Unlabeled
from medaug.evaluation.figures import Curve, Family, Figure
from medaug.evaluation.page import render as report
from medaug.runtime.files import sealed
from medaug.runtime.pictures import Picture
from medaug.runtime.progress import Plain
from medaug.synthesis.manifest import COLUMNS, csv_line, describe, describe_real
from medaug.synthesis.real_slices import real_slices
from medaug.synthesis.writers import inside, open_writer
from tests.conftest import Medaug, write_series

HOSTILE = [
    "../../escaped", "..", ".", "", ".hidden", "/absolute", "a/b", "C:\\escaped", "a\\..\\b",
    "nul\0byte", "new\nline", "tab\there", "bell\a", "\x1b[31mred\x1b[0m", "\x9b31m",
    "x" * 10_000, "é" * 5_000, "gnp\u202e.exe", "\u2066isolate", "zero\u200bwidth", "\ufeffmark",
    "bytes\udcff\udc80", "con", "AUX.nii", "LPT1", "nul .txt", "dot.", "space ", " space",
    "<script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>", "</script>", "&amp;",
    "{{ 7 * 7 }}", "{% raw %}", "=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1",
    "|calc", "%0A", "＝1+1", "$(touch canary)", "`touch canary`", "; touch canary", "| tee canary",
    "a,b", 'a"b', "a'b", "*", "?", "~root", "-rf", "\u2028", "\u0430dmin",
    "e\u0301" * 40, "\U0001f480",
]  # fmt: skip
NUMBER = re.compile(r"[-+]?([\d.]+(e[-+]?\d+)?|inf|nan|infinity)", re.IGNORECASE)
names = st.text(st.characters(), max_size=400) | st.sampled_from(HOSTILE)


@settings(deadline=None)
@given(names)
def test_every_name_becomes_one_that_stays_in_its_folder(name: str) -> None:
    made = file_name(name)
    assert is_file_name(made)
    assert file_name(made) == made
    assert Path("folder", made).parent == Path("folder")
    assert os.path.normpath(f"folder/{made}") == f"folder/{made}"
    assert len(os.fsencode(made)) <= LONGEST_NAME
    assert not any(ord(c) < 32 or c in '/\\<>:"|?*\0' for c in made)


def test_plain_names_stay_and_different_names_stay_different() -> None:
    for name in ("PANCREAS_0001", "s0011", "volume-3", "été (2)", "liver 07", "a.b", "\U0001f480"):
        assert file_name(name) == name
    made = {file_name(name) for name in HOSTILE}
    assert len(made) == len(HOSTILE)
    assert file_name("x" * 10_000) != file_name("x" * 10_001)


@settings(deadline=None)
@given(names)
def test_a_terminal_is_only_told_what_can_be_seen(name: str) -> None:
    shown = visible(name)
    assert all(c.isprintable() or c in "\n\t" for c in shown)
    assert visible(shown) == shown
    shown.encode()


def test_plain_text_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert visible("64 × 64, 3 mm²\n\tété") == "64 × 64, 3 mm²\n\tété"
    assert visible("a\x1b[2Jb\u202ec\udcff") == "a\\x1b[2Jb\\u202ec\\udcff"
    tell("\x1b]0;title\a")
    bar = Plain("prepare", 2, 0, "scans")
    bar.note = "\x1b[31m"
    bar.show()
    assert "\x1b" not in capsys.readouterr().err


@settings(deadline=None)
@given(names)
def test_a_value_of_a_table_is_one_cell_and_no_formula(name: str) -> None:
    made = cell(name)
    (row,) = csv.reader(io.StringIO(f"{made},end\n"))
    assert row == [made, "end"]
    assert not re.match(r"\s*[=+@|%＝＋＠-]", made) or NUMBER.fullmatch(made.strip())


def test_numbers_stay_numbers() -> None:
    for text in ("-3.5", "+2", "1e-5", "0", "", "liver=1;height=0.25", "-inf"):
        assert cell(text) == text
    assert cell("=1+1") == "'=1+1"
    assert cell("\t=1") == "_=1"
    assert cell("-1+cmd") == "'-1+cmd"


@pytest.mark.parametrize("hostile", HOSTILE)
def test_the_manifest_holds_no_formula_and_no_second_cell(hostile: str) -> None:
    image = np.zeros((4, 4), np.int16)
    sample = Sample(
        0, image, image.astype(np.uint8), np.eye(4), image[None][:0], None,
        np.zeros((4, 4), np.float32), None,
        {"patient": hostile, "class": hostile, "mask": hostile, "refused": (hostile,),
         "condition": {hostile: 1.0}},
    )  # fmt: skip
    for row in (
        describe(sample, "ct", 0, "f" * 64, {}),
        describe_real(sample, "ct", "real_a_z001", {}),
    ):
        line = csv_line(row[column] for column in COLUMNS).decode()
        (parsed,) = csv.reader(io.StringIO(line))
        assert dict(zip(COLUMNS, parsed, strict=True)) == row
        for value in row.values():
            assert value == cell(value)


def scan(root: Path, name: str, number: int) -> None:
    hu, labels, _ = draw(number, (64, 64, 20), (6.0, 6.0, 9.5))
    for folder, array in (("images", hu), ("labels", labels)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        image = nibabel.Nifti1Image(np.ascontiguousarray(array), np.diag([6.0, 6.0, 9.5, 1.0]))
        nibabel.save(image, root / folder / "plain.nii")
        (root / folder / "plain.nii").rename(root / folder / f"{name}.nii")


def test_scans_called_anything_reach_the_cache_the_page_and_the_samples(
    medaug: Medaug, tmp_path: Path
) -> None:
    given_names = ["=1+1|' $(touch canary)", "gnp\u202etxt.", "\x1b[31m\n<b>", "_label\udcff"]
    for number, name in enumerate(given_names):
        scan(tmp_path / "scans", name, number)
    told = [
        medaug("prepare", "scans", "--cache", "cache", "--size", 32, "--workers", 0),
        medaug("inspect", "scans", "--out", "page.html"),
        medaug("inspect", "cache"),
    ]
    for done in told:
        assert done.code == 0, done.err
        assert visible(done.out + done.err) == done.out + done.err
    assert {p.name for p in tmp_path.iterdir()} == {"scans", "cache", "page.html"}
    cache = SliceCache.open(tmp_path / "cache")
    assert len(cache.cases) == len(given_names)
    assert {p.name for p in (tmp_path / "cache" / "cases").iterdir()} == set(cache.cases)
    found = real_slices(tmp_path / "cache", cache.labels, resolve().data, "nifti")
    assert len({patient for patient, _ in found.places.values()}) >= 2
    for case in found.places:
        assert re.fullmatch(r"[\w.+-]+", case)
        for name, _ in open_writer("nifti")[1].files(found.sample(case), case, 1).values():
            assert re.fullmatch(r"(imagesTr|labelsTr)/[\w.+-]+", name)
    check_page((tmp_path / "page.html").read_text())


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def check_page(text: str) -> None:
    """No script, no request, no hidden character, whatever the names in it."""
    reader = Elements()
    reader.feed(text)
    for tag, attributes in reader.found:
        assert tag not in ("script", "iframe", "object", "embed", "form", "base", "foreignobject")
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "action", "data", "xlink:href"):
            place = attributes.get(name) or "#"
            assert place.startswith(("#", "data:")), (tag, name, place)
    assert text.count("<!doctype html>") == 1
    assert visible(text) == text


@pytest.mark.parametrize("hostile", HOSTILE)
def test_the_quality_page_shows_names_and_runs_nothing(hostile: str) -> None:
    finding = Finding(hostile, "body", "doubtful", hostile)
    judged = Judged(hostile, (finding,), hostile, ((hostile, np.zeros((4, 4), np.uint8)),))
    page = render(hostile, [judged], {hostile: hostile})
    check_page(page)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_the_report_shows_names_and_runs_nothing(hostile: str) -> None:
    picture = Picture(hostile, hostile, [[np.zeros((4, 4), np.uint8)]], [hostile])
    curve = Curve(hostile, hostile, hostile, hostile, {hostile: ([0, 1], [0, 1])})
    figure = Figure("privacy.auc", 0.5, None, hostile, 9, 9, unit=hostile, extractor=hostile)
    family = Family("privacy", [figure], [picture], [curve], {}, [hostile])
    content = {
        "passed": None,
        "verdict": hostile,
        "judged": {"what": hostile, "weights": hostile},
        "against": {"cache": hostile, "source": hostile, "fingerprint": hostile, "train": [hostile],
                    "heldout": [hostile]},
        "settings": {"window_hu": [-160, 240], "size": 64, "pixel_mm": 5.6, "slices": 50,
                     "labels": [hostile], "seed": 0, "unit": hostile},
        "versions": {"medaug": hostile, "torch": hostile},
        "reproduce": shlex.join(["medaug", "evaluate", "--run", hostile]),
        "downstream": {"rows": [], "notes": [hostile]},
    }  # fmt: skip
    check_page(report(content, [family], [picture], [curve]))


OUTSIDE = ["../../escaped", "/etc/hostname", "a/../../b", "..\\up", "a\0b"]


@pytest.mark.parametrize("hostile", OUTSIDE)
def test_a_manifest_names_no_file_outside_its_folder(hostile: str, tmp_path: Path) -> None:
    (tmp_path / "escaped").write_bytes(b"secret")
    folder = tmp_path / "deep" / "out"
    folder.mkdir(parents=True)
    with pytest.raises(DataError, match="which is not in the folder"):
        inside(folder, hostile)
    row = {"image": hostile, "label": "", "std": "", "index": "0", "kind": "ct"}
    for form in ("nifti", "png", "dicom"):
        with pytest.raises(DataError, match="which is not in the folder"):
            open_writer(form)[1].read(folder, row)


@pytest.mark.parametrize("hostile", [*OUTSIDE, "", ".", "..", ".part-x"])
def test_a_cache_names_no_case_outside_its_folder(
    hostile: str, phantom_cache: Path, tmp_path: Path
) -> None:
    place = tmp_path / "cache"
    shutil.copytree(phantom_cache, place)
    index = json.loads((place / "cache.json").read_text())
    index["expected"].append(hostile)
    (place / "cache.json").write_text(json.dumps(sealed(index)))
    with pytest.raises(CacheError, match="which cannot be a folder"):
        SliceCache.open(place)


@pytest.mark.parametrize("hostile", ["x" * 65, "a\nb", "\x1b[31m", "\u202egnp", "a\\b", ""])
def test_labels_are_called_by_words_that_can_be_seen(hostile: str, tmp_path: Path) -> None:
    scan(tmp_path / "scans", "a", 1)
    root = tmp_path / "scans"
    (root / "images").rename(root / "imagesTr")
    (root / "labels").rename(root / "labelsTr")
    (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, hostile: 1}}))
    with pytest.raises(DataError):
        _ = open_source(str(root)).labels


@pytest.mark.parametrize("hostile", [name for name in HOSTILE if name.isprintable()])
def test_what_a_dicom_header_says_names_no_file(hostile: str, tmp_path: Path) -> None:
    folder = tmp_path / "root" / "deep"
    hu = draw(3, (16, 16, 4), (20.0, 20.0, 40.0))[0]
    with pydicom.config.disable_value_validation():
        for file in write_series(folder, "PANCREAS_0007", hu, (20.0, 20.0, 40.0)):
            data = pydicom.dcmread(file)
            data.SpecificCharacterSet, data.SeriesInstanceUID = "ISO_IR 192", "../../../escaped"
            for word in ("PatientID", "SeriesDescription", "StudyDescription", "PatientName"):
                setattr(data, word, hostile)
            data.save_as(file)
    cases, problems = Unlabeled(tmp_path / "root").cases()
    told = [case.id for case in cases] + [problem.case for problem in problems]
    assert len(told) == 1
    assert re.fullmatch(r"scan-[0-9a-f]{12}", told[0])


def test_two_names_for_one_place_are_told_apart() -> None:
    entries = [Entry(name, (Path("a.nii"),)) for name in ("a/b", "a\\b", "a:b")]
    made = [file_name(entry.id) for entry in entries]
    assert len(set(made)) == 3
    source = Collection("folders", Path(), entries, ())
    assert {problem.case for problem in source.cases()[1]} == set(made)
