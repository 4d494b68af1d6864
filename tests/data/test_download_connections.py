"""How files are asked for: the rest of one, redirects, https, pauses, proxies."""

from pathlib import Path

import pytest

from medaug.core.errors import DownloadError
from medaug.data.download import WAY, download
from tests.support import web as w
from tests.support.downloading import FOLDER, QUICK, digits, fetch, image
from tests.support.trees import tree

pytestmark = pytest.mark.usefixtures("no_proxies")


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
    from medaug.data.download.http import _followed

    assert _followed("https://a/x", "https://b/y") == "https://b/y"
    assert _followed("http://a/x", "/y") == "http://a/y"
    with pytest.raises(DownloadError, match="redirected to http://b/y, which is not https"):
        _followed("https://a/x", "http://b/y")


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
