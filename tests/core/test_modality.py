"""MR is kept in thousandths of each scan's own range, apart from CT, and said to be so."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medaug.core.codec import CTCodec, from_dict
from medaug.core.config import resolve
from medaug.core.errors import CacheError, ConfigError, DataError
from medaug.core.modality import MR, check_hu, thousandths
from medaug.data import open_source
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
from medaug.data.feed.feed import codec_for
from medaug.data.formats.readers import read_volume
from medaug.data.sources.unlabeled import Unlabeled
from medaug.training.loop import fit
from medaug.training.workflow import default_cache, resolve_for
from tests.conftest import TINY, miniature, write_label, write_series


def signal(hu: np.ndarray, gain: float = 1.7, offset: float = 0.0) -> np.ndarray:
    """What a scanner without a unit might show of the same anatomy: fat bright, bone dark."""
    levels = np.interp(hu, [-1000, -90, 70, 105, 500], [0, 900, 350, 520, 60])
    return (levels * gain + offset).astype(np.float32)


@pytest.fixture
def mr(tmp_path: Path) -> Path:
    """Three MR scans in nnU-Net's layout, each of another scale."""
    root = tmp_path / "knee"
    for seed in (1, 2, 3):
        hu, mask = miniature(seed)
        write_label(root / "imagesTr" / f"a{seed}_0000.nii.gz", signal(hu, 10.0**seed / 100))
        write_label(root / "labelsTr" / f"a{seed}.nii.gz", mask)
    about = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "organ": 1}}
    (root / "dataset.json").write_text(json.dumps({**about, "file_ending": ".nii.gz"}))
    return root


@pytest.fixture
def cache(mr: Path, tmp_path: Path) -> SliceCache:
    place = tmp_path / "cache"
    assert prepare(open_source(str(mr)), place, CacheSettings(32, holdout=0.34), 0).failed == []
    return SliceCache.open(place)


def test_a_value_becomes_what_is_stated() -> None:
    scan = np.concatenate([np.zeros(900), np.arange(1000) + 200.0, [5000.0]])
    above = 0.1 * np.percentile(scan, 99)
    inside = scan[scan > above]
    low, high = np.percentile(inside, [1, 99])
    stored = thousandths(scan)
    assert stored.dtype == np.int16
    assert 100 < above < 200
    for value, got in zip(scan.tolist(), stored.tolist(), strict=True):
        assert abs(got - np.clip(1000 * (value - low) / (high - low), 0, 4000)) <= 0.5 + 1e-3
    assert stored[0] == 0
    assert stored[-1] == 4000
    assert abs(np.percentile(stored[scan > above], 99) - 1000) <= 1


@settings(deadline=None, max_examples=25)
@given(st.floats(1e-3, 1e3), st.floats(-100, 1e3))
def test_scale_and_offset_do_not_matter(gain: float, offset: float) -> None:
    scan = signal(miniature(1)[0])
    changed = scan.astype(np.float64) * gain + offset * gain
    assert np.abs(thousandths(changed).astype(int) - thousandths(scan)).max() <= 1


def test_values_that_are_not_finite_are_background() -> None:
    scan = signal(miniature(1)[0])
    holes = scan.copy()
    holes[0, 0, 0], holes[1, 0, 0] = np.nan, np.inf
    assert np.array_equal(thousandths(holes)[:2, 0, 0], [0, 0])
    with pytest.raises(DataError, match="has the value 3 nearly everywhere"):
        thousandths(np.full((4, 4, 4), 3.0))
    with pytest.raises(DataError, match="the values 0 and 1 only; it is no scan"):
        thousandths(np.arange(64).reshape(4, 4, 4) % 2)


def test_scans_of_any_scale_fill_the_same_range(mr: Path, cache: SliceCache) -> None:
    assert (cache.modality, cache.content) == ("MR", "mr")
    medians = []
    for seed, case in enumerate(open_source(str(mr)).cases()[0], 1):
        stored, *_ = read_volume(case.image[0], MR)
        hu, mask = miniature(seed)
        assert (stored.dtype, stored.min()) == (np.int16, 0)
        assert abs(np.percentile(stored[signal(hu) > 200], 99) - 1000) < 20
        medians.append(np.median(stored[mask > 0]))
    assert max(medians) - min(medians) < 20
    for cached in cache.cases.values():
        assert (cached.image.dtype, cached.image.min()) == (np.int16, 0)
        assert 500 < cached.image.max() <= 1100


def test_it_is_centred_on_the_body(mr: Path, tmp_path: Path) -> None:
    """The body lies off the middle of its image."""
    path = mr / "imagesTr" / "a1_0000.nii.gz"
    hu, _ = miniature(1)
    write_label(path, signal(np.roll(hu, 5, axis=0)))
    (mr / "labelsTr" / "a1.nii.gz").unlink()
    for center in ("body", "image"):
        prepare(open_source(str(mr)), tmp_path / center, CacheSettings(64, center=center), 0)
    body, image = (SliceCache.open(tmp_path / c).cases["a1"].affine for c in ("body", "image"))
    assert abs(abs(body[0, 3] - image[0, 3]) - 5 * nibabel.load(path).header.get_zooms()[0]) < 5


def test_a_mirrored_label_is_caught(mr: Path, tmp_path: Path) -> None:
    path = mr / "labelsTr" / "a2.nii.gz"
    write_label(path, np.ascontiguousarray(np.asarray(nibabel.load(path).dataobj)[::-1]))
    failed = prepare(open_source(str(mr)), tmp_path / "cache", CacheSettings(32), 0).failed
    assert [p.case for p in failed] == ["a2"]
    assert "label lies better on the image" in failed[0].reason


def test_ct_and_mr_never_share_a_cache(mr: Path, cache: SliceCache) -> None:
    other = json.loads((mr / "dataset.json").read_text())
    (mr / "dataset.json").write_text(json.dumps({**other, "channel_names": {"0": "CT"}}))
    with pytest.raises(CacheError, match="made with modality MR, asked for CT"):
        prepare(open_source(str(mr)), cache.path, CacheSettings(32, holdout=0.34), 0)


def test_its_window_is_the_default_and_hu_windows_are_refused(mr: Path, cache: SliceCache) -> None:
    for source in (open_source(str(mr)), cache):
        config = resolve_for(source, "knee", {"data": {"size": 32}})
        assert config.data.window_hu == (0, 1000)
        assert config.data.tissues
    assert default_cache(open_source(str(mr)), config).name == "knee-32px-400mm-mr"
    codec = codec_for(cache, config.data)
    assert codec.modality == "MR"
    assert from_dict(json.loads(json.dumps(codec.to_dict()))) == codec
    x = codec.encode(torch.tensor([[[0, 500, 1000, 4000]]]), torch.zeros(1, 1, 4))
    assert x[0, 0, 0].tolist() == [-1, 0, 1, 1]
    with pytest.raises(ConfigError, match=r"window_hu: \[-160.0, 240.0\], and .* holds MR in thou"):
        codec_for(cache, resolve({"data": {"size": 32}}).data)
    layout = {"window_hu": [0, 1000], "masks": "layout"}
    codec = codec_for(cache, resolve({"data": layout}).data)
    assert isinstance(codec, CTCodec)
    assert codec.tissues == MR.tissues


def test_ct_codecs_are_described_as_before() -> None:
    assert "modality" not in CTCodec((-160, 240), {"pancreas": 1}).to_dict()


@pytest.mark.parametrize(
    "change",
    [
        lambda hu: np.clip((hu + 160) / 400, 0, 1) * 255,
        lambda hu: np.clip((hu + 160) / 400, 0, 1),
        lambda hu: hu + 1024,
        lambda hu: (hu - hu.mean()) / hu.std(),
    ],
    ids=["grey levels", "shares", "stored values", "z-scores"],
)
def test_ct_that_is_not_in_hu_is_refused(change, tmp_path: Path) -> None:
    hu, mask = miniature(1)
    write_label(tmp_path / "x" / "images" / "a.nii.gz", change(hu).astype(np.float32))
    write_label(tmp_path / "x" / "labels" / "a.nii.gz", mask)
    with pytest.raises(DataError, match=r"a: its values run from -?\d+ to \d+, and CT in HU has"):
        prepare(open_source(str(tmp_path / "x")), tmp_path / "cache", CacheSettings(32), 0)


def test_windowed_hu_pass() -> None:
    check_hu(np.clip(miniature(1)[0], -100, 240))


def test_ct_said_to_be_mr_is_refused(tmp_path: Path) -> None:
    write_label(tmp_path / "x" / "a.nii.gz", miniature(1)[0])
    source = open_source(str(tmp_path / "x"), modality="MR")
    with pytest.raises(DataError, match="as the air of CT does, and MR was said"):
        prepare(source, tmp_path / "cache", CacheSettings(32), 0)


def test_a_wish_against_the_files_is_refused(mr: Path) -> None:
    with pytest.raises(ConfigError, match=r"^modality: CT was asked, and .*dataset.json says MR$"):
        open_source(str(mr), modality="CT")
    with pytest.raises(ConfigError, match=r"^modality 'PET' is not known \(known: CT, MR\)$"):
        open_source(str(mr), modality="PET")


def test_dicom_says_what_it_is(tmp_path: Path) -> None:
    """Values beyond those of CT are kept, and a folder of both gives one kind at a time."""
    root = tmp_path / "both"
    hu, _ = miniature(1)
    write_series(root / "ct", "X0001", hu)
    for file in write_series(root / "mr", "X0002", signal(hu, 20).astype(np.int16)):
        data = pydicom.dcmread(file)
        data.Modality = "MR"
        data.save_as(file)
    source = open_source(str(root))
    ids = [c.id for c in source.cases()[0]]
    assert (source.modality, [source.places[id] for id in ids]) == ("CT", ["ct"])
    told = {source.places[id]: why for id, why in source.excluded.items()}
    assert told == {"mr": "a series of MR; only CT was taken"}
    other = open_source(str(root), modality="MR")
    (mr,) = (c.id for c in other.cases()[0])
    assert other.places[mr] == "mr"
    prepare(other, tmp_path / "cache", CacheSettings(32), 0)
    found = SliceCache.open(tmp_path / "cache").cases[mr].image
    write_label(tmp_path / "again" / "mr.nii.gz", signal(hu, 0.3))
    again = open_source(str(tmp_path / "again"), modality="MR")
    prepare(again, tmp_path / "cache2", CacheSettings(32), 0)
    there = SliceCache.open(tmp_path / "cache2").cases["mr"].image
    assert np.abs(found.astype(int) - there).max() <= 2
    assert found.std() > 50
    assert open_source(str(root / "mr")).modality == "MR"


def test_scans_without_labels_are_of_the_same_kind(mr: Path, tmp_path: Path) -> None:
    source = Unlabeled(mr / "imagesTr", "MR")
    prepare(source, tmp_path / "cache", CacheSettings(32, holdout=0.0), 0)
    assert SliceCache.open(tmp_path / "cache").modality == "MR"


def test_what_is_drawn_is_said_to_be_mr(cache: SliceCache, medaug, tmp_path: Path) -> None:
    """From training to files the unit is named."""
    run = tmp_path / "run"
    wishes = {**TINY, "data": {"size": 32}}
    fit(resolve_for(cache, "knee", wishes), cache, run, device="cpu")
    out = tmp_path / "out"
    done = medaug("synthesize", "-n", 2, "--run", run, "--out", out, "--no-filter")
    assert done.code == 0, done.err
    folder = out / "nifti" if (out / "nifti").is_dir() else out
    about = json.loads((folder / "dataset.json").read_text())
    assert about["channel_names"] == {"0": "MR"}
    assert json.loads((folder / "run.json").read_text())["kind"] == "mr"
    image = nibabel.load(next((folder / "imagesTr").glob("*.nii.gz")))
    values = np.asarray(image.dataobj)
    assert (values.dtype, values.min() >= 0, values.max() <= 1000) == (np.int16, True, True)
    assert open_source(str(folder)).modality == "MR"
    place = "--cache", cache.path, "--out", tmp_path / "e.png"
    seen = medaug("explore", run, "--reconstruct", "--rows", 2, *place, "--json")
    assert seen.code == 0, seen.err
    assert "mean_absolute_error_thousandths" in seen.out
    png = medaug(
        "synthesize",
        "-n",
        2,
        "--run",
        run,
        "--out",
        tmp_path / "p",
        "--format",
        "png",
        "--no-filter",
    )
    assert png.code == 0
