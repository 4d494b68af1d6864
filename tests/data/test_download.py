"""Downloads from a real server on the loopback, well-behaved and not."""

import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest

from medaug.core.errors import ConfigError
from medaug.data.download import WAY, download
from medaug.data.download.licences import FILE
from tests.conftest import Medaug
from tests.support import web as w
from tests.support.downloading import FOLDER, digits, settings, words
from tests.support.trees import tree

pytestmark = pytest.mark.usefixtures("no_proxies")


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


@pytest.mark.long
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
