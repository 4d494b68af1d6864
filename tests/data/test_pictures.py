"""Every layout of pictures opens with its classes, attributes and split, or says why not."""

import json
import re
import tracemalloc

import numpy as np
import pytest

from medaug.core.config import resolve
from medaug.core.errors import CacheError, ConfigError, DataError, OutputError
from medaug.core.geometry import resampling_matrix
from medaug.data import open_source
from medaug.data.cache import fill
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
from medaug.data.sources.pictures import photos
from medaug.data.sources.pictures.decoding import decode
from medaug.data.sources.pictures.scaling import square
from tests.support import photographs as made
from tests.support.photographs import filled, save, scene, side
from tests.support.refusals import refused_like
from tests.support.trees import tree


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
    with refused_like(".*: the cache was made with seed 0, asked for 1; .*", CacheError):
        filled(tmp_path / "in", tmp_path / "c", holdout=0.25, seed=1)
    save(tmp_path / "in" / "new.png", scene(99))
    with refused_like(
        ".*: the cache was made of 20 pictures, and there are 21 now, .*", CacheError
    ):
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
    with refused_like(".*: class 'c' is held out, and training has no picture of it; .*"):
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
    with refused_like(".*: the cache was made with colour rgb, asked for grey; .*", CacheError):
        filled(tmp_path / "x", tmp_path / "rgb", holdout=0.0, colour="grey")
    with refused_like("colour: 'sepia', accepted are grey, rgb", ConfigError):
        filled(tmp_path / "x", tmp_path / "d", colour="sepia")
    with refused_like("size: photographs need a number of pixels, such as 64", ConfigError):
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
    with refused_like(".*: pictures and scans lie together, such as 0.png and IM0001; .*"):
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


def test_bytes_do_not_depend_on_workers_or_interruptions(tmp_path, monkeypatch):
    monkeypatch.setattr(photos, "BLOCK_BYTES", 3000)  # three pictures
    for number in range(20):
        save(tmp_path / "x" / f"{number:02d}.jpg", scene(number))
    (tmp_path / "x" / "05.jpg").write_bytes(b"cut")
    source, settings = open_source(str(tmp_path / "x")), CacheSettings(size=16)
    prepare(source, tmp_path / "a", settings, 0)
    prepare(source, tmp_path / "b", settings, 2)
    write, written = fill.write_case, []

    def full(*arguments, **named):
        if len(written) % 3 == 2:
            written.append("")
            raise OutputError("full")
        written.append(arguments)
        write(*arguments, **named)

    monkeypatch.setattr(fill, "write_case", full)
    for _ in range(3):
        with pytest.raises(OutputError, match="full"):
            prepare(source, tmp_path / "c", settings, 0)
    monkeypatch.setattr(fill, "write_case", write)
    report = prepare(source, tmp_path / "c", settings, 0)
    assert len(report.skipped) == 6
    assert [str(problem) for problem in report.failed] == [
        "05.jpg: not a PNG or JPEG file, or its header is damaged"
    ]
    assert len(tree(tmp_path / "a", ".lock")) > 14
    assert (
        tree(tmp_path / "a", ".lock")
        == tree(tmp_path / "b", ".lock")
        == tree(tmp_path / "c", ".lock")
    )


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
    """Of the digits by an earlier version: the same bytes, so that runs on them go on.

    Resized, a level that lies between two whole ones may be either, by the processor's rounding.
    """
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
        if part == "train":
            first = images.astype(np.float64)
    for size in (None, 16):
        cache = filled(root, tmp_path / f"c{size}", size=size)
        if size is None:
            assert cache.fingerprint.startswith("ea4dc93962ec62f6")
        else:
            along = resampling_matrix(28, size, (28 / size - 1) / 2, 28 / size)[0]
            along = along / along.sum(1, keepdims=True)
            exact = along @ first @ along.T
            assert np.abs(cache.cases["train"].image - exact.clip(0, 255)).max() <= 0.5 + 1e-4
        index = json.loads((cache.path / "cache.json").read_text())
        assert index["settings"] == {"size": size}
        assert "sides" not in index
    with refused_like("colour: digits is kept as it is; leave the setting out", ConfigError):
        filled(root, tmp_path / "d", colour="rgb")


def test_a_condition_that_pictures_do_not_have_is_refused(tmp_path):
    made.celeba(tmp_path / "x", 12)
    cache = filled(tmp_path / "x", tmp_path / "c")
    from medaug.data.feed.condition import declared

    assert declared(cache, resolve({"data": {"attributes": ["Male"]}}).data).names == ("Male",)
    there = re.escape("(there: 5_o_Clock_Shadow, Eyeglasses, Male, Smiling)")
    with refused_like(f"config data.attributes: 'Hat' is not in .* {there}", ConfigError):
        declared(cache, resolve({"data": {"attributes": ["Hat"]}}).data)
