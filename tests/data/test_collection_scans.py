"""Scans of a collection: which are taken, alone, in series, of a test set, broken."""

import re

import pytest

from medaug.core.errors import DataError
from medaug.data import open_source
from medaug.data.cache.prepare import CacheSettings, prepare
from tests.conftest import write_series
from tests.support.collection_layouts import LAYOUTS, Layout, cached, label_map, opened, scan, write


def test_amos_gives_ct_by_its_numbers_and_the_others_as_mr(tmp_path):
    layout = Layout(**{**vars(LAYOUTS["amos"]), "numbers": (410, 507)})
    root = layout.make(tmp_path)
    hu, organs = scan(3)
    for folder, values in (("imagesVa", hu), ("labelsVa", label_map(organs, layout.ids))):
        for number in (409, 410 + 100):
            write(root / folder / f"amos_{number:04d}.nii.gz", values)
    source = opened(root)
    assert [case.id for case in source.cases()[0]] == ["amos_0409", "amos_0410"]
    reason = "a scan of MR by its number; take it with --modality MR"
    assert source.excluded == {"amos_0507": reason, "amos_0510": reason}
    other = open_source(str(root), modality="MR")
    assert [case.id for case in other.cases()[0]] == ["amos_0507", "amos_0510"]
    assert other.modality == "MR"


def test_images_of_a_test_set_are_not_taken(tmp_path):
    root = LAYOUTS["nnunet .nii.gz"].make(tmp_path)
    for kind, name in (("images", "case_0009_0000"), ("labels", "case_0009")):
        write(root / f"{kind}Ts" / f"{name}.nii.gz", scan(9)[0])
    assert [case.id for case in opened(root).cases()[0]] == ["case_0001", "case_0002"]


def test_a_label_without_an_image_is_told(tmp_path):
    root = LAYOUTS["btcv"].make(tmp_path)
    (root / "RawData" / "Training" / "img" / "img0001.nii.gz").unlink()
    source = opened(root)
    assert [case.id for case in source.cases()[0]] == ["img0002"]
    assert source.excluded == {"img0001": "no image was found for label0001.nii.gz"}


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_one_file_is_one_scan(ending, tmp_path):
    hu, _ = scan(1)
    write(tmp_path / f"mine{ending}", hu)
    source = open_source(str(tmp_path / f"mine{ending}"))
    assert dict(source.labels) == {}
    cache = cached(source, tmp_path / "cache")
    assert list(cache.cases) == ["mine"]
    assert cache.cases["mine"].label is None


def test_a_series_without_a_label_is_one_scan_and_its_files_need_no_suffix(tmp_path):
    hu, _ = scan(1)
    folder = tmp_path / "series"
    for file in write_series(folder, "Smith^0001", hu):
        file.rename(file.with_name(f"IM{file.stem.replace('-', '')}"))
    (folder / "LICENSE").write_text("text")
    source = opened(folder)
    cases, problems = source.cases()
    assert (problems, [source.places[case.id] for case in cases]) == ([], ["series"])
    case = cached(source, tmp_path / "cache").cases[cases[0].id]
    assert re.fullmatch("scan-[0-9a-f]{12}", case.id)
    assert len(case.image) == hu.shape[2]
    assert not any(
        b"Smith" in p.read_bytes() for p in (tmp_path / "cache").rglob("*") if p.is_file()
    )


def test_two_series_in_one_folder_are_two_scans(tmp_path):
    for seed in (1, 2):
        name = f"s{seed}-{{:03d}}.dcm"
        write_series(tmp_path / f"s{seed}", f"X{seed:04d}", scan(seed)[0], name=name)
    for file in (tmp_path / "s2").iterdir():
        file.rename(tmp_path / "s1" / file.name)
    (tmp_path / "s2").rmdir()
    source = opened(tmp_path)
    cases, problems = source.cases()
    assert problems == []
    assert {source.places[case.id] for case in cases} == {"s1-1", "s1-2"}
    assert [len(case.image) for case in cases] == [16, 16]


def test_a_broken_series_is_named_and_not_taken(tmp_path):
    for seed in (1, 2):
        write_series(tmp_path / f"s{seed}", f"X{seed:04d}", scan(seed)[0])
    broken = tmp_path / "s1" / "1-004.dcm"
    broken.write_bytes(broken.read_bytes()[:900])
    (tmp_path / "s2" / "1-005.dcm").unlink()
    source = opened(tmp_path)
    cases, problems = source.cases()
    assert cases == []
    assert [p.case for p in problems] == ["s1", "s2"]
    assert "1-004.dcm is truncated" in problems[0].reason
    assert "slice 5 of 16 is missing" in problems[1].reason


def test_a_raw_file_that_is_gone_is_told(tmp_path):
    root = LAYOUTS["nnunet .mhd"].make(tmp_path / "made")
    for raw in (root / "imagesTr").glob("*raw"):
        raw.unlink()
    with pytest.raises(DataError, match=r"case_0001_0000\.mhd is truncated or damaged"):
        prepare(opened(root), tmp_path / "cache", CacheSettings(32), 0)
