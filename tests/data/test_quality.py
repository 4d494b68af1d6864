"""Sound scans pass every check; each planted fault is refused by its own check, with the reason."""

import re
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from medaug.cli.describe import describe
from medaug.core.errors import DataError
from medaug.core.modality import MR
from medaug.core.types import Case
from medaug.data import open_source
from medaug.data.cache.duplicates import Known, twins
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
from medaug.data.cache.slicing import load
from medaug.data.checks import CHECKS, Finding, battery, reduce, worst
from medaug.data.checks.grid import check_grid
from medaug.data.checks.likeness import difference, likeness, same_scan
from medaug.data.quality import survey
from medaug.data.sources.phantom.source import draw
from tests.conftest import Medaug, miniature, write_label, write_patient, write_series

AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])
SHAPE = (96, 96, 48)
Volume = np.ndarray


@pytest.fixture(scope="module")
def sound() -> tuple[Volume, Volume]:
    """A phantom's HU and labels, [x, y, z] in RAS order."""
    return phantom(5)


def phantom(seed: int) -> tuple[Volume, Volume]:
    hu, labels, _ = draw(seed, SHAPE, (4.0, 4.0, 4.0))
    return np.ascontiguousarray(hu), np.ascontiguousarray(labels)


def said(image: Volume, labels: Volume | None = None, affine: Volume = AFFINE) -> dict[str, str]:
    image = np.ascontiguousarray(image)
    return {f.check: f.verdict for f in battery("one", image, labels, affine)}


def test_a_sound_scan_passes_every_check(sound: tuple[Volume, Volume]) -> None:
    found = battery("one", *sound, AFFINE)
    assert [f.check for f in found] == [c for c in CHECKS if c not in ("files", "likeness")]
    assert {(f.case, f.verdict, f.reason) for f in found} == {("one", "ok", "")}
    assert worst(found) == "ok"


def shuffled(image: Volume) -> Volume:
    return image[:, :, np.random.default_rng(0).permutation(image.shape[2])]


FAULTS: dict[str, tuple[str, str, Callable[[Volume], Volume]]] = {
    "intercept left out": ("intensity", "refused", lambda v: v + 1024),
    "intercept taken off twice": ("intensity", "refused", lambda v: np.maximum(v - 1024, -1024)),
    "eight bits": ("intensity", "refused", lambda v: (np.clip(v, -160, 240) + 160) * 0.6375),
    "scaled to one": ("intensity", "refused", lambda v: (np.clip(v, -160, 240) + 160) / 400),
    "constant": ("intensity", "refused", np.zeros_like),
    "windowed": ("intensity", "doubtful", lambda v: np.clip(v, -160, 240)),
    "shuffled": ("slices", "refused", shuffled),
    "interleaved": (
        "slices",
        "refused",
        lambda v: np.concatenate([v[:, :, ::2], v[:, :, 1::2]], 2),
    ),
    "a slice twice": ("slices", "refused", lambda v: np.insert(v, 20, v[:, :, 20], axis=2)),
    "a blank slice within": ("slices", "refused", lambda v: np.insert(v, 20, -1024, axis=2)),
    "blank slices at the end": ("slices", "doubtful", lambda v: np.insert(v, [0, 0], -1024, 2)),
    "slices missing": ("slices", "refused", lambda v: np.delete(v, range(12, 30), axis=2)),
    "front to back": ("orientation", "refused", lambda v: v[:, ::-1]),
    "a quarter turn": ("orientation", "refused", lambda v: v.swapaxes(0, 1)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(sound: tuple[Volume, Volume], name: str) -> None:
    check, verdict, plant = FAULTS[name]
    found = battery("one", np.ascontiguousarray(plant(sound[0]), dtype=np.int16), None, AFFINE)
    by_check = {f.check: f for f in found}
    assert by_check[check].verdict == verdict
    assert by_check[check].reason


def test_lungs_below_are_upside_down(sound: tuple[Volume, Volume]) -> None:
    chest = sound[0].copy()
    x, y, z = np.indices(SHAPE)
    for side in (-1, 1):
        lung = ((x - 48 - side * 16) / 12) ** 2 + ((y - 50) / 14) ** 2 < 1
        chest[lung & (z > 30)] = -820
    assert said(chest)["orientation"] == "ok"
    assert said(chest[:, :, ::-1])["orientation"] == "refused"


MASKS: dict[str, tuple[str, Callable[[Volume], Volume]]] = {
    "empty": ("masks", np.zeros_like),
    "in the air": ("masks", lambda m: np.roll(m, 40, axis=1)),
    "mirrored": ("alignment", lambda m: m[::-1]),
    "upside down": ("alignment", lambda m: m[:, :, ::-1]),
    "moved by two centimetres": ("alignment", lambda m: np.roll(m, 5, axis=0)),
    "transposed": ("alignment", lambda m: m.swapaxes(0, 1)),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_misplaced_mask_is_refused(sound: tuple[Volume, Volume], name: str) -> None:
    check, plant = MASKS[name]
    assert said(sound[0], np.ascontiguousarray(plant(sound[1])))[check] == "refused"


def test_a_mask_partly_outside_the_body_is_doubtful(sound: tuple[Volume, Volume]) -> None:
    mask = sound[1].copy()
    stray = round(0.03 * np.count_nonzero(mask))
    mask[0, 0, :stray] = 1
    assert said(sound[0], mask)["masks"] == "doubtful"


def turned(degrees: float) -> Volume:
    s, c = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    return np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]])


def sheared(degrees: float) -> Volume:
    affine = AFFINE.copy()
    affine[1, 2] = 4 * np.tan(np.radians(degrees))
    return affine


@pytest.mark.parametrize(
    ("affine", "verdict", "reason"),
    [
        (AFFINE, "ok", ""),
        (np.diag([-1, -1, 1, 1]) @ AFFINE, "ok", ""),
        (sheared(1), "doubtful", "tilted by 1.0 degrees"),
        (sheared(15), "refused", "tilted by 15.0 degrees"),
        (turned(8) @ AFFINE, "doubtful", "8.0 degrees off the axial plane"),
        (turned(30) @ AFFINE, "refused", "30.0 degrees off the axial plane"),
        (np.diag([0.8, 0.8, 8, 1]), "doubtful", "8 mm apart"),
        (np.diag([0.8, 1.6, 1, 1]), "doubtful", "not square"),
        (np.diag([0.08, 0.08, 0.1, 1]), "refused", "voxels are 0.08 x 0.08 x 0.1 mm"),
        (np.diag([0.8, 0.8, 40, 1]), "refused", "accepted are"),
        (np.diag([0.8, 0.8, 0, 1]), "refused", "singular"),
        (np.full((4, 4), np.nan), "refused", "not finite"),
    ],
)
def test_tilt_planes_and_voxel_sizes(affine: Volume, verdict: str, reason: str) -> None:
    found = check_grid(affine)
    assert found[0] == verdict
    assert reason in found[1]


def test_other_modalities_are_not_asked_for_hounsfield_units(sound: tuple[Volume, Volume]) -> None:
    bright = (sound[0] + 1024).astype(np.int16)
    found = battery("one", bright, sound[1], AFFINE, modality=MR)
    assert [f.check for f in found] == [
        "compression",
        "gaps",
        "grid",
        "slices",
        "masks",
        "alignment",
    ]
    assert worst(found) == "ok"
    empty = battery("one", bright, np.zeros_like(sound[1]), AFFINE, modality=MR)
    assert worst(empty) == "refused"


def test_a_scan_is_known_again_and_another_is_not(sound: tuple[Volume, Volume]) -> None:
    def seen(image: Volume, affine: Volume = AFFINE) -> Volume:
        return likeness(reduce(np.ascontiguousarray(image), affine))

    image = sound[0]
    rng = np.random.default_rng(0)
    same = {
        "itself": seen(image),
        "cropped": seen(image[3:-2, 2:-4, 4:-5]),
        "cut short": seen(image[:, :, 14:]),
        "noisy": seen((image + rng.normal(0, 20, image.shape)).astype(np.int16)),
        "mirrored": seen(image[::-1]),
        "upside down": seen(image[:, :, ::-1]),
        "every other slice": seen(image[:, :, ::2], np.diag([4.0, 4.0, 8.0, 1.0])),
    }
    for what, other in same.items():
        assert same_scan(same["itself"], other), (what, difference(same["itself"], other))
    for seed in range(6, 12):
        assert difference(same["itself"], seen(phantom(seed)[0])) > 0.05
    low = seen(image[:, :, :12])
    assert len(low) == 0
    assert not same_scan(low, low)


def test_who_was_first_stays(sound: tuple[Volume, Volume]) -> None:
    one = Known("a", likeness(reduce(sound[0], AFFINE)))
    other = Known("b", likeness(reduce(phantom(9)[0], AFFINE)))
    scans = {"B": one, "A": one, "C": other}
    assert twins(scans, (), {}) == {"B": "A"}
    assert twins(scans, ("B",), {}) == {"A": "B"}
    assert twins(scans, (), {"there/X": one}) == {"A": "there/X", "B": "there/X"}
    short = Known("same voxels", np.zeros((0, 8)))
    assert twins({"D": short, "E": short}, (), {}) == {"E": "D"}


def write_phantom(root: Path, name: str, image: Volume, labels: Volume) -> None:
    for folder, array, end in (("images", image, ""), ("labels", labels, "")):
        (root / folder).mkdir(parents=True, exist_ok=True)
        file = root / folder / f"{name}{end}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(array), AFFINE), file)


SETTINGS = CacheSettings(size=32, holdout=0.5)


def test_prepare_refuses_and_doubts_as_inspect_does(
    sound: tuple[Volume, Volume], tmp_path: Path
) -> None:
    image, labels = sound
    write_phantom(tmp_path / "in", "a", image, labels)
    write_phantom(tmp_path / "in", "b", image[2:, 3:, 2:-3], labels[2:, 3:, 2:-3])
    write_phantom(tmp_path / "in", "c", *phantom(9))
    other, marks = phantom(11)
    write_phantom(tmp_path / "in", "d", np.clip(other, -160, 240), marks)
    write_phantom(tmp_path / "in", "e", np.maximum(other - 1024, -1024), marks)
    source = open_source(str(tmp_path / "in"))
    caches = []
    for workers in (0, 2):
        report = prepare(source, tmp_path / f"cache{workers}", SETTINGS, workers)
        assert report.done == ["a", "c", "d"]
        assert [p.case for p in report.doubtful] == ["d"]
        assert [p.case for p in report.failed] == ["b", "e"]
        assert str(report.failed[0]) == "b: the same scan as a, under another name"
        caches.append(SliceCache.open(tmp_path / f"cache{workers}"))
    assert caches[0].fingerprint == caches[1].fingerprint
    assert not (caches[0].path / "cases" / "b").exists()
    assert describe(caches[0].path)["doubtful"] == [f"{report.doubtful[0]}"]
    judged = {one.case: one.verdict for one in survey(source)[0]}
    assert judged == {
        "a": "ok", "b": "refused", "c": "ok", "d": "doubtful", "e": "refused",
    }  # fmt: skip
    again = prepare(source, tmp_path / "cache0", SETTINGS, 0)
    assert (again.done, again.skipped) == ([], ["a", "c", "d"])
    assert SliceCache.open(tmp_path / "cache0").fingerprint == caches[0].fingerprint

    write_phantom(tmp_path / "more", "x", image[:, :, 3:], labels[:, :, 3:])
    write_phantom(tmp_path / "more", "y", *phantom(21))
    more = open_source(str(tmp_path / "more"))
    apart = prepare(more, tmp_path / "apart", SETTINGS, 0, [caches[0].path])
    assert [str(p) for p in apart.failed] == ["x: the same scan as folders/a, under another name"]
    assert [one.verdict for one in survey(more, against=[caches[0].path])[0]] == ["refused", "ok"]
    assert [one.verdict for one in survey(more)[0]] == ["ok", "ok"]


def test_a_scan_added_later_never_displaces_one_that_was_split(
    sound: tuple[Volume, Volume], tmp_path: Path
) -> None:
    write_phantom(tmp_path / "in", "m", *sound)
    write_phantom(tmp_path / "in", "n", *phantom(9))
    prepare(open_source(str(tmp_path / "in")), tmp_path / "cache", SETTINGS, 0)
    before = SliceCache.open(tmp_path / "cache").split
    write_phantom(tmp_path / "in", "a", sound[0][:, :, 2:], sound[1][:, :, 2:])
    report = prepare(open_source(str(tmp_path / "in")), tmp_path / "cache", SETTINGS, 0)
    assert [str(p) for p in report.failed] == ["a: the same scan as m, under another name"]
    assert SliceCache.open(tmp_path / "cache").split == before


def test_inspect_prints_a_table_and_writes_one_page(medaug: Medaug, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    series = [write_patient(scans, number) for number in (1, 2, 3)]
    (series[1] / "1-005.dcm").unlink()
    label = scans / "TCIA_pancreas_labels-02-05-2017" / "label0003.nii.gz"
    label.unlink()
    write_label(label, np.ascontiguousarray(miniature(3)[1][::-1]))
    made = medaug("inspect", scans)
    assert made.code == 1
    rows = made.out.splitlines()
    assert rows[0].split() == ["scan", "verdict", "size", "why"]
    assert [row.split()[:2] for row in rows[1:]] == [
        ["PANCREAS_0001", "ok"],
        ["PANCREAS_0002", "refused"],
        ["PANCREAS_0003", "refused"],
    ]
    assert "files: slice 5 of 16 is missing" in rows[2]
    assert "alignment: label lies better on the image mirrored left to right" in rows[3]
    page = (tmp_path / "medaug-quality.html").read_text()
    assert page.count('src="data:image/png;base64,') == 14
    assert "default-src 'none'" in page
    assert not re.search(r"<script|https?:|url\(|@import", page)
    assert page.count('class="badge refused"') == 2
    found = medaug("inspect", scans, "--out", "other.html", "--json")
    assert (tmp_path / "other.html").read_text() == page
    assert found.json["verdicts"]["PANCREAS_0003"]["alignment"] == "refused"
    assert found.json["cases"] == ["PANCREAS_0001"]
    assert medaug("inspect", scans, "--workers", 2, "--out", "third.html").code == 1
    assert (tmp_path / "third.html").read_text() == page


def test_no_page_goes_into_the_users_data(
    medaug: Medaug, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_patient(tmp_path / "scans", 1)
    inside = tmp_path / "scans" / "Pancreas-CT"
    monkeypatch.chdir(inside)
    before = sorted(tmp_path.rglob("*"))
    made = medaug("inspect", tmp_path / "scans")
    assert made.code == 0
    assert "no page is written into" in made.err
    assert sorted(tmp_path.rglob("*")) == before


def test_names_on_the_page_are_escaped(tmp_path: Path) -> None:
    from medaug.data.quality import Judged, render

    finding = Finding("<b>&\"'", "grid", "refused", "<script>alert(1)</script>")
    page = render("<i>", [Judged("<b>&\"'", (finding,))], {"<u>": "<s>"})
    for tag in ("<b>", "<script", "<i>", "<u>", "<s>"):
        assert tag not in page


def test_a_refused_scan_alone_leaves_no_cache_to_train_on(tmp_path: Path) -> None:
    write_series(tmp_path / "PANCREAS_0001" / "s", "PANCREAS_0001", miniature(1)[0] + 1024)
    write_label(tmp_path / "label0001.nii.gz", miniature(1)[1])
    with pytest.raises(DataError, match="write it in HU"):
        prepare(open_source(str(tmp_path)), tmp_path / "cache", SETTINGS, 0)
    assert not list((tmp_path / "cache" / "cases").glob("*"))


@pytest.mark.long
def test_real_scans_pass_and_their_couch_is_no_body(real_pancreas: Path) -> None:
    source = open_source(str(real_pancreas))
    for case in source.cases()[0]:
        image, labels, affine, *_ = load(case, source.labels)
        assert worst(battery(case.id, image, labels, affine)) == "ok"
        reduced = reduce(image, affine)
        beside = ndimage.generate_binary_structure(3, 1) & (np.arange(3) == 1)
        couch = (reduced.hu > -700) & ~ndimage.binary_dilation(reduced.body, beside)
        for z in range(0, image.shape[2], 10):
            depth = np.flatnonzero(reduced.body[:, :, z].any(axis=0))
            behind = np.flatnonzero(couch[:, :, z].any(axis=0))
            assert behind.size, "every slice shows the couch"
            assert behind.min() < depth.min(), "the couch lies behind the back"
            middle = reduced.body.shape[0] // 2
            assert not (reduced.body & couch)[:, :, z].any()
            couch_top = np.flatnonzero(couch[middle, :, z])
            assert not reduced.body[middle, couch_top, z].any()
        cropped = np.ascontiguousarray(image[12:, 9:-20, 7:-11])
        assert same_scan(likeness(reduced), likeness(reduce(cropped, affine)))
        for name, fault in (("shuffled", shuffled), ("mirrored", lambda v: v[:, ::-1])):
            assert worst(battery(case.id, np.ascontiguousarray(fault(image)), None, affine)) == (
                "refused"
            ), name
        assert said(image, np.ascontiguousarray(labels[::-1]), affine)["alignment"] == "refused"
        assert said(image[:, :, ::-1], None, affine)["orientation"] == "refused"


def test_other_real_scans_pass_and_the_odd_one_is_refused(real_data: Path) -> None:
    def verdicts(file: Path) -> tuple[str, str]:
        image, _, affine, *_ = load(Case("one", (file,)), {})
        found = battery("one", image, None, affine)
        return worst(found), " ".join(f.reason for f in found).strip()

    assert verdicts(real_data / "ct/totalsegmentator/example_ct.nii.gz") == ("ok", "")
    odd = verdicts(real_data / "ct/evalseg/370.nii.gz")
    assert odd[0] == "refused"
    assert "orientation in the header is wrong" in odd[1]
    whole = load(Case("a", (real_data / "ct/totalsegmentator/example_ct.nii.gz",)), {})
    part = next((real_data / "totalsegmentator-example").rglob("*ct*.nii.gz"))
    cut = load(Case("b", (part,)), {})
    seen = [likeness(reduce(image, affine)) for image, _, affine, *_ in (whole, cut)]
    assert same_scan(*seen)


def test_real_series_with_damage_are_refused_by_their_headers(
    real_data: Path, tmp_path: Path
) -> None:
    from medaug.data.formats.dicom_series import check_series

    odd = real_data / "ct"
    for folder, reason in (
        ("dcm_qa_ct/GE_tilt_variable_spacing", "mm apart"),
        ("dicom2nifti-failing/sliceincrement/001", "mm apart"),
        ("dicom2nifti-failing/notavolume/001", "at one position"),
        ("dicom2nifti-failing/gantrytilting/001", "the gantry was tilted by 14.0 degrees"),
    ):
        with pytest.raises(DataError, match=reason):
            check_series((odd / folder).glob("*.dcm"), None)
