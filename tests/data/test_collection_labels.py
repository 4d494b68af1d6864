"""Labels by name: chosen, merged, painted in order, taken from masks, and refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from medaug.core.errors import ConfigError, DataError
from medaug.data import open_source
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
from medaug.data.formats.readers import read_labels
from medaug.data.sources.collections.names import KNOWN
from tests.support.collection_layouts import (
    LAYOUTS,
    NNUNET,
    Layout,
    change,
    label_map,
    opened,
    scan,
    write,
)


def test_labels_are_chosen_and_merged_by_name(tmp_path):
    about = {"labels": {"0": "background", "1": "pancreas", "2": "cancer", "3": "liver"}}
    hu, organs = scan(1)
    write(tmp_path / "imagesTr" / "a.nii.gz", hu)
    marks = label_map(organs, {"pancreas": 1, "bone": 3})
    tumour = (organs["pancreas"] > 0) & (np.arange(marks.shape[0]) % 2 == 0)[:, None, None]
    marks[tumour] = 2
    write(tmp_path / "labelsTr" / "a.nii.gz", marks)
    (tmp_path / "dataset.json").write_text(json.dumps(about))

    def ids(*labels: str) -> tuple[dict[str, int], dict[int, int]]:
        source = open_source(str(tmp_path), labels=labels or None)
        case = source.cases()[0][0]
        values, _ = read_labels(case.label, source.labels.values())
        found, count = np.unique(values[values > 0], return_counts=True)
        return dict(source.labels), dict(zip(found.tolist(), count.tolist(), strict=True))

    names, whole = ids()
    assert names == {"pancreas": 1, "cancer": 2, "liver": 3}
    assert ids("pancreas") == ({"pancreas": 1}, {1: whole[1]})
    assert ids("liver", "cancer") == ({"cancer": 2, "liver": 3}, {2: whole[2], 3: whole[3]})
    assert ids("pancreas+cancer") == ({"pancreas": 1}, {1: whole[1] + whole[2]})
    with pytest.raises(
        ConfigError, match=r"^label 'pancras' is not there, did you mean 'pancreas'"
    ):
        open_source(str(tmp_path), labels=["pancras"])
    with pytest.raises(ConfigError, match=r"^label 'cancer' is asked for twice$"):
        open_source(str(tmp_path), labels=["pancreas+cancer", "cancer"])


def test_a_value_that_no_label_has_is_refused_even_where_labels_are_chosen(tmp_path):
    layout = LAYOUTS["decathlon"]
    root = layout.make(tmp_path / "made")
    change(layout.label_files(root, 1)[0], lambda v: np.where(v == 2, 9, v))
    source = open_source(str(root), labels=["pancreas"])
    failed = prepare(source, tmp_path / "cache", CacheSettings(32), 0).failed
    assert [str(p) for p in failed] == [
        "case_0001: case_0001.nii.gz holds the value 9, known labels are 0, 1, 2"
    ]


def test_regions_are_painted_in_nnunets_order_and_taken_whole(tmp_path):
    """KiTS: kidney holds masses, which hold tumours."""
    about = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2, "ignore": 4},
        "regions_class_order": [1, 3, 2],
        "file_ending": ".nii.gz",
    }
    hu, _ = scan(1)
    marks = np.zeros(hu.shape, np.uint8)
    marks[10:14, 10, 5], marks[14:17, 10, 5], marks[17:19, 10, 5], marks[20, 10, 5] = 1, 2, 3, 4
    write(tmp_path / "imagesTr" / "a_0000.nii.gz", hu)
    write(tmp_path / "labelsTr" / "a.nii.gz", marks)
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    for labels, names, counts in (
        (None, {"kidney": 1, "masses": 3, "tumor": 2, "ignore": 4}, [4, 3, 2, 1]),
        (["kidney"], {"kidney": 1}, [9]),
        (["masses"], {"masses": 3}, [0, 0, 5]),
        (["kidney", "tumor"], {"kidney": 1, "tumor": 2}, [6, 3]),
    ):
        source = open_source(str(tmp_path), labels=labels)
        assert dict(source.labels) == names
        case = source.cases()[0][0]
        values, _ = read_labels(case.label, source.labels.values())
        assert np.bincount(values.ravel())[1:].tolist() == counts


def test_overlapping_masks_go_to_the_higher_id(tmp_path):
    hu, organs = scan(1)
    write(tmp_path / "s1" / "ct.nii.gz", hu)
    for name in ("lesion", "organ", "vessel"):
        write(tmp_path / "s1" / "segmentations" / f"{name}.nii.gz", organs["pancreas"])
    change(tmp_path / "s1" / "segmentations" / "vessel.nii.gz", lambda v: v * (hu > 105))
    source = open_source(str(tmp_path))
    assert dict(source.labels) == {"lesion": 1, "organ": 2, "vessel": 3}
    case = source.cases()[0][0]
    values, _ = read_labels(case.label, source.labels.values())
    inside = organs["pancreas"] > 0
    assert np.array_equal(values, np.where(inside, np.where(hu > 105, 3, 2), 0))


def test_a_scan_without_one_of_the_masks_is_named(tmp_path):
    layout = LAYOUTS["totalsegmentator"]
    root = layout.make(tmp_path)
    (root / "s0002" / "segmentations" / "liver.nii.gz").unlink()
    cases, problems = opened(root).cases()
    assert [c.id for c in cases] == ["s0001"]
    assert [str(p) for p in problems] == [
        "s0002: no mask of liver, which other scans have; add it, or leave it out with --labels"
    ]
    assert len(open_source(str(root), labels=["pancreas"]).cases()[0]) == 2


def test_a_mask_that_is_a_label_map_is_refused(tmp_path):
    layout = LAYOUTS["totalsegmentator"]
    root = layout.make(tmp_path / "made")
    mask = root / "s0001" / "segmentations" / "pancreas.nii.gz"
    change(mask, lambda v: v + (np.arange(v.shape[0]) % 2).astype(np.uint8)[:, None, None] * v)
    failed = prepare(opened(root), tmp_path / "cache", CacheSettings(32), 0).failed
    assert [str(p) for p in failed] == [
        "s0001: pancreas.nii.gz is no binary mask: it holds values from 0 to 2"
    ]


def test_totalsegmentator_v1_is_told_from_v2_by_its_names(tmp_path):
    hu, organs = scan(1)
    write(tmp_path / "s1" / "ct.nii.gz", hu)
    for name in ("pancreas", "heart_myocardium"):
        write(tmp_path / "s1" / "segmentations" / f"{name}.nii.gz", organs["pancreas"])
    assert dict(open_source(str(tmp_path)).labels) == {"pancreas": 10, "heart_myocardium": 44}


def test_label_maps_without_names_are_named_when_asked(tmp_path):
    root = LAYOUTS["images and masks"].make(tmp_path / "made")
    source = open_source(str(root), names="word")
    assert dict(source.labels) == KNOWN["word"]
    own = tmp_path / "own.json"
    own.write_text(json.dumps({"labels": {"background": 0, "organ": 1, "bone": 2}}))
    assert dict(open_source(str(root), names=str(own)).labels) == {"organ": 1, "bone": 2}
    with pytest.raises(ConfigError, match=r"^label names 'wrod' are not known"):
        open_source(str(root), names="wrod")


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({**NNUNET, "file_ending": ".png"}, "file_ending is '.png', accepted are .nii.gz"),
        ({**NNUNET, "labels": {"a": 1, "b": 1}}, "the ids of labels are 1, 1; different whole"),
        ({**NNUNET, "labels": {"a": 300}}, "the ids of labels are 300; different whole"),
        ({**NNUNET, "labels": {"a": [1, 2]}}, "no labels as name: id"),
    ],
)
def test_a_strange_description_is_refused(about, message, tmp_path):
    layout = LAYOUTS["nnunet .nii.gz"]
    root = Layout(**{**vars(layout), "about": about}).make(tmp_path)
    with pytest.raises(DataError, match=message):
        open_source(str(root))


def test_the_command_takes_labels(medaug, tmp_path):
    root = LAYOUTS["totalsegmentator"].make(tmp_path / "made")
    done = medaug("prepare", root, "--size", 32, "--labels", "pancreas, vertebrae_L1", "--json")
    assert done.code == 0
    cache = SliceCache.open(Path(done.json["cache"]))
    assert re.fullmatch(r"organs-\w{8}-32px-400mm-pancreas-vertebrae_L1", cache.path.name)
    assert cache.labels == {"pancreas": 7, "vertebrae_L1": 31}
    wrong = medaug("prepare", root, "--labels", "pancras")
    assert wrong.code == 2
    assert wrong.err.startswith("medaug: label 'pancras' is not there, did you mean 'pancreas'?")
