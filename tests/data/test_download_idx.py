"""MNIST and Fashion-MNIST come as published, or are refused."""

import hashlib
from pathlib import Path

import pytest

from medaug.data.download import download
from medaug.data.download.licences import FILE
from tests.conftest import Medaug
from tests.support import web as w
from tests.support.downloading import QUICK, digits, words

pytestmark = pytest.mark.usefixtures("no_proxies")


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
