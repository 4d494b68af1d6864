"""Every layout of pictures opens with its classes, attributes and split, or says why not."""

import hashlib
import json
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from scipy import io

from medaug.config import resolve
from medaug.data import filling, open_source
from medaug.data.cache import CacheSettings, SliceCache, prepare
from medaug.data.pictures import photos
from medaug.data.pictures.decoding import decode
from medaug.data.pictures.scaling import square
from medaug.errors import CacheError, ConfigError, DataError, OutputError
from tests import photographs as made
from tests.photographs import save, scene


def filled(root: Path, cache: Path, **settings) -> SliceCache:
    prepare(open_source(str(root)), cache, CacheSettings(**{"size": 16, **settings}), 0)
    return SliceCache.open(cache)


def side(cache: SliceCache, name: str, what: str = "image") -> np.ndarray:
    """All of one side of the split."""
    return np.concatenate([getattr(cache.cases[id], what) for id in cache.split[name]])


def refused(error: type[Exception], message: str):
    return pytest.raises(error, match=f"^{message}$")


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_a_flat_folder_is_split_by_name(tmp_path):
    for number in range(20):
        save(tmp_path / "in" / f"{number:02d}.{['png', 'jpg'][number % 2]}", scene(number))
    (tmp_path / "in" / "notes.txt").write_text("of no use")
    (tmp_path / "in" / ".hidden.png").write_bytes(b"")
    cache = filled(tmp_path / "in", tmp_path / "c", holdout=0.25)
    assert (cache.kind, cache.classes, cache.attributes) == ("image", (), ())
    assert (cache.size, cache.channels, len(cache.split["heldout"])) == (16, 3, 1)
    whole = [square(decode(path, 3), 16) for path in sorted((tmp_path / "in").glob("[0-9]*"))]
    train, held = side(cache, "train"), side(cache, "heldout")
    assert (len(train), len(held)) == (15, 5)
    assert sorted(p.tobytes() for p in whole) == sorted(p.tobytes() for p in [*train, *held])
    other = filled(tmp_path / "in", tmp_path / "d", holdout=0.25, seed=1)
    assert not np.array_equal(side(other, "heldout"), held)
    with refused(CacheError, ".*: the cache was made with seed 0, asked for 1; .*"):
        filled(tmp_path / "in", tmp_path / "c", holdout=0.25, seed=1)
    save(tmp_path / "in" / "new.png", scene(99))
    with refused(CacheError, ".*: the cache was made of 20 pictures, and there are 21 now, .*"):
        filled(tmp_path / "in", tmp_path / "c", holdout=0.25)


def test_a_folder_for_each_class(tmp_path):
    for kind, colour in (("dog", 30), ("cat", 200), ("ape", 90)):
        for number in range(4):
            save(tmp_path / kind / f"{number}.png", np.full((9, 9, 3), colour + number, np.uint8))
    cache = filled(tmp_path, tmp_path / ".c", size=8, holdout=0.25)
    assert cache.classes == ("ape", "cat", "dog")
    images, classes = side(cache, "train"), side(cache, "train", "classes")
    assert len(images) == 9
    assert [(90, 200, 30)[k] for k in classes] == [p - p % 10 for p in images[:, 0, 0, 0].tolist()]


def test_parts_are_the_split(tmp_path):
    for part, colour in (("train", 10), ("val", 20), ("test", 30)):
        for kind in ("a", "b"):
            for number in range(3):
                grey = np.full((12, 12), colour + number, np.uint8)
                save(tmp_path / "x" / part / kind / f"{number}.png", grey)
    cache = filled(tmp_path / "x", tmp_path / "c")
    found = {name: {int(v) for v in np.unique(side(cache, name))} for name in cache.split}
    assert found == {"train": {10, 11, 12}, "validation": {20, 21, 22}, "heldout": {30, 31, 32}}
    assert cache.channels == 1
    assert side(cache, "train").shape == (6, 16, 16)
    for path in (tmp_path / "x" / "test").rglob("*.png"):
        path.unlink()
    cache = filled(tmp_path / "x", tmp_path / "d")
    assert np.unique(side(cache, "heldout")).tolist() == [20, 21, 22]
    single = [path for path in (tmp_path / "x").rglob("b") if path.is_dir()]
    for place in single:
        place.rename(place.parent.parent.parent / f"b-{place.parent.name}")
    assert open_source(str(tmp_path / "x")).classes == ()
    save(tmp_path / "x" / "val" / "c" / "0.png", scene(0))
    with refused(DataError, ".*: class 'c' is held out, and training has no picture of it; .*"):
        open_source(str(tmp_path / "x"))


def test_colours_are_kept_unless_asked(tmp_path):
    for number in range(6):
        save(tmp_path / "x" / f"{number}.png", scene(number, 16, 16))
    rgb = filled(tmp_path / "x", tmp_path / "rgb", holdout=0.0)
    np.testing.assert_array_equal(side(rgb, "train"), [scene(n, 16, 16) for n in range(6)])
    grey = filled(tmp_path / "x", tmp_path / "grey", holdout=0.0, colour="grey")
    assert (rgb.channels, grey.channels) == (3, 1)
    luma = side(rgb, "train") @ np.array([0.299, 0.587, 0.114])
    assert np.abs(side(grey, "train") - luma).max() < 1
    with refused(CacheError, ".*: the cache was made with colour rgb, asked for grey; .*"):
        filled(tmp_path / "x", tmp_path / "rgb", holdout=0.0, colour="grey")
    with refused(ConfigError, "colour: 'sepia', accepted are grey, rgb"):
        filled(tmp_path / "x", tmp_path / "d", colour="sepia")
    with refused(ConfigError, "size: photographs need a number of pixels, such as 64"):
        filled(tmp_path / "x", tmp_path / "d", size=None)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["a.png", "b.png", "c.dcm"], "pictures and scans lie together, such as a.png and .*"),
        (["a.png", "b.jpg", "c.nii.gz"], "pictures and scans lie together, .*"),
        (["a/1.png", "b/1.png", "c/1.nrrd"], "pictures, and scans such as 1.nrrd; .*"),
        (["1.png", "a/1.png"], "pictures lie beside folders of pictures; .*"),
        (["a/1.png", "b/d/1.png"], "pictures lie deeper than a folder for each class"),
        (["images/1.png", "masks/1.png"], "masks looks like label maps, and pictures .*"),
        (["1.png", "1_mask.png"], "1_mask looks like the label map of 1, and pictures take .*"),
        (["train/1.png", "test/1.png", "more/1.png"], "more lies beside train; accepted are .*"),
        (["train/1.png", "val/1.png", "valid/1.png"], "val and valid are the same part"),
        (["train/a/1.png", "test/1.png"], r"class '\(none\)' is held out, and training has .*"),
    ],
)  # fmt: skip
def test_what_is_not_clear_is_refused(tmp_path, files, message):
    for number, name in enumerate(files):
        path = tmp_path / "x" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".png", ".jpg"):
            save(path, scene(number))
        else:
            path.write_bytes(b"\0" * 128 + b"DICM")
    with pytest.raises(DataError, match=f": {message}$"):
        open_source(str(tmp_path / "x"))


def test_dicom_without_an_ending_is_seen(tmp_path):
    for number in range(3):
        save(tmp_path / f"{number}.png", scene(number))
    (tmp_path / "LICENSE").write_text("free")
    assert open_source(str(tmp_path)).counts() == {"all": 3}
    (tmp_path / "IM0001").write_bytes(b"\0" * 128 + b"DICM")
    with refused(DataError, ".*: pictures and scans lie together, such as 0.png and IM0001; .*"):
        open_source(str(tmp_path))


def test_damaged_pictures_are_named_and_left_out(tmp_path, medaug):
    root = tmp_path / "x"
    for number in range(12):
        save(root / f"Doe_{number:02d}.png", scene(number))
    cut = (root / "Doe_03.png").read_bytes()
    (root / "Doe_03.png").write_bytes(cut[: len(cut) // 2])
    (root / "Doe_07.png").write_bytes(b"nothing")
    save(root / "old.webp", scene(0))
    result = medaug("prepare", root, "--cache", "c", "--size", 16, "--json", "--workers", 0)
    assert result.code == 1
    failed = result.json["failed"]
    assert set(failed) == {"Doe_03.png", "Doe_07.png", "old.webp"}
    assert failed["Doe_03.png"].startswith("truncated or damaged")
    assert failed["old.webp"] == "not PNG or JPEG; convert it"
    cache = SliceCache.open(tmp_path / "c")
    assert sum(len(case.image) for case in cache.cases.values()) == 10
    kept = {p.tobytes() for p in [*side(cache, "train"), *side(cache, "heldout")]}
    good = [path for path in root.glob("*.png") if path.name not in failed]
    assert kept == {square(decode(path, 3), 16).tobytes() for path in good}
    again = medaug("prepare", root, "--cache", "c", "--size", 16, "--json", "--workers", 0)
    assert (again.json["done"], again.json["failed"]) == ([], failed)
    for path in (tmp_path / "c").rglob("*"):  # no file's name is kept, which may be a person's
        assert path.is_dir() or b"Doe" not in path.read_bytes()
    assert len(medaug("inspect", "c", "--json").json["problems"]) == 2
    for path in root.glob("*.png"):
        path.write_bytes(b"nothing")
    lost = medaug("prepare", root, "--cache", "d", "--size", 16)
    assert lost.code == 2
    assert "can be used" in lost.err


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
    with refused(DataError, ".*: CIFAR-10 for Python is made of pickles, which can run code .*"):
        open_source(str(pickled))
    root = tmp_path / "bin"
    root.mkdir()
    for path in whole.iterdir():
        (root / path.name).symlink_to(path)
    (root / "test_batch.bin").unlink()
    with refused(DataError, r".*: test_batch.bin is missing; five batches, .*"):
        open_source(str(root))
    raw = (whole / "test_batch.bin").read_bytes()
    (root / "test_batch.bin").write_bytes(raw[:-3073])
    with refused(DataError, ".*: holds 30726927 bytes, a batch of CIFAR-10 30730000; get it again"):
        open_source(str(root))
    (root / "test_batch.bin").write_bytes(b"\x0b" + raw[1:])
    with refused(DataError, ".*: holds the class 11, known are 0 to 9"):
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
        with refused(DataError, f".*list_attr_celeba.txt: {message}"):
            open_source(str(tmp_path))
    lists.write_text(good)
    parts.write_text(split.replace("000003.jpg 0", "000003.jpg 3"))
    with refused(DataError, ".*: '000003.jpg 3' must be a picture and 0, 1 or 2"):
        open_source(str(tmp_path))
    parts.write_text(split.replace("000003.jpg 0\n", ""))
    with refused(DataError, ".*: has no line for 000003.jpg, which list_attr_celeba.txt has"):
        open_source(str(tmp_path))
    parts.unlink()
    with refused(DataError, ".*: list_eval_partition.txt is missing; CelebA needs .*"):
        open_source(str(tmp_path))
    parts.write_text(split)
    (tmp_path / "img_align_celeba" / "000005.jpg").unlink()
    (problem,) = open_source(str(tmp_path)).problems
    assert str(problem) == "000005.jpg: listed but not in img_align_celeba"


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
    with refused(DataError, ".*peopleDevTest.txt: must begin with the number of its people"):
        open_source(str(root))


def test_lfw_scores_that_are_not_as_published_are_refused(tmp_path):
    made.lfw(tmp_path, PEOPLE)
    path = tmp_path / "lfw_attributes.txt"
    good = path.read_text()
    path.write_text(good.replace("#\tperson\t", "#\twho\t"))
    with refused(DataError, ".*: the line '#\tperson\timagenum\t...' is missing; get it again"):
        open_source(str(tmp_path))
    path.write_text(good.rstrip().rpartition("\t")[0] + "\n")
    with refused(DataError, ".*: line 13 must be a person, a number not seen before and 2 .*"):
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
    with refused(DataError, ".*: valid holds 9, which must be 1 to 9 and in one part only; .*"):
        open_source(str(root))
    (root / "setid.mat").write_bytes(b"MATLAB 5.0 MAT-file" + b" " * 200)
    with refused(DataError, ".*: holds no whole numbers called trnid; get it again"):
        open_source(str(root))
    (root / "setid.mat").unlink()
    with refused(DataError, ".*: setid.mat is missing; Oxford-102 needs jpg/ and both .mat files"):
        open_source(str(root))


def test_bytes_do_not_depend_on_workers_or_interruptions(tmp_path, monkeypatch):
    monkeypatch.setattr(photos, "BLOCK_BYTES", 3000)  # three pictures
    for number in range(20):
        save(tmp_path / "x" / f"{number:02d}.jpg", scene(number))
    (tmp_path / "x" / "05.jpg").write_bytes(b"cut")
    source, settings = open_source(str(tmp_path / "x")), CacheSettings(size=16)
    prepare(source, tmp_path / "a", settings, 0)
    prepare(source, tmp_path / "b", settings, 2)
    write, written = filling.write_case, []

    def full(*arguments, **named):
        if len(written) % 3 == 2:
            written.append("")
            raise OutputError("full")
        written.append(arguments)
        write(*arguments, **named)

    monkeypatch.setattr(filling, "write_case", full)
    for _ in range(3):
        with pytest.raises(OutputError, match="full"):
            prepare(source, tmp_path / "c", settings, 0)
    monkeypatch.setattr(filling, "write_case", write)
    report = prepare(source, tmp_path / "c", settings, 0)
    assert len(report.skipped) == 6
    assert [str(problem) for problem in report.failed] == [
        "05.jpg: not a PNG or JPEG file, or its header is damaged"
    ]
    assert len(hashes(tmp_path / "a")) > 14
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b") == hashes(tmp_path / "c")


def test_memory_does_not_grow_with_the_collection(tmp_path, monkeypatch):
    monkeypatch.setattr(photos, "BLOCK_BYTES", 2**19)
    peaks = {}
    for count in (400, 3200):
        root = tmp_path / str(count)
        first = save(root / "0.png", scene(0, 36, 36)).read_bytes()
        for number in range(1, count):
            (root / f"{number}.png").write_bytes(first)
        source = open_source(str(root))
        tracemalloc.start()
        prepare(source, tmp_path / f"c{count}", CacheSettings(size=32), 0)
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    decoded = 3200 * 32 * 32 * 3
    assert peaks[3200] < 1.5 * peaks[400] + 3200 * 300  # the names alone grow
    assert peaks[3200] < decoded / 2


def test_grey_caches_are_as_they_were(tmp_path):
    """Of the digits by an earlier version: the same bytes, so that runs on them go on."""
    rng = np.random.default_rng(5)
    root = tmp_path / "digits"
    root.mkdir()
    for part, count in (("train", 30), ("t10k", 12)):
        images = rng.integers(0, 256, (count, 28, 28), np.uint8)
        head = b"\0\0\x08\x03" + np.array(images.shape, ">u4").tobytes()
        (root / f"{part}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        head = b"\0\0\x08\x01" + np.array([count], ">u4").tobytes()
        labels = (np.arange(count) % 10).astype(np.uint8)
        (root / f"{part}-labels-idx1-ubyte").write_bytes(head + labels.tobytes())
    for size, known in ((None, "ea4dc93962ec62f6"), (16, "ca8242b7a4506432")):
        cache = filled(root, tmp_path / f"c{size}", size=size)
        assert cache.fingerprint.startswith(known)
        index = json.loads((cache.path / "cache.json").read_text())
        assert index["settings"] == {"size": size}
        assert "sides" not in index
    with refused(ConfigError, "colour: digits is kept as it is; leave the setting out"):
        filled(root, tmp_path / "d", colour="rgb")


def test_a_condition_that_pictures_do_not_have_is_refused(tmp_path):
    made.celeba(tmp_path / "x", 12)
    cache = filled(tmp_path / "x", tmp_path / "c")
    from medaug.data.condition import declared

    assert declared(cache, resolve({"data": {"attributes": ["Male"]}}).data).names == ("Male",)
    there = re.escape("(there: 5_o_Clock_Shadow, Eyeglasses, Male, Smiling)")
    with refused(ConfigError, f"config data.attributes: 'Hat' is not in .* {there}"):
        declared(cache, resolve({"data": {"attributes": ["Hat"]}}).data)
