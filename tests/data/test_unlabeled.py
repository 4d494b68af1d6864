"""Scans without labels: found, cut, chosen, and joined to training without teaching masks."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from medaug.core.config import DataConfig, resolve
from medaug.core.errors import ConfigError, DataError
from medaug.data import open_source
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
from medaug.data.feed import select
from medaug.data.feed.feed import Feed, codec_for
from medaug.data.sources.unlabeled import Unlabeled, digest
from medaug.synthesis.generator import Generator
from medaug.training.loop import fit
from tests.conftest import TINY, miniature, write_series

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bare(phantom_root: Path, tmp_path_factory: pytest.TempPathFactory) -> SliceCache:
    """Other phantom patients than those with labels, in the same cut, as DICOM without labels."""
    from medaug.data.sources.phantom import source as phantom

    root = tmp_path_factory.mktemp("bare")
    phantom.write(root / "there", 2, 99, (64, 64, 20), (6.0, 6.0, 9.5))
    scans = root / "scans"
    for series in sorted((root / "there").rglob("*.dcm")):
        place = scans / series.parent.parent.parent.name / series.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(series, place)
    prepare(Unlabeled(scans), root / "cache", CacheSettings(size=32, holdout=0.0), 0)
    return SliceCache.open(root / "cache")


def feed(cache: SliceCache, bare: SliceCache | None, **data: Any) -> Feed:
    config = DataConfig(size=32, augment=None, **data)
    return Feed(cache, config, codec_for(cache, config), seed=0, device=CPU, unlabeled=bare)


def test_files_and_series_below_a_folder_are_found_by_their_place(tmp_path: Path) -> None:
    write_series(tmp_path / "a" / "one", "SECRET^NAME_0001", miniature(1)[0])
    image = nibabel.Nifti1Image(miniature(2)[0], np.diag([-6.0, -6.0, 2.5, 1.0]))
    (tmp_path / "b").mkdir()
    nibabel.save(image, tmp_path / "b" / "two.nii.gz")
    (tmp_path / "b" / "three.nii.gz").write_text("<html>")
    source = Unlabeled(tmp_path)
    cases, problems = source.cases()
    series = cases[0].id
    assert re.fullmatch("scan-[0-9a-f]{12}", series)
    two, three = (f"scan-{digest(f'b/{name}.nii.gz')}" for name in ("two", "three"))
    assert source.places == {series: "a/one", two: "b/two.nii.gz", three: "b/three.nii.gz"}
    assert [(c.id, c.label) for c in cases] == [(series, None), (two, None)]
    (tmp_path / "a").rename(tmp_path / "moved")
    assert Unlabeled(tmp_path).cases()[0][-1].id == series
    (tmp_path / "moved").rename(tmp_path / "a")
    assert [str(p) for p in problems] == [
        f"{three}: b/three.nii.gz: three.nii.gz is not a NIfTI file"
    ]


def test_a_folder_without_scans_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no scans in it"):
        Unlabeled(tmp_path).cases()
    with pytest.raises(DataError, match="no such folder; name a folder of scans"):
        Unlabeled(tmp_path / "none")


def test_the_cache_holds_images_alone_and_names_nobody(bare: SliceCache) -> None:
    for case in bare.cases.values():
        assert case.label is None
        assert not case.labeled
        assert case.image.shape[1:] == (32, 32)
    content = "".join(path.read_text() for path in bare.path.rglob("*.json"))
    assert "PatientID" not in content


def test_they_join_training_and_nothing_else(phantom_cache: Path, bare: SliceCache) -> None:
    cache = SliceCache.open(phantom_cache)
    alone, both = feed(cache, None), feed(cache, bare)
    assert len(both) > len(alone)
    assert int(both.labeled.sum()) == len(alone)
    assert len(feed(cache, bare, unlabeled=False)) == len(alone)
    heldout = Feed(
        cache, both.data, both.codec, seed=0, device=CPU, split="heldout", unlabeled=bare
    )
    assert bool(heldout.labeled.all())


def test_only_slices_like_the_labelled_ones_join(phantom_cache: Path, bare: SliceCache) -> None:
    cache = SliceCache.open(phantom_cache)
    chosen = feed(cache, bare)
    every = feed(cache, bare, require_label=False)
    joined = int((~chosen.labeled).sum())
    assert 0 < joined < int((~every.labeled).sum())


def test_the_labelled_slices_that_are_asked_do_not_grow_without_end(
    phantom_cache: Path, bare: SliceCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, asked = SliceCache.open(phantom_cache), []
    alike = select._Alike

    def seen(chosen: select.Chosen) -> select._Alike:
        asked.append(alike(chosen))
        return asked[-1]

    monkeypatch.setattr(select, "_Alike", seen)
    labelled, every = len(feed(cache, None)), len(feed(cache, bare))
    assert [len(one.all) for one in asked] == [labelled]
    monkeypatch.setattr(select, "MOST", labelled // 2)
    some = len(feed(cache, bare))
    assert len(asked[-1].all) <= labelled // 2 + len(cache.split["train"])
    assert labelled < some
    assert abs(some - every) < (every - labelled) / 2


def test_their_masks_are_unknown_and_the_others_known(
    phantom_cache: Path, bare: SliceCache
) -> None:
    joint = feed(SliceCache.open(phantom_cache), bare)
    assert joint.shape.unlabeled
    assert joint.shape.encoded == 1
    seen = joint.at(torch.arange(len(joint)))
    assert seen.known is not None
    assert torch.equal(seen.known[:, 1].flatten() > 0, joint.labeled)
    assert not seen.x[~joint.labeled, 1].any()
    assert bool((seen.x[joint.labeled, 1].abs() == 1).all())
    layout = feed(SliceCache.open(phantom_cache), bare, masks="layout")
    told = layout.at(torch.arange(len(layout))).cond
    assert told is not None
    assert told.shape[1] == layout.shape.layout == 6
    assert torch.equal(told[:, -1, 0, 0] == 0, layout.labeled)


def test_the_same_scan_does_not_join_twice(phantom_cache: Path, bare: SliceCache) -> None:
    cache = SliceCache.open(phantom_cache)
    assert len(feed(cache, cache)) == len(feed(cache, None))


def test_other_cuts_are_refused(phantom_cache: Path, bare: SliceCache) -> None:
    from dataclasses import replace

    other = replace(bare, settings=replace(bare.settings, fov_mm=300.0))
    with pytest.raises(ConfigError, match=r"its fov_mm 300.0 differs from 400.0"):
        feed(SliceCache.open(phantom_cache), other)


def test_a_folder_where_some_have_labels_is_one_cache(tmp_path: Path) -> None:
    for number in range(3):
        hu, mask = miniature(number)
        affine = np.diag([-6.0, 6.0, -2.5, 1.0])
        for folder, array in (("images", hu), ("labels", mask)):
            if folder == "labels" and number == 2:
                continue
            (tmp_path / "scans" / folder).mkdir(parents=True, exist_ok=True)
            path = tmp_path / "scans" / folder / f"case{number}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(array, affine), path)
    prepare(
        open_source(str(tmp_path / "scans")), tmp_path / "cache",
        CacheSettings(size=32, fov_mm=300, holdout=0.4), 0,
    )  # fmt: skip
    cache = SliceCache.open(tmp_path / "cache")
    assert [name for name, case in cache.cases.items() if not case.labeled] == ["case2"]
    assert "case2" in cache.split["train"]
    assert len(cache.split["heldout"]) == 1
    mixed = feed(cache, None, fov_mm=300)
    assert {mixed.owners[i] for i in torch.nonzero(~mixed.labeled).flatten().tolist()} <= {"case2"}


@pytest.mark.parametrize("masks", ["joint", "layout"])
def test_a_run_with_them_resumes_and_draws_masks(
    phantom_cache: Path, bare: SliceCache, tmp_path: Path, masks: str
) -> None:
    cache, run = SliceCache.open(phantom_cache), tmp_path / "run"
    half = resolve(TINY, {"data": {"masks": masks}, "train": {"images": 80}})
    whole = resolve(TINY, {"data": {"masks": masks}})
    fit(half, cache, run, device="cpu", unlabeled=bare)
    report = fit(whole, cache, run, device="cpu", unlabeled=bare)
    assert report.finished
    assert 80 <= report.resumed < report.images
    assert json.loads((run / "run.json").read_text())["unlabeled"] == bare.fingerprint
    generator = Generator.from_pretrained(run, "cpu")
    (sample,) = generator.generate(1, uncertainty=2)
    assert sample.label is not None
    assert generator.partial
    images = np.asarray(next(iter(bare.cases.values())).image[:3])
    if masks == "joint":
        drawn, labels = generator.vary(images)
        assert drawn.shape == images.shape
        assert labels is not None
