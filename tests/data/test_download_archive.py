"""Archives that mean harm are refused, and write nothing outside their folder."""

import errno
import io
import os
import stat
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medaug.core.errors import DownloadError
from medaug.data.download.archive import unpack
from medaug.data.download.http import SpoiledError
from tests.support.web import zipped


def out_of(packed: bytes, tmp_path: Path, files: int = 10, size: int = 10_000) -> list[Path]:
    archive = tmp_path / "a.zip"
    archive.write_bytes(packed)
    return unpack(archive, tmp_path / "in" / "deep", lambda name: True, files, size)


def entry(info: zipfile.ZipInfo, content: bytes = b"x") -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as packed:
        packed.writestr(info, content)
    return target.getvalue()


def test_want_of_descriptors_is_not_laid_to_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*asked: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    packed = zipped({"good": b"1"})
    monkeypatch.setattr(zipfile.ZipFile, "open", refused)
    with pytest.raises(OSError, match="Too many open files"):
        out_of(packed, tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../up",
        "a/../../up",
        "..\\up",
        "a\\b",
        "C:up",
        "C:\\up",
        "//host/share",
        "..",
    ],
)
def test_names_that_point_outside_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"points outside the archive; nothing was unpacked$"):
        out_of(zipped({"good": b"1", name: b"2"}), tmp_path)
    assert [p.name for p in tmp_path.rglob("*")] == ["a.zip"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_are_refused(kind: int, tmp_path: Path) -> None:
    info = zipfile.ZipInfo("label0001.nii.gz")
    info.external_attr = (kind | 0o777) << 16
    with pytest.raises(DownloadError, match="is a link or a device"):
        out_of(entry(info, b"/etc/passwd"), tmp_path)


def test_a_file_twice_too_many_files_and_encryption_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="is the second file of that name"):
        out_of(zipped({"a/1.dcm": b"1", "b/1.DCM": b"2"}), tmp_path)
    with pytest.raises(DownloadError, match="11 files in it, at most 10 are expected"):
        out_of(zipped({str(k): b"" for k in range(11)}), tmp_path)
    packed = bytearray(zipped({"a": b"secret"}))
    packed[6] |= 1
    packed[packed.index(b"PK\1\2") + 8] |= 1
    with pytest.raises(DownloadError, match="is encrypted"):
        out_of(bytes(packed), tmp_path)
    rare = zipfile.ZipInfo("a")
    rare.compress_type = zipfile.ZIP_LZMA
    with pytest.raises(DownloadError, match="packed in a way that zip files seldom are"):
        out_of(entry(rare), tmp_path)


def test_a_version_that_nothing_here_reads_is_refused(tmp_path: Path) -> None:
    packed = bytearray(zipped({"a": b"x"}))
    packed[packed.index(b"PK\1\2") + 6] = 99
    with pytest.raises(SpoiledError, match=r"not a whole zip file \(zip file version 9\.9\)"):
        out_of(bytes(packed), tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["a.zip"]


def test_a_bomb_stops_at_the_limit(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="unpacks to more than is expected"):
        out_of(zipped({"a": bytes(2**26)}), tmp_path, size=2**22)
    assert list((tmp_path / "in" / "deep").iterdir()) == []
    with pytest.raises(DownloadError, match="unpacks to more than is expected"):
        out_of(zipped({"a": bytes(6000), "b": bytes(6000)}), tmp_path)


def test_folders_and_hidden_files_are_left_out(tmp_path: Path) -> None:
    packed = zipped({"x/": b"", "x/1.dcm": b"1", "__MACOSX/x/._1.dcm": b"2", ".DS_Store": b"3"})
    assert [path.read_bytes() for path in out_of(packed, tmp_path)] == [b"1"]
    assert [p.name for p in (tmp_path / "in" / "deep").iterdir()] == ["1.dcm"]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_a_damaged_archive_gives_a_sentence_or_the_right_bytes(
    tmp_path: Path, data: st.DataObject
) -> None:
    files = {"1-001.dcm": bytes(range(256)) * 8, "1-002.dcm": b"abc" * 500, "LICENSE": b"CC"}
    packed = bytearray(zipped(files))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    packed = packed[: data.draw(st.integers(0, len(packed)) | st.just(len(packed)))]
    try:
        found = out_of(bytes(packed), tmp_path)
    except (SpoiledError, DownloadError):
        return
    for path in found:
        assert path.read_bytes() in files.values()
