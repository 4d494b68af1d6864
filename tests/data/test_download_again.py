"""A download goes on where it stopped: partial scans, kills, full disks, a second process."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from medaug.core.errors import OutputError
from medaug.runtime.files import exclusive
from tests.support import web as w
from tests.support.disks import small_disk
from tests.support.downloading import FOLDER, fetch, settings
from tests.support.trees import tree

pytestmark = pytest.mark.usefixtures("no_proxies")


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
from medaug.data.download import download, pancreas

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


@pytest.mark.long
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


def test_two_downloads_do_not_share_a_folder(
    web: w.Web, nbia: w.Nbia, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medaug.runtime.files.PATIENCE_S", 0.1)
    with (
        exclusive(tmp_path / "p"),
        pytest.raises(OutputError, match="another process is working in it; wait for it"),
    ):
        fetch(web, nbia, tmp_path / "p")
    assert web.asked == []
