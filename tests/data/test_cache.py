"""A cache holds what its source says, and another than was asked for is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from medaug.core.errors import CacheError, ConfigError
from medaug.data import open_source
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
from medaug.data.cache.store import split_patients
from medaug.data.sources.pancreas import PancreasCT
from medaug.data.sources.pictures.scaling import resize_pictures
from tests.conftest import SHAPE, SPACING, miniature
from tests.support.refusals import refused
from tests.support.trees import tree

SETTINGS = CacheSettings(size=32, fov_mm=300.0)


@pytest.fixture
def source(collection) -> PancreasCT:
    return PancreasCT(collection(*range(1, 6)))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_a_cache_holds_slices_with_their_geometry(source, cache):
    report = prepare(source, cache, SETTINGS, workers=0)
    ids = [f"PANCREAS_{n:04d}" for n in range(1, 6)]
    assert (report.done, report.skipped, report.failed, report.excluded) == (ids, [], [], {})
    opened = SliceCache.open(cache)
    assert (opened.source, opened.kind, opened.labels) == ("pancreas", "ct", {"pancreas": 1})
    assert opened.settings == SETTINGS
    assert sorted(opened.cases) == ids
    assert sorted(opened.split["train"] + opened.split["heldout"]) == ids
    assert len(opened.split["heldout"]) == 1
    case = opened.cases["PANCREAS_0002"]
    assert not case.image.flags.writeable
    assert (case.image.shape, case.image.dtype) == ((SHAPE[2], 32, 32), np.int16)
    assert case.label is not None
    assert (case.label.shape, case.label.dtype) == ((SHAPE[2], 32, 32), np.uint8)
    assert case.classes is None
    assert case.spacing_mm == pytest.approx((300 / 32, 300 / 32, SPACING[2]))
    assert np.linalg.det(case.affine) > 0
    np.testing.assert_array_equal(case.label_pixels["pancreas"], case.label.sum(axis=(1, 2)))


def test_what_was_marked_is_where_it_was(source, cache):
    """Centre of gravity in mm, in the file and in the cache."""
    prepare(source, cache, SETTINGS, workers=0)
    for number, case in enumerate(SliceCache.open(cache).cases.values(), 1):
        _, mask = miniature(number)
        affine = np.diag([-SPACING[0], SPACING[1], -SPACING[2], 1.0])
        expected = affine @ [*np.argwhere(mask).mean(axis=0), 1]
        z, y, x = np.argwhere(case.label).mean(axis=0)
        np.testing.assert_allclose(case.affine @ [x, y, z, 1], expected, atol=2.0)
        inside = case.image[np.asarray(case.label) > 0]
        assert abs(np.median(inside) - 105) < 25


@pytest.mark.parametrize("center", ["body", "image", "label"])
def test_the_centre_is_what_it_says(source, cache, center):
    prepare(source, cache, replace(SETTINGS, center=center), workers=0)
    case = SliceCache.open(cache).cases["PANCREAS_0001"]
    assert case.label is not None
    middle = case.affine @ [15.5, 15.5, 0, 1]
    if center == "label":
        y, x = (
            np.flatnonzero(case.label.any(axis=axes))[[0, -1]].mean() for axes in ((0, 2), (0, 1))
        )
        assert abs(x - 15.5) <= 1
        assert abs(y - 15.5) <= 1
    else:
        whole = [-SPACING[0] * (SHAPE[0] - 1) / 2, SPACING[1] * (SHAPE[1] - 1) / 2]
        np.testing.assert_allclose(middle[:2], whole, atol=7 if center == "body" else 1e-6)


def test_nothing_of_a_patient_is_kept_but_the_id(source, cache, tmp_path):
    prepare(source, cache, SETTINGS, workers=0)
    for path in cache.rglob("*.json"):
        text = path.read_text()
        assert str(tmp_path) not in text
        assert "20151124" not in text
        assert "1.2.826" not in text
        assert ".dcm" not in text


def change_index(cache: Path, **values) -> None:
    index = json.loads((cache / "cache.json").read_text())
    (cache / "cache.json").write_text(json.dumps(index | values))


def test_a_cache_of_another_version_is_refused(source, cache):
    prepare(source, cache, SETTINGS, workers=0)
    change_index(cache, version=99)
    message = (
        f"{cache}: the cache has version 99, this medaug reads 1; delete it and prepare it again"
    )
    with refused(message, CacheError):
        SliceCache.open(cache)
    with refused(message, CacheError):
        prepare(source, cache, SETTINGS, workers=0)


def test_what_is_no_cache_is_refused(source, cache, tmp_path):
    with refused(f"{cache}: no such folder; make one with medaug prepare", CacheError):
        SliceCache.open(cache)
    cache.mkdir()
    (cache / "notes.txt").write_text("")
    with refused(f"{cache}: not a slice cache; make one with medaug prepare", CacheError):
        SliceCache.open(cache)
    with refused(f"{cache}: holds files but no slice cache; choose an empty folder", CacheError):
        prepare(source, cache, SETTINGS)
    with refused(f"{cache / 'notes.txt'}: a file, not a folder", CacheError):
        prepare(source, cache / "notes.txt", SETTINGS)


@pytest.mark.parametrize("content", ["{", "[]", '{"version": 1}', ""])
def test_a_damaged_index_is_refused(cache, content):
    cache.mkdir()
    (cache / "cache.json").write_text(content)
    with refused(
        f"{cache}: cache.json is damaged; delete the cache and prepare it again", CacheError
    ):
        SliceCache.open(cache)


def test_a_truncated_array_is_refused(source, cache):
    prepare(source, cache, SETTINGS, workers=0)
    file = cache / "cases" / "PANCREAS_0003" / "image.npy"
    whole = file.stat().st_size
    file.write_bytes(file.read_bytes()[:1000])
    with refused(
        f"{file}: holds 1000 bytes, should hold {whole}; delete {file.parent} and run the same "
        "prepare command again",
        CacheError,
    ):
        SliceCache.open(cache)


OTHER = {
    "size": (64, "32, asked for 64"),
    "fov_mm": (200.0, "300.0, asked for 200.0"),
    "center": ("label", "body, asked for label"),
    "holdout": (0.5, "0.2, asked for 0.5"),
    "seed": (7, "0, asked for 7"),
}


@pytest.mark.parametrize("name", OTHER)
def test_other_settings_are_refused(source, cache, name):
    prepare(source, cache, SETTINGS, workers=0)
    value, told = OTHER[name]
    before = tree(cache, ".lock")
    with refused(
        f"{cache}: the cache was made with {name} {told}; give the same, or another cache folder",
        CacheError,
    ):
        prepare(source, cache, replace(SETTINGS, **{name: value}), workers=0)
    assert tree(cache, ".lock") == before


def test_another_source_is_refused(source, cache):
    prepare(source, cache, SETTINGS, workers=0)
    source.name = "phantom"
    with refused(
        f"{cache}: the cache was made with source pancreas, asked for phantom; "
        "give the same, or another cache folder",
        CacheError,
    ):
        prepare(source, cache, SETTINGS, workers=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 0}, "size: 0 pixels, accepted are 8 to 1024"),
        ({"size": None}, "size: CT slices need a number of pixels, such as 128"),
        ({"fov_mm": -1.0}, "fov_mm: -1 mm, accepted are 10 to 1000"),
        ({"fov_mm": float("nan")}, "fov_mm: nan mm, accepted are 10 to 1000"),
        ({"center": "liver"}, "center: 'liver', accepted are body, image, label"),
        ({"holdout": 1.0}, "holdout: 1, accepted are 0 to below 1"),
    ],
)
def test_settings_out_of_range_are_refused(source, cache, change, message):
    with refused(message, ConfigError):
        prepare(source, cache, replace(SETTINGS, **change))
    assert not cache.exists()


def test_negative_workers_are_refused(source, cache):
    with refused("workers: -1, accepted are 0 and more", ConfigError):
        prepare(source, cache, SETTINGS, workers=-1)


def test_nothing_usable_is_an_error(collection, cache):
    source = PancreasCT(collection(1))
    next(source.root.glob("**/1-003.dcm")).unlink()
    with refused(
        "pancreas: none of its 1 scans can be used; the first: "
        "PANCREAS_0001: slice 3 of 16 is missing; download the series again"
    ):
        prepare(source, cache, SETTINGS)


def test_a_patient_stays_on_its_side_when_others_join():
    ids = [f"P{i:02d}" for i in range(30)]
    first = split_patients(ids[:10], 0.2, 0)
    second = split_patients(ids, 0.2, 0, first)
    assert len(first["heldout"]) == 2
    assert len(second["heldout"]) == 6
    assert set(first["heldout"]) <= set(second["heldout"])
    assert set(first["train"]) <= set(second["train"])
    assert split_patients(ids[::-1], 0.2, 0) == split_patients(ids, 0.2, 0)


def test_the_split_is_by_name(source, cache, tmp_path):
    prepare(source, cache, replace(SETTINGS, holdout=0.4), workers=0)
    held = SliceCache.open(cache).split["heldout"]
    assert len(held) == 2
    prepare(source, tmp_path / "other", replace(SETTINGS, holdout=0.4, seed=3), workers=0)
    assert SliceCache.open(tmp_path / "other").split["heldout"] != held


@pytest.mark.real
def test_pictures(real_data, cache, tmp_path):
    source = open_source("mnist", real_data / "mnist")
    report = prepare(source, cache, CacheSettings(size=None))
    assert sorted(report.done) == ["test", "train"]
    opened = SliceCache.open(cache)
    assert (opened.kind, opened.labels, opened.classes[:2]) == ("image", {}, ("0", "1"))
    assert opened.split == {"train": ["train"], "heldout": ["test"]}
    images, classes = source.parts()["test"]
    case = opened.cases["test"]
    np.testing.assert_array_equal(case.image, images)
    np.testing.assert_array_equal(case.classes, classes)
    assert case.label is None
    # the settings that pictures do not use may differ
    assert prepare(source, cache, CacheSettings(size=None, fov_mm=200.0)).done == []
    with refused(
        f"{cache}: the cache was made with size None, asked for 32; "
        "give the same, or another cache folder",
        CacheError,
    ):
        prepare(source, cache, CacheSettings(size=32))


def test_pictures_of_another_size_keep_their_field_of_view():
    x = np.linspace(0, 255, 28)
    ramp = np.broadcast_to(x, (2, 28, 28)).astype(np.uint8)
    resized = resize_pictures(ramp, 56)
    assert resized.shape == (2, 56, 56)
    assert (
        np.abs(resized[0, 0, 2:-2] - np.interp(np.arange(2, 54) / 2 - 0.25, range(28), x)).max() < 2
    )
    assert (resize_pictures(np.full((1, 28, 28), 200, np.uint8), 40) == 200).all()


@pytest.fixture(scope="module")
def real_cache(real_pancreas, tmp_path_factory) -> SliceCache:
    folder = tmp_path_factory.mktemp("cache") / "pancreas"
    report = prepare(open_source(str(real_pancreas)), folder, CacheSettings())
    assert report.failed == []
    return SliceCache.open(folder)


@pytest.mark.long
@pytest.mark.real
@pytest.mark.parametrize("number", [0, 1])
def test_real_cache_agrees_with_simpleitk(real_pancreas, real_cache, number):
    """Read back, image and mask lie where another library puts them."""
    source = open_source(str(real_pancreas))
    assert isinstance(source, PancreasCT)
    case = source.cases()[0][number]
    cached = real_cache.cases[case.id]
    assert cached.label is not None
    image = sitk.ReadImage([str(f) for f in case.image])
    label = sitk.ReadImage(str(case.label.files[0]), sitk.sitkUInt8)
    label.CopyInformation(image)

    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(label)
    z, y, x = np.argwhere(np.asarray(cached.label) > 0).mean(axis=0)
    ras = (cached.affine @ [x, y, z, 1])[:3]
    np.testing.assert_allclose(ras * [-1, -1, 1], shape.GetCentroid(1), atol=0.35)

    grid = sitk.Image([128, 128, cached.image.shape[0]], sitk.sitkInt16)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ cached.affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    grid.SetSpacing(spacing.tolist())
    grid.SetOrigin(lps[:3, 3].tolist())
    grid.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    smooth = sitk.DiscreteGaussian(sitk.Cast(image, sitk.sitkFloat32), [1.6, 1.6, 0.0])
    other = sitk.GetArrayFromImage(
        sitk.Resample(smooth, grid, sitk.Transform(), sitk.sitkLinear, -1024.0)
    )
    difference = np.abs(other - cached.image)
    assert np.median(difference) < 6
    assert difference.mean() < 20

    mask = sitk.GetArrayFromImage(
        sitk.Resample(label, grid, sitk.Transform(), sitk.sitkNearestNeighbor)
    )
    ours = np.asarray(cached.label) > 0
    dice = 2 * (ours & (mask > 0)).sum() / (ours.sum() + (mask > 0).sum())
    assert dice > 0.9
    original = sitk.GetArrayViewFromImage(image)[sitk.GetArrayViewFromImage(label) > 0]
    assert abs(np.median(original) - np.median(cached.image[ours])) < 5
    area = 3.125**2 * ours.sum()
    assert area == pytest.approx(shape.GetPhysicalSize(1), rel=0.05)
