"""What is in a zip archive is read where it lies; an archive that means harm is refused."""

import io
import os
import random
import stat
import tempfile
import zipfile
from pathlib import Path

import pytest

from medaug.core.errors import DataError, MedaugError
from medaug.data.formats import archives
from medaug.data.formats.archives import folders, on_disk, opened, size, split
from medaug.data.formats.dicom_series import walk
from medaug.data.sources.pancreas import PancreasCT
from tests.conftest import miniature, write_label, write_series


def pack(archive: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(archive, "w", method) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return archive


def inner(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return stream.getvalue()


def listed(archive: Path) -> tuple[dict[str, list[str]], dict[Path, str]]:
    refused: dict[Path, str] = {}
    found = {
        folder.relative_to(archive.parent).as_posix(): names
        for folder, names in folders(archive, refused)
    }
    return found, refused


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files, empty."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_files_are_listed_read_and_put_on_disk(tmp_path, temporary):
    archive = pack(
        tmp_path / "a.ZIP", {"f/b.txt": b"b", "f/a.txt": b"a" * 9, "top": b"t", "f/.hidden": b"h"}
    )
    assert listed(archive) == ({"a.ZIP": ["top"], "a.ZIP/f": ["a.txt", "b.txt"]}, {})
    files = [archive / "f/a.txt", tmp_path / "plain", archive / "top"]
    files[1].write_bytes(b"plain")
    assert [split(f) for f in files] == [(archive, "f/a.txt"), None, (archive, "top")]
    assert [size(f) for f in files] == [9, 5, 1]
    with opened(files[0]) as stream:
        assert stream.read() == b"a" * 9
    with on_disk(files) as local:
        assert [f.read_bytes() for f in local] == [b"a" * 9, b"plain", b"t"]
        assert [f.name for f in local] == ["a.txt", "plain", "top"]
        assert local[1] == files[1]
        with on_disk([files[0], files[0]]) as twice:
            assert twice[0] == twice[1]
        (held,) = temporary.iterdir()
        assert stat.S_IMODE(held.stat().st_mode) == 0o700
    assert list(temporary.iterdir()) == []


def test_a_folder_called_like_an_archive_is_a_folder(tmp_path):
    (tmp_path / "a.zip").mkdir()
    (tmp_path / "a.zip" / "x").write_bytes(b"x")
    refused: dict[Path, str] = {}
    assert split(tmp_path / "a.zip" / "x") is None
    assert list(walk(tmp_path, refused))[1:] == [(tmp_path / "a.zip", ["x"])]
    assert refused == {}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_every_usual_compression_is_read(tmp_path, method):
    archive = pack(tmp_path / "a.zip", {"x": b"x" * 999}, method)
    with opened(archive / "x") as stream:
        assert stream.read() == b"x" * 999


def test_an_archive_in_an_archive_is_read_and_no_deeper(tmp_path):
    deep = inner({"deepest": b"?"})
    archive = pack(tmp_path / "a.zip", {"f/in.zip": inner({"g/x": b"x", "deep.zip": deep})})
    assert listed(archive) == (
        {"a.zip/f": ["in.zip"], "a.zip/f/in.zip": ["deep.zip"], "a.zip/f/in.zip/g": ["x"]},
        {},
    )
    with opened(archive / "f/in.zip/g/x") as stream:
        assert stream.read() == b"x"


def test_names_of_other_systems_are_understood(tmp_path):
    archive = pack(tmp_path / "a.zip", {"x": b"x"})
    archive.write_bytes(
        pack(tmp_path / "b.zip", {"f/x": b"x"}).read_bytes().replace(b"f/x", b"f\\x")
    )
    assert listed(archive) == ({"a.zip/f": ["x"]}, {})
    with opened(archive / "f/x") as stream:
        assert stream.read() == b"x"


def link(target: str) -> tuple[zipfile.ZipInfo, str]:
    info = zipfile.ZipInfo("f/link")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info, target


def test_links_are_not_followed(tmp_path):
    archive = pack(tmp_path / "a.zip", {"x": b"x"})
    with zipfile.ZipFile(archive, "a") as packed:
        packed.writestr(*link("/etc/passwd"))
    assert listed(archive) == ({"a.zip": ["x"]}, {})


@pytest.mark.parametrize("name", ["../x", "f/../../x", "/etc/x", "C:/x", "..\\x"])
def test_a_name_that_leaves_the_archive_is_refused(tmp_path, name):
    archive = pack(tmp_path / "a.zip", {name: b"x"})
    told = name.replace("\\", "/")
    assert listed(archive) == (
        {},
        {archive: f"a.zip holds {told!r}, a name that leaves the archive"},
    )


def encrypted(content: bytes) -> bytes:
    """The flag of encryption set in both headers."""
    content = bytearray(content)
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(mark) + offset] |= 1
    return bytes(content)


def deflate64(content: bytes) -> bytes:
    content = bytearray(content)
    for mark, offset in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        content[content.index(mark) + offset] = 9
    return bytes(content)


REFUSED = {
    "is empty; download it again": lambda content: b"",
    "is not a whole zip archive; download it again": lambda content: content[:-30],
    "is encrypted; unpack it with its password": encrypted,
    "is compressed in a way that cannot be read here (method 9); unpack it by hand": deflate64,
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_read_is_refused(tmp_path, reason):
    archive = pack(tmp_path / "a.zip", {"x": b"x" * 99})
    archive.write_bytes(REFUSED[reason](archive.read_bytes()))
    assert listed(archive) == ({}, {archive: f"a.zip {reason}"})


def test_an_empty_archive_is_refused(tmp_path):
    """A series that the server does not know comes as an archive of nothing."""
    archive = pack(tmp_path / "a.zip", {})
    assert listed(archive)[1] == {archive: "a.zip holds no files; download it again"}


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_there_twice_is_refused(tmp_path):
    archive = pack(tmp_path / "a.zip", {"x": b"x"})
    with zipfile.ZipFile(archive, "a") as packed:
        packed.writestr("x", b"y")
    assert listed(archive)[1] == {archive: "a.zip holds x twice; download it again"}


def test_too_many_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MOST_FILES", 3)
    archive = pack(tmp_path / "a.zip", {str(n): b"" for n in range(4)})
    assert listed(archive)[1] == {archive: "a.zip holds 4 files, accepted are 3"}


def test_what_explodes_is_refused_before_anything_is_written(tmp_path, temporary, monkeypatch):
    monkeypatch.setattr(archives, "MOST_BYTES", 2**20)
    archive = pack(tmp_path / "a.zip", {"x": bytes(2**20), "y": b"y"})
    with (
        pytest.raises(DataError, match=r"^x and its like unpack to 0.0 GiB, accepted are"),
        on_disk([archive / "x", archive / "y"]),
    ):
        pass
    assert list(temporary.iterdir()) == []


def test_an_archive_in_an_archive_that_explodes_is_refused(tmp_path, temporary):
    archive = pack(tmp_path / "a.zip", {"in.zip": bytes(2**24)})
    (reason,) = listed(archive)[1].values()
    assert reason.startswith("in.zip unpacks from ")
    assert list(temporary.iterdir()) == []


def test_a_size_that_lies_is_damage_not_a_flood(tmp_path, temporary):
    """The header says 10 bytes, the stream holds a million."""
    archive = pack(tmp_path / "a.zip", {"x": bytes(10**6)})
    content = archive.read_bytes()
    archive.write_bytes(content.replace((10**6).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    assert size(archive / "x") == 10
    with pytest.raises(DataError, match="x is damaged in its archive"), on_disk([archive / "x"]):
        pass
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("flag", [0x20, 0x40])
def test_patched_and_strongly_encrypted_files_are_damage(tmp_path, flag):
    archive = pack(tmp_path / "a.zip", {"x": b"x" * 99})
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= flag
    archive.write_bytes(content)
    with pytest.raises(DataError, match="x is damaged in its archive"), on_disk([archive / "x"]):
        pass


def test_what_a_killed_process_left_is_removed_and_what_is_in_use_is_not(tmp_path, temporary):
    archive = pack(tmp_path / "a.zip", {"x": b"x"})
    left = temporary / "medaug-scan-abc"
    left.mkdir()
    (left / "1-001.dcm").write_bytes(b"a patient")
    with on_disk([archive / "x"]) as first, on_disk([archive / "x"]) as second:
        assert not left.exists()
        assert first[0].read_bytes() == second[0].read_bytes() == b"x"
        assert first[0] != second[0]


def test_an_archive_that_changes_is_read_anew(tmp_path):
    archive = pack(tmp_path / "a.zip", {"x": b"x"})
    with opened(archive / "x") as stream:
        assert stream.read() == b"x"
    pack(archive, {"x": b"another"})
    os.utime(archive, ns=(1, 1))
    with opened(archive / "x") as stream:
        assert stream.read() == b"another"
    with pytest.raises(DataError, match=r"^y is not in a\.zip$"), opened(archive / "y"):
        pass


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An archive of one scan and its label."""
    root = tmp_path_factory.mktemp("whole")
    hu, mask = miniature(7)
    write_series(root / "in" / "PANCREAS_0007", "PANCREAS_0007", hu)
    write_label(root / "in" / "label0007.nii.gz", mask)
    with zipfile.ZipFile(root / "a.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted((root / "in").rglob("*.*")):
            packed.write(path, path.relative_to(root / "in"))
    return (root / "a.zip").read_bytes()


@pytest.mark.parametrize("seed", range(60))
def test_a_mutated_archive_is_read_right_or_refused(tmp_path, whole, seed):
    """Bytes changed, cut out or cut off: the same voxels come back, or one sentence."""
    from medaug.data.formats.readers import read_labels, read_series

    draw = random.Random(seed)
    content = bytearray(whole)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(content))
        if draw.random() < 0.3:
            at = len(content) - 1 - draw.randrange(min(2000, len(content)))
        match draw.randrange(3):
            case 0:
                content[at] = draw.randrange(256)
            case 1:
                del content[at : at + draw.randrange(1, 50)]
            case 2:
                del content[max(at, 100) :]
    archive = tmp_path / "a.zip"
    archive.write_bytes(content)
    hu, mask = miniature(7)
    try:
        cases, problems = PancreasCT(archive).cases()
        for case in cases:
            assert case.label is not None
            image, *_ = read_series(case.image, checked=True)
            marks, _ = read_labels(case.label, [1])
            assert (image == hu).all()
            assert (marks == mask).all()
    except MedaugError as error:
        problems = [error]
    assert all("\n" not in str(problem) for problem in problems)
