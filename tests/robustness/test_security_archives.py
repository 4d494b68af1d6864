"""Archives that mean harm: read in place or unpacked, nothing leaves its folder or explodes."""

import io
import stat
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from medaug.core.errors import DataError, DownloadError, MedaugError
from medaug.data.download.archive import unpack
from medaug.data.download.http import SpoiledError
from medaug.data.formats import archives
from tests.support.bombs import zeros

NAMES = [
    "../up", "a/../../up", "/etc/up", "//host/up", "..\\up", "a\\..\\..\\up", "C:up", "C:\\up",
    "a\0/../../up", "..", "up\n", "\x1b[31mup", "gnp\u202eup", "u" * 5_000, "CON", "up.", "-rf *",
    "../" * 300 + "up",
]  # fmt: skip


def entry(name: bytes, data: bytes, size: int, at: int, mode: int = 0) -> bytes:
    """A deflated file in the list of an archive."""
    crc = zlib.crc32(bytes(size)) if size < 2**26 else 0
    return b"PK\1\2" + struct.pack(
        "<HHHHHHIIIHHHHHII", 0x0314, 20, 0x800, 8, 0, 0x21, crc, len(data), size, len(name),
        0, 0, 0, 0, mode << 16, at,
    ) + name  # fmt: skip


def crafted(names: list[bytes], count: int, at_once: bool = False) -> bytes:
    """An archive of files of ``count`` zeros, each as its own copy or all in the same bytes."""
    data, body, listed = zeros(count), b"", []
    for name in names:
        if not (at_once and body):
            start = len(body)
            head = struct.pack("<HHHHHIIIHH", 20, 0x800, 8, 0, 0x21,
                               0, len(data), count, len(name), 0)  # fmt: skip
            body += b"PK\3\4" + head + name + data
        listed.append(entry(name, data, count, start))
    listing = b"".join(listed)
    end = struct.pack("<HHHHIIH", 0, 0, len(names), len(names), len(listing), len(body), 0)
    return body + listing + b"PK\5\6" + end


def packed(names: list[str]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            info = zipfile.ZipInfo("x")
            info.filename = info.orig_filename = name
            archive.writestr(info, b"content")
    return stream.getvalue()


def everything(root: Path) -> set[str]:
    return {str(p.relative_to(root)) for p in root.rglob("*") if not p.is_dir()}


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A folder far down; whatever is made beside it has escaped."""
    folder = tmp_path / "a" / "b" / "c"
    folder.mkdir(parents=True)
    yield folder
    assert {p.name for p in tmp_path.iterdir()} == {"a"}
    assert {p.name for p in (tmp_path / "a").iterdir()} == {"b"}
    assert {p.name for p in (tmp_path / "a" / "b").iterdir()} == {"c"}


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize("name", NAMES)
def test_no_name_in_an_archive_is_a_way_out(name: str, deep: Path) -> None:
    archive = deep / "a.zip"
    archive.write_bytes(packed(["good", name]))
    with pytest.raises((DownloadError, SpoiledError)):
        unpack(archive, deep / "out", lambda _: True, 10, 10_000)
    assert everything(deep) == {"a.zip"}
    refused: dict[Path, str] = {}
    for folder, names in archives.folders(archive, refused):
        for found in names:
            try:
                with archives.on_disk([folder / found]) as (local,):
                    assert local.read_bytes() == b"content"
                    assert not local.is_relative_to(deep)
            except (DataError, OSError):
                continue
    assert everything(deep) == {"a.zip"}


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO])
def test_links_and_devices_are_neither_made_nor_followed(kind: int, deep: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        info = zipfile.ZipInfo("link")
        info.create_system, info.external_attr = 3, (kind | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
        archive.writestr("good", b"good")
    (deep / "a.zip").write_bytes(stream.getvalue())
    with pytest.raises(DownloadError, match="link or a device"):
        unpack(deep / "a.zip", deep / "out", lambda _: True, 10, 10_000)
    if kind == stat.S_IFLNK:
        assert [names for _, names in archives.folders(deep / "a.zip", {})] == [["good"]]


def test_a_bomb_ends_at_its_limit(deep: Path) -> None:
    archive = deep / "a.zip"
    archive.write_bytes(crafted([b"one"], 2**33 // 4))
    with pytest.raises((DownloadError, SpoiledError)):
        unpack(archive, deep / "out", lambda _: True, 10, 2**26)
    many = [f"{n}.dcm".encode() for n in range(5)]
    archive.write_bytes(crafted(many, 2**30))
    with (
        pytest.raises(DataError, match=r"unpack to 5.0 GiB, accepted are 4.0 GiB"),
        archives.on_disk([archive / name.decode() for name in many]),
    ):
        pass
    with pytest.raises((DownloadError, SpoiledError)):
        unpack(archive, deep / "out", lambda _: True, 10, 2**26)
    assert everything(deep) == {"a.zip"}


def test_files_that_share_their_bytes_are_refused(deep: Path) -> None:
    archive = deep / "a.zip"
    archive.write_bytes(crafted([f"{n}.dcm".encode() for n in range(50)], 2**24, at_once=True))
    with pytest.raises((DownloadError, SpoiledError)):
        unpack(archive, deep / "out", lambda _: True, 100, 2**27)
    assert everything(deep) == {"a.zip"}
    with pytest.raises(MedaugError), archives.opened(archive / "1.dcm") as stream:
        stream.read()


def test_an_archive_in_an_archive_in_an_archive_stays_closed(deep: Path) -> None:
    inside = packed(["x.dcm"])
    for depth in range(6):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for copy in range(3):
                archive.writestr(f"{depth}-{copy}.zip", inside)
        inside = stream.getvalue()
    (deep / "a.zip").write_bytes(inside)
    refused: dict[Path, str] = {}
    listed = [names for _, names in archives.folders(deep / "a.zip", refused)]
    assert len(listed) == 1 + 3
    steep = io.BytesIO()
    with zipfile.ZipFile(steep, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.zip", bytes(2**24))
    (deep / "a.zip").write_bytes(steep.getvalue())
    refused.clear()
    list(archives.folders(deep / "a.zip", refused))
    (reason,) = refused.values()
    assert "unpacks from" in reason


LISTING = """
import resource, sys
from pathlib import Path
from medaug.data.formats import archives
from medaug.data.download.archive import unpack
from medaug.core.errors import MedaugError
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
place, refused = Path(sys.argv[1]), {}
assert list(archives.folders(place, refused)) == []
print(refused[place])
try:
    unpack(place, place.parent / "out", lambda name: True, 1000, 10**9)
except MedaugError as error:
    print(error)
"""


def test_a_list_of_two_million_files_is_not_read(deep: Path) -> None:
    with (deep / "a.zip").open("wb") as file:
        for start in range(0, 2_000_000, 20_000):
            names = (f"{n:07d}".encode() for n in range(start, start + 20_000))
            file.write(b"".join(entry(name, b"", 0, 0) for name in names))
        listed = file.tell()
        file.write(b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 9, 9, listed, 0, 0))
    done = subprocess.run(
        [sys.executable, "-c", LISTING, str(deep / "a.zip")],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert "lists its files in 106000000 bytes" in first
    assert "lists more than 1000 files" in second
