"""MR is judged, filtered, studied and given its masks as CT is: a planted defect is seen."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from scipy import ndimage

from medaug.core.errors import ConfigError, DataError
from medaug.core.modality import MR
from medaug.data import open_source
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
from medaug.data.cache.slicing import load
from medaug.data.checks.likeness import difference, likeness
from medaug.data.checks.reduced import reduce
from medaug.data.feed.continuity import continuity
from medaug.data.feed.feed import codec_for
from medaug.data.feed.tissues import tissues
from medaug.evaluation import evaluate
from medaug.evaluation.downstream.running import run as run_study
from medaug.evaluation.downstream.settings import resolve_study
from medaug.evaluation.families import FAMILIES, Subject, anatomy, appearance, privacy
from medaug.evaluation.families.anatomy import altered, witness
from medaug.evaluation.features.texture import Texture
from medaug.evaluation.figures import Family
from medaug.evaluation.metrics.copies import planted
from medaug.evaluation.settings import EvaluateConfig
from medaug.evaluation.slices.evidence import Evidence, SliceSet, real_slices
from medaug.evaluation.subject import settle
from medaug.synthesis.filter import Filter, open_filter
from medaug.synthesis.filter.settings import resolve_filter
from medaug.synthesis.generator import Generator
from medaug.synthesis.masks.open import real_layouts
from medaug.training.checkpoint import read_tensors, write_tensors
from medaug.training.loop import fit
from medaug.training.segmenter import Segmenter
from medaug.training.workflow import resolve_for
from tests.conftest import TINY
from tests.support import magnetic
from tests.support.lessons import LENIENT, LITTLE

WINDOW = MR.window
Change = Callable[[SliceSet], SliceSet]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six MR phantoms of different gain and bias field, in nnU-Net's layout."""
    names = [f"knee_{n:03d}" for n in range(6)]
    return magnetic.write(tmp_path_factory.mktemp("mr") / "scans", names, "T1")


@pytest.fixture(scope="module")
def cache(scans: Path) -> SliceCache:
    """Their slices at 32 pixels, two of them held out."""
    place = scans.parent / "cache"
    done = prepare(open_source(str(scans)), place, CacheSettings(32, holdout=0.34), 0)
    assert not done.failed
    return SliceCache.open(place)


@pytest.fixture(scope="module")
def sets(cache: SliceCache) -> tuple[SliceSet, SliceSet]:
    """Training and held-out slices."""
    return real_slices(cache, "train", WINDOW), real_slices(cache, "heldout", WINDOW)


@pytest.fixture(scope="module")
def segmenter(sets: tuple[SliceSet, SliceSet]) -> Segmenter:
    """The witness of the family anatomy, trained for a moment."""
    return witness(sets[0], WINDOW, count=160)


@pytest.fixture(scope="module")
def judging(cache: SliceCache, tmp_path_factory: pytest.TempPathFactory) -> Filter:
    """A filter of the training slices, its segmenters hardly trained."""
    config = resolve_filter({"segmenter_images": 32, "folds": 2, "agreement_margin": 0.9})
    data = resolve_for(cache, "mr", {}).data
    place = tmp_path_factory.mktemp("filter") / "filter.safetensors"
    return open_filter(place, config, cache=cache, data=data)


@pytest.fixture(scope="module")
def layout_run(cache: SliceCache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is given its masks."""
    run = tmp_path_factory.mktemp("runs") / "layout"
    config = resolve_for(cache, "mr", {**TINY, "data": {"size": 32, "masks": "layout"}})
    fit(config, cache, run, device="cpu")
    return run


def each(of: SliceSet, change: Callable[[np.ndarray], np.ndarray]) -> SliceSet:
    images = [
        np.clip(np.rint(change(i.astype(float))), *WINDOW).astype(np.int16) for i in of.images
    ]
    return replace(of, images=np.stack(images))


def shifted(of: SliceSet) -> SliceSet:
    return each(of, lambda image: image + 150)


def scaled(of: SliceSet) -> SliceSet:
    return each(of, lambda image: image * 0.75)


def blurred(of: SliceSet) -> SliceSet:
    return each(of, lambda image: ndimage.gaussian_filter(image, 1.2))


def noised(of: SliceSet) -> SliceSet:
    rng = np.random.default_rng(0)
    return each(of, lambda image: image + rng.normal(0, 100, image.shape) * (image > 0))


def moved(of: SliceSet) -> SliceSet:
    assert of.labels is not None
    return replace(of, labels=np.roll(of.labels, 9, 2))


def failing(
    sets: tuple[SliceSet, SliceSet], segmenter: Segmenter, change: Change, part: str
) -> set[str]:
    """The figures of one part of a report whose bounds changed slices do not keep."""
    train, heldout = sets
    evidence = Evidence(change(train), train, heldout, WINDOW)
    if part == "anatomy":
        found = anatomy.measure(evidence, segmenter)
    else:
        found = Family("fidelity", appearance.figures(evidence)[0])
    return {figure.name for figure in found.failed}


@pytest.mark.parametrize("part", ["fidelity", "anatomy"])
def test_real_slices_pass(sets: tuple[SliceSet, SliceSet], segmenter: Segmenter, part: str) -> None:
    assert not failing(sets, segmenter, lambda of: of, part)


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (shifted, "fidelity.histogram"),
        (scaled, "fidelity.sharpness"),
        (blurred, "fidelity.sharpness"),
        (noised, "fidelity.noise"),
        (moved, "anatomy.across.liver"),
    ],
)
def test_a_planted_defect_is_seen(
    change: Change, seen: str, sets: tuple[SliceSet, SliceSet], segmenter: Segmenter
) -> None:
    assert seen in failing(sets, segmenter, change, seen.partition(".")[0])


def test_the_filter_keeps_unseen_patients(judging: Filter, sets: tuple[SliceSet, SliceSet]) -> None:
    _, heldout = sets
    assert judging.modality is MR
    reasons = judging.judge(heldout.images, heldout.labels)
    assert sum(not reason for reason in reasons) >= 0.8 * len(reasons), reasons


@pytest.mark.parametrize(
    ("change", "seen"), [(shifted, "hu"), (noised, "noise"), (moved, "outside_body")]
)
def test_the_filter_sees_a_planted_defect(
    change: Change, seen: str, judging: Filter, sets: tuple[SliceSet, SliceSet]
) -> None:
    made = change(sets[1])
    reasons = judging.judge(made.images, made.labels)
    assert reasons.count(seen) > 0.3 * len(reasons), reasons


def test_the_filter_sees_copies(judging: Filter, sets: tuple[SliceSet, SliceSet]) -> None:
    train, _ = sets
    assert (
        judging.judge(train.images[:3], None if train.labels is None else train.labels[:3])
        == ["copy"] * 3
    )


def test_words_and_figures_are_in_its_unit(cache: SliceCache, tmp_path: Path) -> None:
    """A whole report, of the family fidelity's appearance alone."""

    def looks(subject: Subject) -> Family:
        figures, curves, skipped = appearance.figures(subject.evidence)
        return Family("fidelity", figures, curves=curves, skipped=skipped)

    folder = tmp_path / "other tool"
    case = cache.cases[cache.split["heldout"][0]]
    assert case.label is not None
    for place, array in (("imagesTr/a_0000", case.image), ("labelsTr/a", case.label)):
        path = folder / f"{place}.nii.gz"
        path.parent.mkdir(parents=True)
        nibabel.save(nibabel.Nifti1Image(np.array(array).T, np.diag([*case.spacing_mm, 1])), path)
    about = {"channel_names": {"0": "MR"}, "labels": {"background": 0, **cache.labels}}
    (folder / "dataset.json").write_text(json.dumps({**about, "file_ending": ".nii.gz"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAMILIES, "fidelity", looks)
        report = evaluate(
            tmp_path / "report", synthetic=folder, against=cache.path, families=["fidelity"]
        )
    assert report.content["settings"]["modality"] == "MR"
    assert report.content["settings"]["window_hu"] == [0, 1000]
    figures = {figure["name"]: figure for figure in report.content["figures"]}
    assert {"fidelity.level.dark", "fidelity.level.medium"} <= set(figures)
    assert figures["fidelity.level.dark"]["bound"]["most"] == 30
    assert figures["fidelity.sharpness"]["unit"] == "thousandths/mm"
    page = (tmp_path / "report" / "index.html").read_text()
    assert "0 to 1000 thousandths" in page
    assert not re.search(r"\bHU\b", page.replace("window_hu", ""))
    (folder / "dataset.json").write_text(json.dumps({**about, "channel_names": {"0": "CT"}}))
    with pytest.raises(ConfigError, match=r"CT, and .* holds MR; hold them against slices of CT"):
        settle(None, folder, cache.path, 4, 0, 2, EvaluateConfig(), "cpu")


def test_suspected_copies_are_as_far_in_its_unit(sets: tuple[SliceSet, SliceSet]) -> None:
    train, heldout = sets
    found = privacy.measure(Evidence(train, train, heldout, WINDOW))
    assert {figure.unit for figure in found.figures} == {"", "thousandths"}
    listed = found.details["copies"]["listed"]
    assert [row["rms_thousandths"] for row in listed] == [0.0] * len(train)


def test_values_of_another_scale_and_windows_in_hu_are_refused(
    cache: SliceCache, tmp_path: Path
) -> None:
    case = cache.cases[cache.split["heldout"][0]]
    grey = np.array(case.image).T / 1000 * 255
    nibabel.save(nibabel.Nifti1Image(grey, np.diag([*case.spacing_mm, 1])), tmp_path / "a.nii.gz")
    with pytest.raises(DataError, match=r"run from 0 to \d+.*thousandths of each scan's range"):
        evaluate(tmp_path / "report", synthetic=tmp_path, against=cache.path, families=["fidelity"])
    config = EvaluateConfig(window_hu=(-160, 240))
    with pytest.raises(ConfigError, match=r"MR slices are in thousandths; give two values from 0"):
        settle(None, tmp_path, cache.path, 4, 0, 2, config, "cpu")


def test_what_is_planted_and_learned_from_weighs_as_much_as_in_ct() -> None:
    images = np.full((4, 32, 32), 400, np.int16)
    for made in (planted, altered):
        ct = made(images - 400, (-1000.0, 1000.0), 3)[:, 8:24, 8:24].astype(float)
        mr = made(images, (-600.0, 1400.0), 3, MR.per_hu)[:, 8:24, 8:24].astype(float) - 400
        assert mr.std() == pytest.approx(MR.per_hu * ct.std(), rel=0.02)


def test_features_and_continuity_look_at_its_own_bands() -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(250, 20, (3, 32, 32)).round().astype(np.int16)
    brighter = np.where(images > 0, images + 300, 0).astype(np.int16)
    found = Texture.fit(images, WINDOW, MR)
    assert found.version != Texture.fit(images, WINDOW).version
    assert np.isfinite(np.asarray(found(brighter))).all()
    assert np.isfinite(np.asarray(Texture.fit(images, (500.0, 1000.0), MR)(images))).all()
    faint = np.full((2, 16, 16), 10, np.int16)
    faint[1] = 20
    assert np.isnan(continuity(faint, None, MR).hu[0])
    assert continuity(faint, None).hu[0] == 10


def test_two_scans_are_not_taken_for_one(scans: Path) -> None:
    """Thousandths in the bands of HU made all of them alike."""
    seen = []
    for case in open_source(str(scans)).cases()[0]:
        image, _, affine, *_ = load(case, {"pancreas": 1, "liver": 2}, MR)
        seen.append(likeness(reduce(image, affine, MR)))
    apart = [difference(seen[i], seen[j]) for i in range(len(seen)) for j in range(i)]
    assert min(apart) > 0.07
    assert difference(seen[-1], likeness(reduce(image[3:-2, 2:, 1:], affine, MR))) < 0.03


def test_layouts_hold_its_tissues(cache: SliceCache, layout_run: Path) -> None:
    image = np.zeros((1, 32, 32), np.int16)
    image[0, 4:28, 4:28] = 250
    image[0, 8:20, 8:20] = 550
    image[0, 12:16, 12:16] = 900
    found = tissues(image, MR)[0]
    assert [int(found[at]) for at in ((0, 0), (6, 6), (10, 10), (14, 14))] == [
        0, *(MR.tissues[name] for name in ("dark", "medium", "bright")),
    ]  # fmt: skip
    config = resolve_for(cache, "mr", {"data": {"masks": "layout"}})
    codec = codec_for(cache, config.data)
    maps = real_layouts(cache, config.data, codec)
    assert set(np.unique(maps)) <= {0, 1, 2, *MR.tissues.values()}
    assert (maps > 200).float().mean() > 0.3
    generator = Generator.from_pretrained(layout_run, "cpu")
    assert generator.codec.tissues == MR.tissues
    case = cache.cases[cache.split["heldout"][0]]
    assert case.label is not None
    middle = len(case.image) // 2
    drawn = generator.redraw(
        labels=np.array(case.label[middle : middle + 1]),
        images=np.array(case.image[middle : middle + 1]),
    )
    assert drawn.min() >= 0


def test_a_filter_of_one_slice_is_kept_and_read(tmp_path: Path) -> None:
    """It has no other slice to be near to, which leaves a column empty."""
    checksum = write_tensors(tmp_path / "a.safetensors", {"nearest": torch.zeros(0).double()}, {})
    tensors, _, read = read_tensors(tmp_path / "a.safetensors")
    assert (read, tensors["nearest"].shape) == (checksum, (0,))


def test_a_study_of_mr(cache: SliceCache, tmp_path: Path) -> None:
    """Real slices, contrast at random and samples for deformed masks, all of them small."""
    config = resolve_study(
        cache,
        {
            "data": {"labels": ["pancreas"]},
            "model": TINY["model"],
            "train": {"images": 32, "batch": 8, "snapshot_every": 32, "precision": "float32"},
            "filter": LENIENT,
            "downstream": {
                **LITTLE, "n": [1], "subsets": 1, "arms": ["real", "contrast", "synthetic-layout"],
            },
        },
    )  # fmt: skip
    assert config.generator.data.window_hu == WINDOW
    table = run_study(cache, config, tmp_path / "out", "cpu")
    assert {row.arm for row in table.rows} == {"real", "contrast", "synthetic-layout"}
    assert not any(row.skipped for row in table.rows)
