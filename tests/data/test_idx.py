"""idx files are read by what their header announces, and refused where it is not what they hold."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from medaug.data import open_source
from medaug.data.sources.idx import Idx, read_idx
from tests.support.refusals import refused


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A folder of the four files, two of them packed."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for part, n in (("train", 12), ("t10k", 5)):
        images, labels = rng.integers(0, 256, (n, 28, 28)), np.arange(n) % 10
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images)))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    return folder


def test_the_four_files_are_two_parts(digits):
    source = open_source(str(digits))
    assert isinstance(source, Idx)
    assert (source.name, source.kind, source.classes[3]) == ("mnist", "image", "3")
    parts = source.parts()
    assert {name: images.shape for name, (images, _) in parts.items()} == {
        "train": (12, 28, 28),
        "test": (5, 28, 28),
    }
    assert parts["train"][1].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert parts["test"][0].dtype == np.uint8


def test_clothes_have_names(digits):
    assert Idx(digits, "fashion-mnist").classes[9] == "ankle boot"


def test_a_missing_file_is_named(digits):
    (digits / "t10k-labels-idx1-ubyte").unlink()
    with refused(
        f"{digits}: t10k-labels-idx1-ubyte(.gz) is missing; all four idx files are needed"
    ):
        Idx(digits).parts()


def test_a_wrong_count_is_refused(digits):
    path = digits / "train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-2])
    with refused(f"{path}: announces 12 = 12 bytes, holds 10; get it again"):
        Idx(digits).parts()
    path.write_bytes(idx_bytes(np.zeros(11)))
    with refused(
        f"{digits}: train-images-idx3-ubyte.gz holds 12 pictures, "
        "train-labels-idx1-ubyte 11 labels; get them again"
    ):
        Idx(digits).parts()
    path.write_bytes(idx_bytes(np.full(12, 10)))
    with refused(f"{path}: holds the class 10, known are 0 to 9"):
        Idx(digits).parts()


def test_what_is_not_idx_is_refused(digits):
    path = digits / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros(12))))
    with refused(
        f"{path}: begins with 00000801, an idx file of 3-dimensional unsigned bytes with 00000803"
    ):
        Idx(digits).parts()
    path.write_bytes(gzip.compress(b"\0\0\x08\x03\0\0"))
    with refused(f"{path}: announces a shape that is cut off; get it again"):
        Idx(digits).parts()
    path.write_bytes(gzip.compress(idx_bytes(np.zeros((9, 28, 28))))[:-8])
    with refused(f"{path}: the gzip file is truncated or damaged; get it again"):
        Idx(digits).parts()


@pytest.mark.real
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_real_files(real_data, name):
    source = open_source(name, real_data / name)
    assert isinstance(source, Idx)
    parts = source.parts()
    assert parts["train"][0].shape == (60000, 28, 28)
    assert parts["test"][0].shape == (10000, 28, 28)
    assert np.bincount(parts["test"][1]).sum() == 10000
    if name == "mnist":
        assert parts["train"][1][:5].tolist() == [5, 0, 4, 1, 9]
    else:
        assert (np.bincount(parts["train"][1]) == 6000).all()


def test_read_idx_gives_the_array_back(tmp_path):
    array = np.arange(24).reshape(2, 3, 4)
    (tmp_path / "a").write_bytes(idx_bytes(array))
    np.testing.assert_array_equal(read_idx(tmp_path / "a", 3), array)
