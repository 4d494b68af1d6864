"""Pancreas-CT in every layout people have opens to the same slices; docs/data.md lists these."""

import re
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from medaug.core.errors import DataError
from medaug.data import open_source
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
from medaug.data.sources.pancreas import PancreasCT
from tests.conftest import SHAPE, miniature, write_label, write_series
from tests.support.pancreas_layouts import (
    ID,
    LAYOUTS,
    SETTINGS,
    archives_in_an_archive,
    label,
    metadata,
    mirror,
    one_archive,
    retriever,
    scan,
    volume,
    volumes,
    zipped,
    zipped_labels,
)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray]:
    """The slices of patient 7 as a plain folder gives them."""
    root = tmp_path_factory.mktemp("plain")
    scan(root / ID)
    label(root / "label0007.nii.gz")
    return sliced(root)


def sliced(root: Path, workers: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Image and label of patient 7 in the cache made of ``root``."""
    source = open_source(str(root))
    assert isinstance(source, PancreasCT)
    cache = root.with_name(f"{root.name}-cache")
    report = prepare(source, cache, SETTINGS, workers)
    assert report.failed == []
    assert report.done == [ID]
    case = SliceCache.open(cache).cases[ID]
    assert case.label is not None
    return np.array(case.image), np.array(case.label)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda make: make.__name__)
def test_layout(tmp_path, layout, expected):
    root = tmp_path / "data"
    layout(root)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    image, marks = sliced(root)
    np.testing.assert_array_equal(image, expected[0])
    np.testing.assert_array_equal(marks, expected[1])
    assert marks.any()
    cache = tmp_path / "data-cache"
    after = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if cache not in (p, *p.parents)}
    assert after == before, "something was written beside the user's files"


def test_one_archive_opens_by_its_own_path(tmp_path, medaug):
    one_archive(tmp_path / "data")
    (tmp_path / "data" / "everything.zip").rename(tmp_path / "scans.zip")
    archive = tmp_path / "scans.zip"
    for named in ((archive,), ("pancreas", "--root", archive)):
        assert medaug("prepare", *named, "--dry-run", "--json").json["cases"] == [ID]
    assert medaug("prepare", archive, "--size", 32, "--json").json["done"] == [ID]
    told = medaug("inspect", archive, "--json").json
    assert (told["name"], told["cases"]) == ("pancreas", [ID])


def test_zipped_labels_may_lie_beside_the_scans(tmp_path):
    zipped_labels(tmp_path / "data")
    cases, found = PancreasCT(tmp_path / "data" / "Pancreas-CT").cases()
    assert [c.id for c in cases] == [ID]
    assert found == []


def test_archives_are_read_by_workers(tmp_path, expected):
    """Processes forked off after the archive was opened do not share its place in the file."""
    root = tmp_path / "data"
    archives_in_an_archive(root)
    image, marks = sliced(root, workers=1)
    np.testing.assert_array_equal(image, expected[0])
    np.testing.assert_array_equal(marks, expected[1])


def test_eighty_scans_beside_eighty_two_labels(tmp_path):
    """Numbers pair them; the two labels of withdrawn scans are no matter."""
    for number in set(range(1, 83)) - {25, 70}:
        hu, _ = miniature(number, (8, 8, 3))
        write_series(
            tmp_path / "Pancreas-CT" / f"PANCREAS_{number:04d}", f"PANCREAS_{number:04d}", hu
        )
    for number in range(1, 83):
        write_label(
            tmp_path / "labels" / f"label{number:04d}.nii.gz", miniature(number, (8, 8, 3))[1]
        )
    source = PancreasCT(tmp_path)
    cases, found = source.cases()
    assert len(cases) == 80
    assert found == []
    assert source.excluded == {}
    assert all(c.label and c.label.files[0].name == f"label{c.id[-4:]}.nii.gz" for c in cases)


@pytest.mark.parametrize("pitch", [0.5, 0.7, 1.00000012])
def test_the_odd_spacings(tmp_path, pitch):
    """One scan has slices every 0.5 mm, one every 0.7 mm, others float noise."""
    hu, mask = miniature(7)
    write_series(tmp_path / "data" / ID, ID, hu, (6.0, 6.0, pitch))
    write_label(tmp_path / "data" / "label0007.nii.gz", mask, (6.0, 6.0, round(pitch, 3)))
    sliced(tmp_path / "data")
    case = SliceCache.open(tmp_path / "data-cache").cases[ID]
    assert case.affine[2, 2] == pytest.approx(pitch, abs=1e-6)
    assert len(case.image) == SHAPE[2]


def test_padding_becomes_air(tmp_path):
    """Nine of the scans carry -2048 outside the scanner's circle."""
    hu, mask = miniature(7)
    x, y = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE[:2]), indexing="ij")
    outside = x**2 + y**2 > 1
    for name, value in (("padded", -2048), ("air", -1024)):
        filled = np.where(outside[:, :, None], value, hu).astype(np.int16)
        write_series(tmp_path / name / ID, ID, filled)
        write_label(tmp_path / name / "label0007.nii.gz", mask)
    padded, air = (sliced(tmp_path / name)[0] for name in ("padded", "air"))
    assert padded.min() == -1024
    np.testing.assert_array_equal(padded, air)


def problems(root: Path) -> list[str]:
    return [str(problem) for problem in PancreasCT(root).cases()[1]]


def test_metadata_tells_that_the_end_is_missing(tmp_path):
    """Neither end of a series can be missed by its numbers where the label is as short."""
    hu, mask = miniature(7)
    write_series(tmp_path / ID, ID, hu[:, :, :-2])
    write_label(tmp_path / "label0007.nii.gz", mask[:, :, :-2])
    assert problems(tmp_path) == []
    metadata(tmp_path, SHAPE[2])
    assert problems(tmp_path) == [
        "PANCREAS_0007: metadata.csv lists 16 images for the series, 14 are there; "
        "download the series again"
    ]
    metadata(tmp_path, SHAPE[2], "1.2.3")
    assert problems(tmp_path) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\0",
        b"Series UID,Number of Images\n1.2.826.0.1.7.0.1,many\n",
        b"Series UID,Number of Images\n1.2.826.0.1.7.0.1\n",
        b'"' * 200_000,
    ],
)
def test_metadata_that_says_nothing_is_passed_over(tmp_path, content):
    retriever(tmp_path)
    next(tmp_path.rglob("metadata.csv")).write_bytes(content)
    assert problems(tmp_path) == []


def test_a_truncated_last_scan_is_named(tmp_path):
    """One mirror ends in the middle of a scan."""
    mirror(tmp_path)
    files = write_series(tmp_path / "images" / "PANCREAS_0063", "PANCREAS_0063", miniature(63)[0])
    for file in files[9:]:
        file.unlink()
    files[8].write_bytes(files[8].read_bytes()[:2000])
    assert problems(tmp_path) == [
        "PANCREAS_0063: 1-009.dcm is truncated: 1302 bytes left for 3840 bytes of pixels; "
        "download the series again"
    ]


@pytest.mark.parametrize("packed", [False, True])
def test_a_mirrored_label_is_caught_packed_or_not(tmp_path, packed):
    root = tmp_path / "data"
    scan(root / ID)
    write_label(root / "l" / "label0007.nii.gz", miniature(7)[1][::-1])
    if packed:
        zipped(root / "l", root / "labels.zip")
    with pytest.raises(DataError, match=r"label lies better on the image mirrored left to right"):
        prepare(open_source(str(root)), tmp_path / "cache", SETTINGS, 0)


@pytest.mark.parametrize("packed", [False, True])
def test_a_mirrored_scan_is_caught_packed_or_not(tmp_path, packed):
    root = tmp_path / "data"
    write_series(root / "s" / ID, ID, np.ascontiguousarray(miniature(7)[0][:, ::-1]))
    label(root / "label0007.nii.gz")
    if packed:
        zipped(root / "s", root / "scans.zip")
    with pytest.raises(DataError, match=r"label lies better on the image mirrored front to back"):
        prepare(open_source(str(root)), tmp_path / "cache", SETTINGS, 0)


def test_another_series_of_a_patient_is_named_though_packed(tmp_path):
    scan(tmp_path / ID)
    label(tmp_path / "label0007.nii.gz")
    for file in scan(tmp_path / "other"):
        data = pydicom.dcmread(file)
        data.SeriesInstanceUID = "1.2.826.0.1.7.0.9"
        data.save_as(file)
    zipped(tmp_path / "other", tmp_path / "other.zip")
    root = tmp_path.name
    assert problems(tmp_path) == [
        f"PANCREAS_0007: 2 series in {root}/PANCREAS_0007, {root}/other.zip; keep one"
    ]


def test_a_packed_label_that_differs_is_named(tmp_path):
    scan(tmp_path / ID)
    label(tmp_path / "labels" / "label0007.nii.gz")
    write_label(tmp_path / "l" / "label0007.nii.gz", miniature(8)[1])
    zipped(tmp_path / "l", tmp_path / "old.zip")
    assert problems(tmp_path) == [
        "PANCREAS_0007: 2 labels that differ, labels/label0007.nii.gz, old.zip/label0007.nii.gz; "
        "keep one"
    ]


def test_a_volume_beside_its_series_is_passed_over(tmp_path, expected):
    root = tmp_path / "data"
    scan(root / ID)
    volumes(root)
    np.testing.assert_array_equal(sliced(root)[0], expected[0])
    named = tmp_path / "named"
    scan(named / ID)
    label(named / f"{ID}.nii.gz")
    np.testing.assert_array_equal(sliced(named)[1], expected[1])


@pytest.mark.parametrize("order", ["LAI", "RAS"])
def test_a_flipped_label_of_a_volume_is_caught(tmp_path, order):
    root = tmp_path / "data"
    volume(root / f"{ID}.nii.gz", order)
    write_label(root / "label0007.nii.gz", np.ascontiguousarray(miniature(7)[1][::-1]))
    with pytest.raises(DataError, match="label lies better on the image mirrored left to right"):
        prepare(open_source(str(root)), tmp_path / "cache", SETTINGS, 0)
    made = nibabel.load(root / "label0007.nii.gz")
    nibabel.save(
        nibabel.Nifti1Image(np.asarray(made.dataobj), made.affine * [-1, 1, 1, 1]),
        root / "label0007.nii.gz",
    )
    assert "label has another affine than the image" in problems(root)[0]


def test_a_volume_without_its_label_is_named(tmp_path):
    volumes(tmp_path / "data")
    volume(tmp_path / "data" / "PANCREAS_0008.nii.gz")
    volume(tmp_path / "data" / "PANCREAS_0025.nii.gz")
    source = PancreasCT(tmp_path / "data")
    assert [str(p) for p in source.cases()[1]] == [
        "PANCREAS_0008: no label0008.nii.gz was found for it"
    ]
    assert list(source.excluded) == ["PANCREAS_0025"]


ROWS = (
    "test_layout[retriever]",
    "test_layout[older_names]",
    "test_layout[older_downloader]",
    "test_layout[quoted]",
    "test_layout[no_patient_folder]",
    "test_layout[mirror]",
    "test_layout[one_folder]",
    "test_layout[nested_labels]",
    "test_layout[label_folders]",
    "test_layout[both_forms]",
    "test_layout[zipped_labels]",
    "test_layout[zipped_series]",
    "test_layout[zipped_patient]",
    "test_layout[kept_archives]",
    "test_layout[one_archive]",
    "test_layout[archives_in_an_archive]",
    "test_one_archive_opens_by_its_own_path",
    "test_layout[volumes]",
    "test_layout[volumes_turned]",
    "test_layout[volumes_zipped]",
    "test_eighty_scans_beside_eighty_two_labels",
    "test_the_odd_spacings",
    "test_padding_becomes_air",
    "test_the_cache_equals_that_of_the_nifti_label",
    "test_a_seg_beside_the_slices_in_one_folder_is_found",
)
"""What tests each layout of docs/data.md, in the order of the page."""


def test_every_layout_of_the_page_has_a_test_and_every_layout_is_on_it():
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    section = page.split("## Pancreas-CT\n")[1].split("\n## ")[0]
    assert len(re.findall(r"^- ", section, re.M)) == len(ROWS)
    layouts = [f"test_layout[{make.__name__}]" for make in LAYOUTS]
    assert [name for name in ROWS if name.startswith("test_layout[")] == layouts
    here = Path(__file__)
    text = here.read_text() + here.with_name("test_segmentation.py").read_text()
    for name in set(ROWS) - set(layouts):
        assert f"def {name}(" in text, name
    assert not re.search(r"tests/|`test_(?!batch)", page)


@pytest.mark.long
@pytest.mark.real
def test_real_scans_packed_and_unpacked_give_the_same_slices(real_pancreas, tmp_path):
    """The label archive as TCIA ships it, and each series as the REST interface packs it."""
    packed = tmp_path / "packed"
    packed.mkdir()
    for folder in sorted(real_pancreas.glob("Pancreas-CT/*")):
        with zipfile.ZipFile(
            packed / f"{folder.name}.zip", "w", zipfile.ZIP_DEFLATED, True, 1
        ) as z:
            for file in sorted(folder.rglob("*.dcm")):
                z.write(file, file.name)
    with zipfile.ZipFile(packed / "TCIA_pancreas_labels-02-05-2017.zip", "w") as z:
        for file in sorted(real_pancreas.rglob("label*.nii.gz")):
            z.write(file, f"TCIA_pancreas_labels-02-05-2017/{file.name}")
    digests = []
    for name, root in (("plain", real_pancreas), ("packed", packed)):
        report = prepare(
            open_source(str(root)), tmp_path / name / "cache", CacheSettings(size=64), 0
        )
        assert report.done == ["PANCREAS_0001", "PANCREAS_0002"]
        cache = SliceCache.open(tmp_path / name / "cache")
        digests.append({id: case.digest for id, case in cache.cases.items()})
    assert digests[0] == digests[1]
