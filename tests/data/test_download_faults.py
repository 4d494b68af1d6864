"""What a server does wrong passes without a trace, or is named while the rest is fetched."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from medaug.core.errors import DownloadError
from medaug.data.download import download
from tests.conftest import Medaug
from tests.support import web as w
from tests.support.downloading import FOLDER, fetch, image, settings, words
from tests.support.trees import tree

pytestmark = pytest.mark.usefixtures("no_proxies")

FAULTS = {
    "cut": w.cut(0.4),
    "short": w.short(0.4),
    "unending": w.unending(0.4),
    "500": w.status(500),
    "503": w.status(503, {"Retry-After": "0"}),
    "html": w.instead(b"<html>maintenance</html>"),
    "empty": w.empty,
    "silent": w.silent,
    "drip": w.drip,
}


@pytest.mark.parametrize(
    ("what", "name"),
    [
        (what, name)
        for what in ("list", "scan", "labels")
        for name in FAULTS
        if (what, name) != ("list", "empty")  # an empty list is an answer: no such collection
    ],
)
def test_a_fault_that_passes_leaves_no_trace(
    what: str, name: str, nbia: w.Nbia, web: w.Web, tmp_path: Path, whole: dict[str, str]
) -> None:
    path = {"list": w.LIST, "scan": image(nbia, 2), "labels": w.LABELS}[what]
    web.faults[path] = [FAULTS[name]] * 2
    report = fetch(web, nbia, tmp_path / "p")
    assert report.failed == {}
    assert web.faults[path] == []
    assert tree(tmp_path / "p") == whole


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (w.empty, "an empty answer: the server has no such thing, or not now, 3 times in a row"),
        (w.status(404), "the server answers 404; is the address right?"),
        (w.status(500), "the server answers 500, 3 times in a row"),
        (w.silent, "nothing came for 0.4 s, 3 times in a row"),
        (w.drip, r"only \d+ bytes came in \d s, 3 times in a row"),
        (w.unending(0.4), "is not a whole zip file"),
        (w.instead(b""), "an empty answer"),
    ],
    ids=["empty", "404", "500", "silent", "drip", "unending", "nothing"],
)
def test_a_fault_that_stays_is_named_and_the_rest_is_fetched(
    fault: w.Fault, why: str, nbia: w.Nbia, web: w.Web, tmp_path: Path, whole: dict[str, str]
) -> None:
    web.always[image(nbia, 3)] = fault
    report = fetch(web, nbia, tmp_path / "p")
    assert list(report.failed) == ["PANCREAS_0003"]
    assert re.search(why, report.failed["PANCREAS_0003"])
    assert report.fetched == ["PANCREAS_0001", "PANCREAS_0002", "PANCREAS_0004", FOLDER]
    assert not (tmp_path / "p" / "PANCREAS_0003").exists()
    web.always.clear()
    assert fetch(web, nbia, tmp_path / "p").fetched == ["PANCREAS_0003"]
    assert tree(tmp_path / "p") == whole


def test_failed_scans_end_with_status_1(medaug: Medaug, nbia: w.Nbia, web: w.Web) -> None:
    web.always[image(nbia, 1)] = w.empty
    done = medaug("download", "pancreas", "--root", "p", "--yes", *words(settings(web, nbia)))
    assert done.code == 1
    assert "failed: PANCREAS_0001: http://127.0.0.1" in done.err
    assert done.out.startswith("p: 4 fetched, 0 repaired, 0 kept, 1 failed; ")


def test_a_scan_with_too_few_images_is_not_kept(nbia: w.Nbia, web: w.Web, tmp_path: Path) -> None:
    slices = dict(nbia.slices["PANCREAS_0002"])
    del slices["1-007.dcm"]
    web.files[image(nbia, 2)] = w.zipped({"LICENSE": b"x", **slices})
    report = fetch(web, nbia, tmp_path / "p")
    assert "the server sends 19 of 20 images for PANCREAS_0002" in report.failed["PANCREAS_0002"]
    assert not (tmp_path / "p" / "PANCREAS_0002").exists()


@pytest.mark.parametrize("other", ["patient", "truncated", "twice"])
def test_a_scan_of_other_content_is_not_kept(
    other: str, nbia: w.Nbia, web: w.Web, tmp_path: Path
) -> None:
    slices = dict(nbia.slices["PANCREAS_0002"])
    if other == "patient":
        web.files[image(nbia, 2)] = nbia.files[image(nbia, 1)]
    else:
        changed = slices["1-003.dcm"] if other == "twice" else slices["1-007.dcm"][:-700]
        web.files[image(nbia, 2)] = w.zipped({**slices, "1-007.dcm": changed})
    report = fetch(web, nbia, tmp_path / "p")
    assert list(report.failed) == ["PANCREAS_0002"]
    assert not (tmp_path / "p" / "PANCREAS_0002").exists()


def test_an_empty_list_and_an_unreachable_server_stop_it(
    nbia: w.Nbia, web: w.Web, tmp_path: Path
) -> None:
    web.always[w.LIST] = w.empty
    with pytest.raises(DownloadError, match="an empty answer; the server lists no Pancreas-CT"):
        fetch(web, nbia, tmp_path / "p")
    with pytest.raises(DownloadError, match="the server cannot be reached, 3 times in a row; run"):
        fetch(web, nbia, tmp_path / "p", pancreas="http://127.0.0.1:9/v4")
    with pytest.raises(DownloadError, match=r"no-such-host.invalid.*cannot be reached"):
        fetch(web, nbia, tmp_path / "p", pancreas="http://no-such-host.invalid/v4")


@pytest.mark.parametrize(
    "row",
    [
        {"SeriesInstanceUID": "../../evil"},
        {"SeriesInstanceUID": "1.2." + "3" * 64},
        {"PatientID": "../PANCREAS_0001"},
        {"PatientID": None},
        {"ImageCount": "many"},
        {"ImageCount": 0},
    ],
    ids=str,
)
def test_a_list_with_impossible_names_is_refused(
    row: dict[str, Any], nbia: w.Nbia, web: w.Web, tmp_path: Path
) -> None:
    web.files[w.LIST] = json.dumps([{**nbia.rows[0], **row}]).encode()
    with pytest.raises(DownloadError, match=f"^{re.escape(web.url + w.LIST)}: lists "):
        fetch(web, nbia, tmp_path / "p")
    web.files[w.LIST] = json.dumps({"error": row}).encode()
    with pytest.raises(DownloadError, match="a list of series is wanted, got dict"):
        fetch(web, nbia, tmp_path / "p")


def test_wrong_labels_are_refused_with_both_checksums(
    nbia: w.Nbia, web: w.Web, tmp_path: Path
) -> None:
    wanted = hashlib.sha256(nbia.files[w.LABELS]).hexdigest()
    web.files[w.LABELS] = w.zipped({"label0001.nii.gz": b"other"})
    report = fetch(web, nbia, tmp_path / "p")
    assert list(report.failed) == [FOLDER]
    found = hashlib.sha256(web.files[w.LABELS]).hexdigest()
    assert f"has the SHA-256 {found}, published is {wanted}" in report.failed[FOLDER]
    assert not (tmp_path / "p" / FOLDER).exists()
    unchecked = fetch(web, nbia, tmp_path / "p", checksums={"pancreas_labels": None})
    assert "a damaged label" in unchecked.failed[FOLDER]
    default = download("pancreas", tmp_path / "p", True, settings(web, nbia, checksums={}))
    assert "published is cf8a553c" in default.failed[FOLDER]
