"""PNG and JPEG files become the levels they hold, upright and in order, or are refused by name."""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from medaug.core.errors import DataError
from medaug.data.sources.pictures.decoding import decode
from medaug.data.sources.pictures.scaling import resize_pictures, square
from tests.support.photographs import raw_png, save, scene


def refused(path: Path, message: str, channels: int = 3) -> None:
    with pytest.raises(DataError, match=f"^{message}$"):
        decode(path, channels)


def test_png_comes_back_exactly(tmp_path):
    levels = scene(0)
    path = save(tmp_path / "a.png", levels)
    np.testing.assert_array_equal(decode(path, 3), levels)
    luma = levels @ np.array([0.299, 0.587, 0.114])
    assert np.abs(decode(path, 1) - luma).max() < 1
    grey = save(tmp_path / "grey.png", levels[..., 0])
    np.testing.assert_array_equal(decode(grey, 1), levels[..., 0])
    np.testing.assert_array_equal(decode(grey, 3), np.repeat(levels[..., :1], 3, 2))


def test_jpeg_comes_back_nearly(tmp_path):
    smooth = np.asarray(Image.fromarray(scene(0)).resize((96, 80), Image.Resampling.BICUBIC))
    for name in ("a.jpg", "b.JPEG"):
        assert np.abs(decode(save(tmp_path / name, smooth), 3).astype(int) - smooth).mean() < 2
    grey = decode(save(tmp_path / "grey.jpg", smooth[..., 1]), 1)
    assert np.abs(grey.astype(int) - smooth[..., 1]).mean() < 2


TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}
"""By EXIF: how what is stored must be turned to be upright."""


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_exif_says_what_is_up(tmp_path, orientation, ending):
    stored = scene(3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"a.{ending}", stored, exif=exif)
    found = decode(path, 3)
    wanted = TURNS[orientation](stored)
    assert found.shape == wanted.shape
    assert np.abs(found.astype(int) - wanted).mean() < (1e-9 if ending == "png" else 12)
    others = [turn(stored) for key, turn in TURNS.items() if key != orientation]
    for other in others:  # any other turn would be seen
        if other.shape == found.shape:
            assert np.abs(found.astype(int) - other).mean() > 25


def test_a_palette_becomes_its_colours(tmp_path):
    levels = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 8, 7]]], np.uint8)
    Image.fromarray(levels).quantize(4).save(tmp_path / "p.png")
    with Image.open(tmp_path / "p.png") as made:
        assert made.mode == "P"
    np.testing.assert_array_equal(decode(tmp_path / "p.png", 3), levels)
    Image.fromarray(levels[..., 0] > 100).save(tmp_path / "one.png")
    assert decode(tmp_path / "one.png", 1).tolist() == [[255, 0], [0, 0]]


def test_sixteen_bits_are_scaled_by_their_full_range(tmp_path):
    deep = np.array([[0, 257, 65535], [32768, 300, 65000]])
    (tmp_path / "deep.png").write_bytes(raw_png(deep, 16, 0))
    assert decode(tmp_path / "deep.png", 1).tolist() == np.rint(deep / 257).astype(int).tolist()
    colours = np.stack([deep, deep[::-1], deep // 2], -1)
    (tmp_path / "rgb.png").write_bytes(raw_png(colours, 16, 2))
    assert np.abs(decode(tmp_path / "rgb.png", 3) - colours / 257).max() <= 1
    (tmp_path / "twelve.png").write_bytes(raw_png(deep // 16, 16, 0))
    refused(tmp_path / "twelve.png", "16 bits a pixel, but no level above 4095 of 65535, .*", 1)


def test_transparency_is_refused_where_there_is_any(tmp_path):
    levels = scene(1)
    opaque = np.dstack([levels, np.full(levels.shape[:2], 255, np.uint8)])
    np.testing.assert_array_equal(decode(save(tmp_path / "a.png", opaque), 3), levels)
    grey = Image.fromarray(levels[..., 0]).convert("LA")
    grey.save(tmp_path / "la.png")
    np.testing.assert_array_equal(decode(tmp_path / "la.png", 1), levels[..., 0])
    opaque[0, 0, 3] = 254
    refused(save(tmp_path / "b.png", opaque), "parts of it are transparent; .*")
    Image.fromarray(levels).quantize(8).save(tmp_path / "c.png", transparency=0)
    refused(tmp_path / "c.png", "parts of it are transparent; .*")


def test_what_cannot_be_told_is_refused(tmp_path):
    picture = Image.fromarray(scene(0))
    picture.convert("CMYK").save(tmp_path / "cmyk.jpg")
    refused(tmp_path / "cmyk.jpg", "CMYK, whose colours depend on a printing profile; save it .*")
    frames = [Image.fromarray(scene(i)) for i in (1, 2)]
    picture.save(tmp_path / "moves.png", save_all=True, append_images=frames)
    refused(tmp_path / "moves.png", "animated; a single picture is accepted")
    picture.save(tmp_path / "gif.png", "gif")
    refused(tmp_path / "gif.png", "not a PNG or JPEG file, or its header is damaged")
    (tmp_path / "none.png").write_bytes(b"")
    refused(tmp_path / "none.png", "the file is empty; get or save it again")
    refused(tmp_path / "gone.png", re.escape("cannot be read (No such file or directory)"))


def test_the_first_picture_of_a_camera_with_two_is_taken(tmp_path):
    one, two = Image.fromarray(scene(0)), Image.fromarray(scene(1)[::-1])
    one.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[two], quality=100)
    assert np.abs(decode(tmp_path / "a.jpg", 3).astype(int) - scene(0)).mean() < 12


@pytest.mark.parametrize("ending", ["png", "jpg"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.97])
def test_a_cut_file_is_refused(tmp_path, ending, share):
    path = save(tmp_path / f"a.{ending}", scene(0, 100, 100))
    raw = path.read_bytes()
    path.write_bytes(raw[: int(share * len(raw))])
    refused(path, "(truncated or damaged .*|not a PNG or JPEG file, or its header is damaged)")


def harmed(path: Path, raw: bytes) -> Iterator[Path]:
    """The file with one bit changed, at 150 places in turn."""
    rng = np.random.default_rng(0)
    for place in rng.choice(len(raw), 150, replace=False):
        changed = bytearray(raw)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        yield path


def test_any_changed_byte_of_a_png_is_seen(tmp_path):
    levels = scene(0, 30, 30)
    raw = save(tmp_path / "a.png", levels).read_bytes()
    for path in harmed(tmp_path / "b.png", raw):
        try:
            found = decode(path, 3)
        except DataError:
            continue
        np.testing.assert_array_equal(found, levels)


def test_any_changed_byte_of_a_jpeg_ends_in_levels_or_a_sentence(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = save(tmp_path / "a.jpg", scene(0, 30, 30), exif=exif).read_bytes()
    for path in harmed(tmp_path / "b.jpg", raw):
        with suppress(DataError):
            assert decode(path, 3).dtype == np.uint8


def test_a_picture_too_large_to_hold_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for side in (11, 40):  # a warning and an error of the library
        path = save(tmp_path / f"{side}.png", np.zeros((side, side), np.uint8))
        refused(path, "more than 100 pixels; make it smaller")


def test_text_in_a_png_is_passed_over(tmp_path):
    about = PngImagePlugin.PngInfo()
    about.add_text("Patient", "Nobody")
    path = save(tmp_path / "a.png", scene(0), pnginfo=about)
    np.testing.assert_array_equal(decode(path, 3), scene(0))


def test_shrinking_averages_over_areas():
    levels = scene(0, 40, 60)
    cut = levels[:, 10:50].astype(float)
    whole = cut.reshape(10, 4, 10, 4, 3).mean((1, 3))
    np.testing.assert_array_equal(square(levels, 10), np.rint(whole))
    # 40 to 16 pixels: each is 2.5 wide; on a grid twice as fine they are 5
    fine = cut.repeat(2, 0).repeat(2, 1).reshape(16, 5, 16, 5, 3).mean((1, 3))
    assert np.abs(square(levels, 16) - fine).max() <= 0.501
    np.testing.assert_array_equal(square(levels[..., 0], 16), square(levels, 16)[..., 0])


def test_the_square_is_central_and_a_small_one_grows():
    levels = np.zeros((20, 30), np.uint8)
    levels[8:12, 13:17] = 200
    assert square(levels, 4, crop=4).tolist() == [[200] * 4] * 4
    assert square(levels, 20)[:, [7, 8, 11, 12]].max(0).tolist() == [0, 200, 200, 0]
    np.testing.assert_array_equal(square(levels, 20, crop=25), square(levels, 20))
    ramp = np.broadcast_to(np.arange(0, 80, 10, dtype=np.uint8), (8, 8))
    grown = square(ramp, 16)[0, 1:-1]
    assert np.abs(grown - np.interp(np.arange(1, 15) / 2 - 0.25, range(8), ramp[0])).max() <= 0.5


def test_colours_are_resized_one_by_one():
    pictures = np.stack([scene(0, 32, 32), scene(1, 32, 32)])
    resized = resize_pictures(pictures, 20)
    for channel in range(3):
        alone = resize_pictures(pictures[..., channel], 20)
        np.testing.assert_array_equal(resized[..., channel], alone)
