"""CIFAR-10, CelebA, LFW and Flowers as published, with what they say of each picture."""

from pathlib import Path

import numpy as np
import pytest
from scipy import io

from medaug.data import open_source
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
from medaug.data.sources.pictures.decoding import decode
from medaug.data.sources.pictures.scaling import square
from tests.support import photographs as made
from tests.support.photographs import filled, side
from tests.support.refusals import refused_like


@pytest.fixture(scope="module")
def cifar(tmp_path_factory) -> tuple[Path, dict[str, np.ndarray]]:
    root = tmp_path_factory.mktemp("cifar") / "cifar-10-batches-bin"
    return root, made.cifar(root)


def test_cifar_is_read_plane_by_plane(cifar, tmp_path):
    root, batches = cifar
    source = open_source(str(root.parent))
    assert (source.name, source.classes[:2]) == ("cifar-10", ("airplane", "automobile"))
    assert source.counts() == {"train": 50_000, "heldout": 10_000}
    prepare(source, tmp_path / "c", CacheSettings(size=None))
    cache = SliceCache.open(tmp_path / "c")
    assert [len(cache.split[name]) for name in ("train", "heldout")] == [5, 1]
    (last,) = cache.split["heldout"]
    case, batch = cache.cases[last], batches["test_batch"]
    assert case.image.shape == (10_000, 32, 32, 3)
    np.testing.assert_array_equal(case.classes, batch[:, 0])
    for record, y, x, channel in ((0, 0, 0, 0), (9_999, 31, 2, 2), (17, 5, 30, 1)):
        place = 1 + channel * 1024 + y * 32 + x
        assert case.image[record, y, x, channel] == batch[record, place]
    second = cache.cases[cache.split["train"][1]]
    np.testing.assert_array_equal(second.classes, batches["data_batch_2"][:, 0])


def test_cifar_in_another_version_or_damaged_is_refused(cifar, tmp_path):
    whole, _ = cifar
    pickled = tmp_path / "cifar-10-batches-py"
    pickled.mkdir()
    for name in ("data_batch_1", "test_batch", "batches.meta"):
        (pickled / name).write_bytes(b"\x80\x02}q\x01.")
    with refused_like(".*: CIFAR-10 for Python is made of pickles, which can run code .*"):
        open_source(str(pickled))
    root = tmp_path / "bin"
    root.mkdir()
    for path in whole.iterdir():
        (root / path.name).symlink_to(path)
    (root / "test_batch.bin").unlink()
    with refused_like(r".*: test_batch.bin is missing; five batches, .*"):
        open_source(str(root))
    raw = (whole / "test_batch.bin").read_bytes()
    (root / "test_batch.bin").write_bytes(raw[:-3073])
    with refused_like(".*: holds 30726927 bytes, a batch of CIFAR-10 30730000; get it again"):
        open_source(str(root))
    (root / "test_batch.bin").write_bytes(b"\x0b" + raw[1:])
    with refused_like(".*: holds the class 11, known are 0 to 9"):
        open_source(str(root))
    (root / "batches.meta.txt").unlink()
    (root / "batches.meta.txt").write_bytes(b"\xff\n" * 10)
    with refused_like(".*batches.meta.txt: cannot be read as text; get it again"):
        open_source(str(root))


@pytest.mark.parametrize("suffix", [".txt", ".csv"])
def test_celeba_has_attributes_by_name_and_its_own_partition(tmp_path, suffix):
    root = tmp_path / "x"
    has = made.celeba(root, 18, suffix=suffix)
    cache = filled(root, tmp_path / "c", size=37)
    assert (cache.source, cache.attributes) == ("celeba", made.ATTRIBUTES)
    sides = [("train", "validation", "heldout")[(n % 6 == 4) + 2 * (n % 6 == 5)] for n in range(18)]
    for name in ("train", "validation", "heldout"):
        mine = [n for n in range(18) if sides[n] == name]
        wanted = [list(has[f"{n + 1:06d}.jpg"].values()) for n in mine]
        np.testing.assert_array_equal(side(cache, name, "attributes"), wanted)
        # the picture itself shows who smiles, and where 148 of 178 x 218 are
        images = side(cache, name).astype(int)
        np.testing.assert_array_equal(images[:, 24, 18, 2] > 170, np.array(wanted)[:, 3])
    whole = decode(root / "img_align_celeba" / "000001.jpg", 3)
    cut = whole[35:183, 15:163].reshape(37, 4, 37, 4, 3).mean((1, 3))
    assert np.abs(side(cache, "train")[0] - cut).max() <= 0.501


def test_celeba_as_unpacked_from_its_folders(tmp_path):
    flat, deep = tmp_path / "flat", tmp_path / "deep" / "CelebA"
    made.celeba(flat, 12)
    (deep / "Img" / "img_align_celeba").mkdir(parents=True)
    (flat / "img_align_celeba").rename(deep / "Img" / "img_align_celeba" / "img_align_celeba")
    for name, folder in (("list_attr_celeba.txt", "Anno"), ("list_eval_partition.txt", "Eval")):
        (deep / folder).mkdir()
        (flat / name).rename(deep / folder / name)
    source = open_source(str(deep.parent))
    assert (source.name, source.counts()) == (
        "celeba",
        {"train": 8, "heldout": 2, "validation": 2},
    )


def test_celeba_that_contradicts_itself_is_refused(tmp_path):
    made.celeba(tmp_path, 12)
    lists = tmp_path / "list_attr_celeba.txt"
    parts = tmp_path / "list_eval_partition.txt"
    good, split = lists.read_text(), parts.read_text()
    for text, message in (
        (good.replace("12\n", "13\n", 1), "announces 13 pictures, lists 12; get it again"),
        (good.replace(" -1\n", "\n", 1), "line .* must be a picture and 4 times -1 or 1"),
        (good.replace(" -1", "  0", 1), "line .* must be a picture and 4 times -1 or 1"),
        (good.partition("\n")[2], "must begin with the number of pictures; get it again"),
        (good.replace("000002", "000001"), "lists 000001.jpg twice; get it again"),
    ):
        lists.write_text(text)
        with refused_like(f".*list_attr_celeba.txt: {message}"):
            open_source(str(tmp_path))
    lists.write_text(good)
    parts.write_text(split.replace("000003.jpg 0", "000003.jpg 3"))
    with refused_like(".*: '000003.jpg 3' must be a picture and 0, 1 or 2"):
        open_source(str(tmp_path))
    parts.write_text(split.replace("000003.jpg 0\n", ""))
    with refused_like(".*: has no line for 000003.jpg, which list_attr_celeba.txt has"):
        open_source(str(tmp_path))
    parts.write_text(split.replace("000003.jpg", "00000\0.jpg"))
    with refused_like(r".*: has no line for 000003.jpg, .*"):
        open_source(str(tmp_path))
    parts.write_text(split + "00000\0.jpg 0\n")
    with refused_like(
        r".*list_attr_celeba.txt: has no line for '00000\\x00.jpg', which list_eval_partition.*"
    ):
        open_source(str(tmp_path))
    parts.write_text(split + "000099.jpg " + "9" * 300 + "\n")
    with refused_like(r".*: '000099.jpg 99{1,80}\.\.\. must be a picture and 0, 1 or 2"):
        open_source(str(tmp_path))
    parts.unlink()
    with refused_like(".*: list_eval_partition.txt is missing; CelebA needs .*"):
        open_source(str(tmp_path))
    parts.write_text(split)
    (tmp_path / "img_align_celeba" / "000005.jpg").unlink()
    (problem,) = open_source(str(tmp_path)).problems
    assert str(problem) == "000005.jpg: listed but not in img_align_celeba"


def test_faces_of_celeba_that_no_list_has_are_told(tmp_path):
    made.celeba(tmp_path, 12, suffix=".csv")
    folder = tmp_path / "img_align_celeba"
    (folder / "000099.jpg").write_bytes((folder / "000005.jpg").read_bytes())
    source = open_source(str(tmp_path))
    assert source.excluded == {"in no list": "1 pictures of img_align_celeba"}
    lists = tmp_path / "list_attr_celeba.csv"
    lists.write_text(
        "\n".join(line for line in lists.read_text().splitlines() if not line.startswith("000005"))
    )
    with refused_like(".*celeba.csv: has no line for 000005.jpg, which list_eval_partition.csv .*"):
        open_source(str(tmp_path))


PEOPLE = {"Ann Lee": 3, "Bo": 1, "Cy de Vries": 2, "Di Wu": 4, "Ed Ash": 1}


def test_lfw_holds_people_out_whole(tmp_path):
    root = tmp_path / "x"
    scores = made.lfw(root, PEOPLE)
    source = open_source(str(root))
    assert (source.name, source.attributes) == ("lfw", ("Male", "Mouth Closed"))
    cache = filled(root, tmp_path / "c", holdout=0.4)
    people = {}
    for key, score in scores.items():
        path = root / "lfw" / key[0] / f"{key[0]}_{key[1]:04d}.jpg"
        people[square(decode(path, 3), 16).tobytes()] = (key[0], (score > 0).tolist())
    there = {}
    for name in ("train", "heldout"):
        images, has = side(cache, name), side(cache, name, "attributes")
        there[name] = {people[image.tobytes()][0] for image in images}
        assert [people[image.tobytes()][1] for image in images] == has.tolist()
    assert there["train"].isdisjoint(there["heldout"])
    assert (len(there["train"]), len(there["heldout"])) == (3, 2)


def test_lfw_with_its_lists_of_people_and_without_attributes(tmp_path):
    root = tmp_path / "x"
    made.lfw(root, PEOPLE, "lfw-deepfunneled")
    (root / "peopleDevTrain.txt").write_text("3\nAnn_Lee\t3\nBo\t1\nCy_de_Vries\t2\n")
    (root / "peopleDevTest.txt").write_text("1\nDi_Wu\t4\n")
    source = open_source(str(root))
    assert source.counts() == {"train": 6, "heldout": 4}
    assert source.excluded == {"without a side": "1 faces of people in neither list of people"}
    (root / "lfw_attributes.txt").unlink()
    assert (open_source(str(root)).name, open_source(str(root)).attributes) == ("lfw", ())
    (root / "peopleDevTest.txt").write_text("2\nDi_Wu\t4\n")
    with refused_like(".*peopleDevTest.txt: must begin with the number of its people"):
        open_source(str(root))
    (root / "peopleDevTest.txt").write_bytes(b"1\nDi_W\xfc\t4\n")
    with refused_like(".*peopleDevTest.txt: cannot be read as text; get it again"):
        open_source(str(root))


def test_lfw_scores_that_are_not_as_published_are_refused(tmp_path):
    made.lfw(tmp_path, PEOPLE)
    path = tmp_path / "lfw_attributes.txt"
    good = path.read_text()
    path.write_text(good.replace("#\tperson\t", "#\twho\t"))
    with refused_like('.*: the line "# person imagenum ..." is missing; get it again'):
        open_source(str(tmp_path))
    path.write_text(good.rstrip().rpartition("\t")[0] + "\n")
    with refused_like(".*: line 13 must be a person, a number not seen before and 2 .*"):
        open_source(str(tmp_path))
    lines = good.splitlines()
    path.write_text("\n".join(lines[:-1]) + "\n")
    source = open_source(str(tmp_path))
    assert source.excluded == {"without attributes": "1 faces have no line in lfw_attributes.txt"}
    assert source.counts() == {"all": 10}


def test_flowers_have_their_kind_by_number(tmp_path):
    root = tmp_path / "x"
    kinds = [3, 1, 2, 2, 102, 1, 3, 102, 2]
    parts = {"trnid": [9, 1, 2, 8], "valid": [3], "tstid": [4, 5, 6, 7]}
    made.flowers(root, kinds, parts)
    cache = filled(root, tmp_path / "c", size=24)
    assert cache.classes == tuple(str(kind) for kind in range(1, 103))
    for name, key in (("train", "trnid"), ("validation", "valid"), ("heldout", "tstid")):
        numbers = sorted(parts[key])
        assert [cache.classes[k] for k in side(cache, name, "classes")] == [
            str(kinds[number - 1]) for number in numbers
        ]
        paths = [root / "jpg" / f"image_{number:05d}.jpg" for number in numbers]
        wanted = [square(decode(path, 3), 24) for path in paths]
        np.testing.assert_array_equal(side(cache, name), wanted)
    io.savemat(root / "setid.mat", {**parts, "valid": [3, 9]})
    with refused_like(".*: valid holds 9, which must be 1 to 9 and in one part only; .*"):
        open_source(str(root))
    io.savemat(root / "setid.mat", {**parts, "tstid": [4, 5, 6]})
    with refused_like(".*setid.mat: image_00007.jpg is in no part; get it again"):
        open_source(str(root))
    for wrong in (0, 103):
        io.savemat(root / "imagelabels.mat", {"labels": [[*kinds[:-1], wrong]]})
        with refused_like(".*imagelabels.mat: labels must be 1 to 102; get it again"):
            open_source(str(root))
    (root / "setid.mat").write_bytes(b"MATLAB 5.0 MAT-file" + b" " * 200)
    io.savemat(root / "imagelabels.mat", {"labels": [kinds]})
    with refused_like(".*: holds no whole numbers called trnid; get it again"):
        open_source(str(root))
    (root / "setid.mat").unlink()
    with refused_like(".*: setid.mat is missing; Oxford-102 needs jpg/ and both .mat files"):
        open_source(str(root))
