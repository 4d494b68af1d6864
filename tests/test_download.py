"""Downloads from a real server on the loopback, well-behaved and not."""

import gzip
import hashlib
import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medaug.downloads import WAY, Report, download
from medaug.downloads.licences import FILE
from medaug.errors import ConfigError, DownloadError, OutputError
from medaug.files import held
from tests import web as w
from tests.conftest import Medaug
from tests.disks import small_disk
from tests.test_idx import idx_bytes

FOLDER = "TCIA_pancreas_labels-02-05-2017"
QUICK = {"timeout_s": 0.4, "attempts": 3, "pause_s": 0.0}


def settings(web: w.Web, nbia: w.Nbia, **more: Any) -> dict[str, Any]:
    digest = hashlib.sha256(nbia.files[w.LABELS]).hexdigest()
    places = {"pancreas": f"{web.url}/v4", "pancreas_labels": f"{web.url}{w.LABELS}"}
    return {**QUICK, **places, "checksums": {"pancreas_labels": digest}, **more}


def words(asked: dict[str, Any]) -> list[str]:
    return [
        word
        for key, value in asked.items()
        for word in ("--set", f"download.{key}={json.dumps(value)}")
    ]


def tree(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.md5(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server of these tests is asked directly, whatever this machine is set to."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module")
def nbia(phantom_root: Path) -> w.Nbia:
    return w.nbia(phantom_root)


@pytest.fixture
def web(nbia: w.Nbia) -> Iterator[w.Web]:
    with w.serving(nbia.web()) as web:
        yield web


@pytest.fixture(scope="module")
def whole(nbia: w.Nbia, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a download without any trouble leaves."""
    root = tmp_path_factory.mktemp("whole") / "pancreas"
    with w.serving(nbia.web()) as web:
        report = download("pancreas", root, True, settings(web, nbia))
    assert report.failed == {}
    return tree(root)


def fetch(web: w.Web, nbia: w.Nbia, root: Path, **more: Any) -> Report:
    return download("pancreas", root, True, settings(web, nbia, **more))


def image(nbia: w.Nbia, patient: int) -> str:
    return w.image(nbia.uids[f"PANCREAS_{patient:04d}"])


def test_the_folder_holds_every_byte_and_prepares(
    medaug: Medaug, nbia: w.Nbia, web: w.Web, tmp_path: Path, whole: dict[str, str]
) -> None:
    done = medaug(
        "download", "pancreas", "--root", "p", "--yes", "--json", *words(settings(web, nbia))
    )
    assert done.code == 0, done.err
    assert done.json["fetched"] == [*nbia.uids, FOLDER]
    assert set(done.json["skipped"]) == {"PANCREAS_0025", "PANCREAS_0070"}
    assert "same scan as PANCREAS_0002" in done.err
    assert "the server lists 4 scans; the collection has 80" in done.err
    assert "Creative Commons Attribution 3.0" in done.err
    for patient, slices in nbia.slices.items():
        for name, content in slices.items():
            assert (tmp_path / "p" / patient / nbia.uids[patient] / name).read_bytes() == content
    assert sorted(p.name for p in (tmp_path / "p" / FOLDER).iterdir()) == [
        f"label{k:04d}.nii.gz" for k in (1, 2, 3, 4)
    ]
    assert not (tmp_path / "p" / WAY).exists()
    assert tree(tmp_path / "p") == whole
    asked = {w.uid_of(path) for path in web.paths()} - {None}
    assert asked == set(nbia.uids.values())

    ready = medaug("prepare", "pancreas", "--root", "p", "--size", 32, "--workers", 0, "--json")
    assert ready.code == 0, ready.err
    assert sorted(ready.json["done"]) == sorted(nbia.uids)

    web.asked.clear()
    again = medaug("download", "pancreas", "--root", "p", "--json", *words(settings(web, nbia)))
    assert again.code == 0, again.err
    assert (again.json["fetched"], again.json["kept"]) == ([], [*nbia.uids, FOLDER])
    assert web.paths() == [w.LIST]
    assert "Creative Commons" not in again.err


def test_a_dry_run_tells_sizes_and_writes_nothing(
    medaug: Medaug, nbia: w.Nbia, web: w.Web, tmp_path: Path
) -> None:
    ask = ("download", "pancreas", "--root", "p", "--dry-run", *words(settings(web, nbia)))
    planned = medaug(*ask, "--json")
    assert planned.code == 0, planned.err
    sizes = {item["name"]: item["bytes"] for item in planned.json["items"]}
    assert sizes["PANCREAS_0001"] == sum(map(len, nbia.slices["PANCREAS_0001"].values()))
    assert sizes[FOLDER] == len(nbia.files[w.LABELS])
    assert planned.json["bytes"] == sum(sizes.values())
    assert planned.json["accepted"] is False
    assert {item["state"] for item in planned.json["items"]} == {"missing"}
    assert not (tmp_path / "p").exists()
    assert set(web.paths()) == {w.LIST, w.LABELS}
    told = medaug(*ask).out
    assert "would fetch 5 of 5, " in told
    assert told.endswith("into p; licence CC BY 3.0, not yet accepted\n")


def test_without_a_terminal_the_licence_needs_yes(
    medaug: Medaug, web: w.Web, nbia: w.Nbia, tmp_path: Path
) -> None:
    refused = medaug("download", "mnist", "--root", "m")
    assert refused.code == 2
    assert "Attribution-ShareAlike" in refused.err
    assert refused.err.splitlines()[-1] == (
        "medaug: download mnist: its licence (CC BY-SA 3.0) must be accepted; read it above and "
        "add --yes, or answer on a terminal"
    )
    assert not (tmp_path / "m").exists()
    with pytest.raises(ConfigError, match="must be accepted"):
        download("pancreas", tmp_path / "p", settings=settings(web, nbia))
    assert web.asked == []


@pytest.mark.parametrize(("reply", "code"), [("y", 0), ("n", 2)])
def test_on_a_terminal_it_asks(reply: str, code: int, tmp_path: Path) -> None:
    files, checksums = digits("fashion-mnist")
    with w.serving(w.Web({f"/f/{name}": content for name, content in files.items()})) as web:
        asked = {"fashion-mnist": f"{web.url}/f", "checksums": checksums}
        root = tmp_path / "clothes"
        control, terminal = pty.openpty()
        command = [sys.executable, "-m", "medaug", "download", "fashion-mnist", "--root", str(root)]
        child = subprocess.Popen(
            [*command, *words(asked)], stdin=terminal, stdout=terminal, stderr=terminal
        )
        os.close(terminal)
        seen = read_until(control, b"[y/N]")
        os.write(control, f"{reply}\n".encode())
        seen += read_until(control, None)
        assert child.wait(60) == code, seen
    assert b"2017 Zalando SE" in seen
    assert (root / FILE).exists() == root.exists() == (code == 0)


def read_until(control: int, stop: bytes | None) -> bytes:
    seen = b""
    while stop is None or stop not in seen:
        if not select.select([control], [], [], 60)[0]:
            raise AssertionError(f"nothing more than {seen!r}")
        try:
            block = os.read(control, 1024)
        except OSError:
            block = b""
        if not block:
            break
        seen += block
    return seen


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


def test_the_rest_is_asked_for_where_the_server_can(
    nbia: w.Nbia, web: w.Web, tmp_path: Path, whole: dict[str, str]
) -> None:
    path = image(nbia, 1)
    size = len(web.files[path])
    steps = [w.cut(size // 9)] * 8
    web.faults[path] = list(steps)
    assert fetch(web, nbia, tmp_path / "p").failed == {}
    ranges = [asked for where, asked in web.asked if where == path]
    assert ranges == [None, *(f"bytes={k * (size // 9)}-" for k in range(1, 9))]
    assert tree(tmp_path / "p") == whole


def test_a_file_that_changed_meanwhile_is_fetched_whole(
    nbia: w.Nbia, web: w.Web, tmp_path: Path, whole: dict[str, str]
) -> None:
    path = image(nbia, 1)
    genuine = web.files[path]
    web.files[path] = w.zipped({"LICENSE": bytes(90_000), "1-001.dcm": b"draft"})
    web.always[path] = w.cut(200)
    assert list(fetch(web, nbia, tmp_path / "p", attempts=1).failed) == ["PANCREAS_0001"]
    assert (tmp_path / "p" / WAY / f"{nbia.uids['PANCREAS_0001']}.zip").stat().st_size == 200
    web.files[path] = genuine
    web.always.clear()
    web.asked.clear()
    assert fetch(web, nbia, tmp_path / "p").failed == {}
    assert [asked for where, asked in web.asked if where == path] == ["bytes=200-"]
    assert tree(tmp_path / "p") == whole


@pytest.mark.parametrize("lacking", ["ranges", "tagged"])
def test_without_ranges_or_tags_it_is_fetched_whole(
    lacking: str, nbia: w.Nbia, web: w.Web, tmp_path: Path, whole: dict[str, str]
) -> None:
    setattr(web, lacking, False)
    web.faults[image(nbia, 1)] = [w.cut(5000)] * 2
    web.faults[w.LABELS] = [w.cut(200)]
    assert fetch(web, nbia, tmp_path / "p").failed == {}
    asked = dict(web.asked)
    assert asked[image(nbia, 1)] == (None if lacking == "tagged" else "bytes=5000-")
    assert asked[w.LABELS] == "bytes=200-"
    assert tree(tmp_path / "p") == whole


def test_a_redirect_to_another_host_is_followed_and_loops_end(
    nbia: w.Nbia, web: w.Web, tmp_path: Path, whole: dict[str, str]
) -> None:
    path = image(nbia, 1)
    with w.serving(w.Web({"/store/1.zip": nbia.files[path]})) as store:
        store.faults["/store/1.zip"] = [w.cut(4000)]
        web.always[path] = w.elsewhere(f"http://localhost:{store.port}/store/1.zip")
        web.always[w.LABELS] = w.elsewhere(w.LABELS)
        report = fetch(web, nbia, tmp_path / "p")
        assert store.asked == [("/store/1.zip", None), ("/store/1.zip", "bytes=4000-")]
    assert list(report.failed) == [FOLDER]
    assert "redirected more than 5 times" in report.failed[FOLDER]
    web.always = {w.LABELS: w.elsewhere("file:///etc/passwd")}
    refused = fetch(web, nbia, tmp_path / "p").failed[FOLDER]
    assert "redirected to file:///etc/passwd, which is not https" in refused
    web.always.clear()
    assert fetch(web, nbia, tmp_path / "p").failed == {}
    assert tree(tmp_path / "p") == whole


def test_https_is_never_left() -> None:
    from medaug.downloads.http import _followed

    assert _followed("https://a/x", "https://b/y") == "https://b/y"
    assert _followed("http://a/x", "/y") == "http://a/y"
    with pytest.raises(DownloadError, match="redirected to http://b/y, which is not https"):
        _followed("https://a/x", "http://b/y")


@pytest.mark.parametrize("layout", ["ours", "tcia_utils", "retriever", "mixed"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "empty"])
def test_a_partial_scan_is_repaired_where_it_lies(
    layout: str, damage: str, nbia: w.Nbia, web: w.Web, tmp_path: Path, whole: dict[str, str]
) -> None:
    root, uid = tmp_path / "p", nbia.uids["PANCREAS_0002"]
    ours = root / "PANCREAS_0002" / uid
    folder = {
        "ours": ours,
        "tcia_utils": root / uid,
        "retriever": root / "Pancreas-CT" / "PANCREAS_0002" / "11-24-2015-NA-1" / "NA-2",
        "mixed": root / "everything",
    }[layout]
    folder.mkdir(parents=True)
    slices = dict(list(nbia.slices["PANCREAS_0002"].items())[:-1])
    if damage == "truncated":
        slices["1-004.dcm"] = slices["1-004.dcm"][:900]
    elif damage == "empty":
        slices["1-004.dcm"] = b""
    for name, content in slices.items():
        (folder / (f"0000{name[2:]}" if layout == "retriever" else name)).write_bytes(content)
    if layout == "mixed":
        for name, content in nbia.slices["PANCREAS_0001"].items():
            (folder / f"a{name}").write_bytes(content)
    report = fetch(web, nbia, root)
    assert report.failed == {}
    assert list(report.repaired) == ["PANCREAS_0002"]
    if layout == "mixed":
        assert report.kept == ["PANCREAS_0001"] or damage != "missing"
    found = ours if layout == "mixed" else folder
    got = {p.name: p.read_bytes() for p in found.glob("*.dcm")}
    assert got == nbia.slices["PANCREAS_0002"]
    if layout == "ours":
        assert tree(root) == whole
    again = fetch(web, nbia, root)
    assert (again.repaired, again.fetched) == ({}, [])


def test_a_missing_label_is_fetched_again(
    nbia: w.Nbia, web: w.Web, tmp_path: Path, whole: dict[str, str]
) -> None:
    fetch(web, nbia, tmp_path / "p")
    (tmp_path / "p" / FOLDER / "label0003.nii.gz").unlink()
    assert fetch(web, nbia, tmp_path / "p").repaired == {FOLDER: "no label of PANCREAS_0003"}
    assert tree(tmp_path / "p") == whole


KILLS = """
import json, os, random, signal, sys, time
from pathlib import Path
from medaug.downloads import download, pancreas

roots, settings, moment = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
rng = random.Random(0)
CHANGES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}

def run(root, operations=None):
    left = operations
    def count(event, arguments):
        nonlocal left
        if event in CHANGES and str(arguments[0]).startswith(str(root)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    if operations:
        sys.addaudithook(count)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    report = download("pancreas", root, True, settings)
    os._exit(len(report.failed))

kills, rounds = 0, 0
while True:
    operations = rng.randrange(1, 120) if moment == "operation" and kills < 50 else None
    child = os.fork()
    if not child:
        run(roots / str(rounds), operations)
    if moment == "time" and kills < 50:
        time.sleep(rng.uniform(0.0, 0.25))
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL), code
    if code == 0:
        rounds += 1
        if kills >= 50:
            break
    else:
        kills += 1
print(kills, rounds)
"""


@pytest.mark.parametrize(
    ("moment", "ranges"), [("time", True), ("time", False), ("operation", True)]
)
def test_killed_at_many_moments_the_folder_is_the_same(
    moment: str,
    ranges: bool,
    nbia: w.Nbia,
    web: w.Web,
    tmp_path: Path,
    whole: dict[str, str],
) -> None:
    web.pause_s, web.ranges = 0.003 if moment == "time" and ranges else 0.0005, ranges
    asked = json.dumps(settings(web, nbia, timeout_s=5.0))
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path / "p"), asked, moment],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    kills, rounds = map(int, done.stdout.split())
    print(f"{kills} kills in {rounds} downloads")
    assert kills == 50
    for k in range(rounds):
        assert tree(tmp_path / "p" / str(k)) == whole


def test_a_full_disk_is_one_sentence_and_it_goes_on_later(
    nbia: w.Nbia, web: w.Web, tmp_path: Path, whole: dict[str, str]
) -> None:
    rows = [{**row, "FileSize": 10} for row in nbia.rows]
    web.files[w.LIST] = json.dumps(rows).encode()
    with small_disk(tmp_path / "disk", "400k") as disk:
        root = disk / "p"
        with pytest.raises(OutputError, match="no space left on the disk; free some and run the"):
            fetch(web, nbia, root)
        subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
        assert fetch(web, nbia, root).failed == {}
        assert tree(root) == whole


def test_a_disk_that_is_too_small_is_told_before(nbia: w.Nbia, web: w.Web, tmp_path: Path) -> None:
    rows = [{**row, "FileSize": shutil.disk_usage(tmp_path).total} for row in nbia.rows]
    web.files[w.LIST] = json.dumps(rows).encode()
    with pytest.raises(OutputError, match=r"B are to be fetched, and the disk has .*B left"):
        fetch(web, nbia, tmp_path / "p")
    assert not any("getImage" in path for path in web.paths())


def digits(data: str) -> tuple[dict[str, bytes], dict[str, str]]:
    """Four small idx files with their checksums."""
    rng = np.random.default_rng(0)
    files = {}
    for part, n in (("train", 60), ("t10k", 20)):
        pictures = rng.integers(0, 256, (n, 28, 28))
        files[f"{part}-images-idx3-ubyte.gz"] = gzip.compress(idx_bytes(pictures), mtime=0)
        files[f"{part}-labels-idx1-ubyte.gz"] = gzip.compress(idx_bytes(np.arange(n) % 10), mtime=0)
    return files, {f"{data}/{k}": hashlib.md5(v).hexdigest() for k, v in files.items()}


@pytest.mark.parametrize("data", ["mnist", "fashion-mnist"])
def test_idx_files_are_checked_resumed_and_repaired(
    data: str, medaug: Medaug, tmp_path: Path
) -> None:
    files, checksums = digits(data)
    with w.serving(w.Web({f"/d/{name}": content for name, content in files.items()})) as web:
        first, second, third, _ = (f"/d/{name}" for name in files)
        web.faults[first] = [w.cut(9000), w.status(500), w.cut(9000)]
        web.faults[second] = [w.instead(b"not this")]
        web.faults[third] = [w.short(0.3), w.empty]
        asked = words({**QUICK, data: f"{web.url}/d", "checksums": checksums})
        ask = ("download", data, "--root", "d", "--json", *asked)
        planned = medaug(*ask, "--dry-run")
        assert [item["state"] for item in planned.json["items"]] == ["missing"] * 4
        assert web.asked == []
        done = medaug(*ask, "--yes")
        assert done.code == 0, done.err
        assert sorted(done.json["fetched"]) == sorted(files)
        assert ("bytes=9000-" in {asked for _, asked in web.asked}) is True
        assert {p.name for p in Path("d").iterdir()} == {*files, FILE, ".lock"}
        Path("d/train-labels-idx1-ubyte.gz").write_bytes(b"damaged")
        again = medaug(*ask)
        assert list(again.json["repaired"]) == ["train-labels-idx1-ubyte.gz"]
        assert len(again.json["kept"]) == 3
    for name, content in files.items():
        assert Path("d", name).read_bytes() == content
    ready = medaug("prepare", data, "--root", "d", "--workers", 0, "--json")
    assert ready.code == 0, ready.err
    assert ready.json["slices"] == 80


def test_other_files_than_the_published_are_refused(medaug: Medaug, tmp_path: Path) -> None:
    files, _ = digits("mnist")
    with w.serving(w.Web({f"/d/{name}": content for name, content in files.items()})) as web:
        asked = words({**QUICK, "mnist": f"{web.url}/d", "attempts": 1})
        done = medaug("download", "mnist", "--root", "d", "--yes", "--json", *asked)
    assert done.code == 1
    assert len(done.json["failed"]) == 4
    assert not any(p.name.endswith(".gz") for p in Path("d").iterdir())


def test_it_pauses_as_it_is_told(tmp_path: Path) -> None:
    files, checksums = digits("mnist")
    with w.serving(w.Web({f"/d/{name}": content for name, content in files.items()})) as web:
        asked = {**QUICK, "mnist": f"{web.url}/d", "checksums": checksums}
        seconds = {}
        for pause_s, after in ((0.0, "0"), (0.3, "0"), (0.0, "1")):
            web.faults["/d/train-images-idx3-ubyte.gz"] = [
                w.status(503, {"Retry-After": after})
            ] * 2
            root = tmp_path / f"{pause_s} {after}"
            report = download("mnist", root, True, {**asked, "pause_s": pause_s})
            assert report.failed == {}
            seconds[pause_s, after] = report.seconds
    assert seconds[0.3, "0"] >= 0.9
    assert seconds[0.0, "1"] >= 2.0
    assert seconds[0.0, "0"] < 0.9


def test_a_proxy_is_used_but_where_it_is_not_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, checksums = digits("mnist")
    far = {f"http://digits.invalid/d/{name}": content for name, content in files.items()}
    asked = {**QUICK, "mnist": "http://digits.invalid/d", "checksums": checksums}
    with w.serving(w.Web(far)) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        report = download("mnist", tmp_path / "a", True, asked)
        assert report.failed == {}
        assert set(proxy.paths()) == set(far)
        monkeypatch.setenv("no_proxy", "digits.invalid")
        with pytest.raises(DownloadError, match="the server cannot be reached"):
            download("mnist", tmp_path / "b", True, asked)


def test_two_downloads_do_not_share_a_folder(
    web: w.Web, nbia: w.Nbia, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medaug.files.PATIENCE_S", 0.1)
    with (
        held(tmp_path / "p"),
        pytest.raises(OutputError, match="another process is working in it; wait for it"),
    ):
        fetch(web, nbia, tmp_path / "p")
    assert web.asked == []


PUBLISHED_MD5 = {
    "mnist/train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "mnist/train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "mnist/t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "mnist/t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    "fashion-mnist/train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "fashion-mnist/train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "fashion-mnist/t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "fashion-mnist/t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}


@pytest.mark.real
@pytest.mark.parametrize("data", ["mnist", "fashion-mnist"])
def test_the_real_idx_files_pass_by_the_shipped_checksums(
    data: str, real_data: Path, tmp_path: Path
) -> None:
    names = [key.partition("/")[2] for key in PUBLISHED_MD5 if key.startswith(f"{data}/")]
    files = {name: (real_data / data / name).read_bytes() for name in names}
    for name, content in files.items():
        assert hashlib.md5(content).hexdigest() == PUBLISHED_MD5[f"{data}/{name}"]
    with w.serving(w.Web({f"/d/{name}": content for name, content in files.items()})) as web:
        web.faults[f"/d/{names[0]}"] = [w.cut(5_000_000)]
        report = download(data, tmp_path, True, {**QUICK, data: f"{web.url}/d"})
    assert report.failed == {}
    assert report.bytes == sum(map(len, files.values()))
    assert all((tmp_path / name).read_bytes() == content for name, content in files.items())


@pytest.mark.real
def test_the_real_scans_arrive_and_prepare(
    medaug: Medaug, real_pancreas: Path, tmp_path: Path
) -> None:
    real = w.nbia(real_pancreas)
    with w.serving(real.web()) as web:
        path = w.image(real.uids["PANCREAS_0001"])
        web.faults[path] = [w.cut(0.7), w.status(502), w.cut(1_000_000)]
        done = medaug(
            *("download", "pancreas", "--root", "p", "--yes", "--json"),
            *words(settings(web, real, timeout_s=10.0)),
        )
    assert done.code == 0, done.err
    assert done.json["fetched"] == ["PANCREAS_0001", "PANCREAS_0002", FOLDER]
    assert done.json["bytes"] == sum(map(len, real.files.values())) - len(real.files[w.LIST])
    ready = medaug("prepare", "pancreas", "--root", "p", "--size", 64, "--workers", 0, "--json")
    assert ready.code == 0, ready.err
    assert ready.json["slices"] == 240 + 195


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cifar"],
         "download: 'cifar' cannot be fetched; known are pancreas, mnist, fashion-mnist"),
        (["mnist", "--set", "download.mnits=http://x/y"],
         "config download.mnits is not known; did you mean download.mnist"),
        (["mnist", "--set", "download.mnist=ftp://x/y"],
         "config download.mnist: an address such as https://host/path is wanted, got 'ftp://x/y'"),
        (["mnist", "--set", "data.size=3"], "config data is not known; known: download"),
        (["mnist", "--set", "download.checksums={a: b}"],
         "config download.checksums: a: 32 (MD5) or 64 (SHA-256) hex digits, got 'b'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(arguments: list[str], said: str, medaug: Medaug) -> None:
    for more in ([], ["--dry-run"]):
        result = medaug("download", *arguments, "--root", "d", "--yes", *more)
        assert (result.code, result.err) == (2, f"medaug: {said}\n")
    assert not Path("d").exists()


def test_settings_come_from_a_file_too(medaug: Medaug, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("download: {mnist: 'http://127.0.0.1:9/', attempts: 1}\n")
    result = medaug("download", "mnist", "--root", "d", "--yes", "--config", "my.yaml")
    assert result.code == 2
    assert (
        "http://127.0.0.1:9/train-images-idx3-ubyte.gz: the server cannot be reached;" in result.err
    )
