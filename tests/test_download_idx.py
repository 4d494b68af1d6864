"""MNIST and Fashion-MNIST come as published, or are refused."""

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from medaug.downloads import download
from medaug.downloads.licences import FILE
from tests import web as w
from tests.conftest import Medaug
from tests.downloading import QUICK, words
from tests.test_download import PUBLISHED_MD5
from tests.test_idx import idx_bytes

pytestmark = pytest.mark.usefixtures("no_proxies")


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
