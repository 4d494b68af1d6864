"""Every layout of docs/data.md is opened, sliced with its geometry, and not believed when wrong.

Each layout is fabricated on disk from the same miniature scans.  What comes back is compared with
what nibabel alone makes of the arrays; files of other formats are written by SimpleITK.
"""

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medaug.core.errors import DataError
from medaug.data.cache.prepare import CacheSettings, prepare
from medaug.data.formats.readers import read_labels, read_series, read_volume
from medaug.data.sources.collections.names import KNOWN
from medaug.transforms.sources import open_donors
from tests.support.collection_layouts import (
    AFFINE,
    LAYOUTS,
    TWO,
    cached,
    change,
    label_map,
    opened,
    scan,
    upright,
)

EACH = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


@EACH
def test_it_is_known_by_sight_and_comes_with_its_names(layout, tmp_path):
    source = opened(layout.make(tmp_path))
    cases, problems = source.cases()
    assert problems == []
    assert source.excluded == {}
    assert source.name == layout.name
    assert [case.id for case in cases] == list(layout.cases)
    assert dict(source.labels) == (layout.labels or TWO)
    assert source.modality == "CT"


@EACH
def test_voxels_and_affine_are_those_that_nibabel_has(layout, tmp_path):
    source = opened(layout.make(tmp_path))
    for seed, case in zip(layout.numbers, source.cases()[0], strict=True):
        hu, organs = scan(seed)
        read = read_series(case.image) if layout.series else read_volume(case.image[0])
        image, image_affine, *_ = read
        label, label_affine = read_labels(case.label, source.labels.values())
        assert (image.dtype, label.dtype) == (np.int16, np.uint8)
        for got, got_affine, want in (
            (image, image_affine, hu),
            (label, label_affine, label_map(organs, layout.ids)),
        ):
            values, affine = upright(got, got_affine)
            expected, expected_affine = upright(want, AFFINE)
            assert np.array_equal(values, expected)
            assert np.allclose(affine, expected_affine, atol=1e-4)


@EACH
def test_a_mirrored_reordered_or_turned_label_is_caught(layout, tmp_path):
    made = layout.make(tmp_path / "made")
    first = layout.cases[0]
    for name, how in (
        ("mirrored left to right", lambda v: v[::-1]),
        ("mirrored front to back", lambda v: v[:, ::-1]),
        ("with its slices reversed", lambda v: v[:, :, ::-1]),
    ):
        root = Path(shutil.copytree(made, tmp_path / name))
        for file in layout.label_files(root, 1):
            change(file, how)
        failed = prepare(opened(root), tmp_path / f"cache {name}", CacheSettings(32), 0).failed
        assert [p.case for p in failed] == [first]
        assert "label lies better on the image" in failed[0].reason
    root = Path(shutil.copytree(made, tmp_path / "header"))
    for file in layout.label_files(root, 1):
        change(file, lambda v: v, AFFINE @ np.diag([-1.0, 1, 1, 1]))
    cases, problems = opened(root).cases()
    assert [p.case for p in problems] == [first]
    assert "another affine than the image: entry [0, 0]" in problems[0].reason
    assert [case.id for case in cases] == [layout.cases[1]]


@EACH
def test_a_label_of_another_scan_is_caught(layout, tmp_path):
    root = layout.make(tmp_path)
    for file in layout.label_files(root, 2):
        change(file, lambda v: v[:, :, :-1])
    problems = opened(root).cases()[1]
    assert [p.case for p in problems] == [layout.cases[1]]
    assert "label has shape" in problems[0].reason


def test_all_layouts_give_the_same_slices(tmp_path):
    """The pancreas of the same scan, by any road."""
    seen = []
    for name, layout in LAYOUTS.items():
        source = opened(layout.make(tmp_path / name))
        wanted = {id: name for name, id in source.labels.items()}[layout.ids["pancreas"]]
        cache = cached(source.selecting([wanted]), tmp_path / f"cache {name}")
        assert cache.labels == {wanted: layout.ids["pancreas"]}
        case = cache.cases[layout.cases[0]]
        seen.append((case.image.tobytes(), (case.label > 0).tobytes(), case.affine.tolist()))
    assert all(image == seen[0][0] for image, _, _ in seen)
    assert all(label == seen[0][1] for _, label, _ in seen)
    assert all(np.allclose(affine, seen[0][2], atol=1e-4) for _, _, affine in seen)
    assert any(seen[0][1])


@pytest.mark.parametrize("name", ["nnunet .nii.gz", "nnunet .nrrd", "totalsegmentator", "beside"])
def test_cases_that_are_mixed_in_come_from_any_layout(name, tmp_path):
    layout = LAYOUTS[name]
    donors = open_donors(str(layout.make(tmp_path)))
    assert list(donors.indices(0)) == [0, 1]
    donor = donors.donor(0, 0)
    hu, organs = scan(1)
    for got, want in ((donor.image[0], hu), (donor.label, label_map(organs, layout.ids))):
        values, affine = upright(got, donor.affine)
        expected, expected_affine = upright(want, AFFINE)
        assert np.array_equal(values, expected)
        assert np.allclose(affine, expected_affine, atol=1e-4)


@pytest.mark.real
def test_totalsegmentators_example_by_masks_and_by_label_map(real_data, tmp_path):
    """One patient: both forms give the same 40 organs, named alike."""
    example = real_data / "totalsegmentator-example"
    masks = opened(example)
    (tmp_path / "s0000").mkdir()
    shutil.copy(example / "s0000" / "ct.nii.gz", tmp_path / "s0000")
    shutil.copy(example / "multilabel.nii.gz", tmp_path / "s0000")
    whole = opened(tmp_path)
    assert dict(masks.labels) == dict(whole.labels) == KNOWN["totalsegmentator-v2"]
    caches = [cached(s, tmp_path / f"cache{i}", 128) for i, s in enumerate((masks, whole))]
    first, second = (cache.cases["s0000"] for cache in caches)
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.label, second.label)
    assert len(np.unique(first.label)) == 41  # background and 40 organs
    one = cached(masks.selecting(["pancreas"]), tmp_path / "one").cases["s0000"]
    assert one.label_pixels["pancreas"].sum() > 0
    assert set(np.unique(one.label)) == {0, 7}


@pytest.mark.real
def test_totalsegmentators_example_mirrored_is_caught(real_data, tmp_path):
    example = real_data / "totalsegmentator-example"
    (tmp_path / "s0000").mkdir()
    shutil.copy(example / "s0000" / "ct.nii.gz", tmp_path / "s0000")
    image = nibabel.load(example / "multilabel.nii.gz")
    for flip in (np.s_[::-1], np.s_[:, ::-1], np.s_[:, :, ::-1]):
        turned = nibabel.Nifti1Image(np.asarray(image.dataobj)[flip], image.affine, image.header)
        nibabel.save(turned, tmp_path / "s0000" / "multilabel.nii.gz")
        with pytest.raises(DataError, match="label lies better on the image"):
            prepare(opened(tmp_path), tmp_path / "cache", CacheSettings(32), 0)
