"""Stacks: volumes along a smooth path, the same whatever the order, judged and measured as such."""

import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from typer.testing import CliRunner

from medaug import Generator, journal
from medaug.checkpoint import read_header, read_tensors, write_tensors
from medaug.cli.app import app
from medaug.config import DataConfig, FilterConfig, resolve
from medaug.data.adjoining import adjoining
from medaug.data.cache import SliceCache
from medaug.data.continuity import continuity
from medaug.errors import ConfigError, OutputError, RefusedError
from medaug.filter import open_filter
from medaug.inspection import inspect
from medaug.job import SMOOTH_MM
from medaug.journal import case_name
from medaug.layouts.deformed import Deformed
from medaug.preview import preview_png
from medaug.redrawing import path
from medaug.splits import nnunet_splits
from medaug.stacks import Stacks
from medaug.synthesis import plan, synthesize
from medaug.train import fit
from medaug.transforms.pairs import open_pairs
from tests.conftest import TINY
from tests.test_writers import LPS_TO_RAS
from tests.toy import Toy
from tests.trees import tree

STACK = 20
"""More than the 16 slices that are decoded at once."""


@pytest.fixture(scope="module")
def generator(tiny_run: Path) -> Generator:
    return Generator.from_pretrained(tiny_run, "cpu")


@pytest.fixture(scope="module")
def out(generator: Generator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three stacks."""
    folder = tmp_path_factory.mktemp("stacks") / "out"
    report = synthesize(generator, 3, folder, uncertainty=2, stack=STACK)
    assert (report.written, report.total) == (3, 3)
    return folder


@pytest.fixture(scope="module")
def tall_run(phantom_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A moment of training on whole scans, told the height, with dropout."""
    data = {"height": True, "attributes": ["pancreas"], "require_label": False}
    config = resolve(TINY, {"data": data, "model": {"dropout": 0.3}, "train": {"images": 16}})
    run = tmp_path_factory.mktemp("tall") / "run"
    fit(config, SliceCache.open(phantom_cache), run, device="cpu")
    return run


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def between(images: np.ndarray) -> float:
    """Mean absolute difference of neighbours."""
    return float(np.abs(np.diff(images.astype(float), axis=0)).mean())


def test_two_libraries_read_a_volume_where_the_affine_puts_it(
    out: Path, generator: Generator
) -> None:
    (sample,) = Stacks(generator, STACK, SMOOTH_MM).block(1, uncertainty=2)
    arrays = {
        "imagesTr/syn_000001_0000": sample.image,
        "labelsTr/syn_000001": sample.label,
        "uncertainty/syn_000001_std": sample.std,
        "uncertainty/syn_000001_entropy": sample.entropy,
        "uncertainty/syn_000001_samples": sample.alternatives,
        "uncertainty/syn_000001_masks": sample.alternative_labels,
    }
    for name, array in arrays.items():
        assert array is not None
        file = out / f"{name}.nii.gz"
        one, other = nib.load(file), sitk.ReadImage(str(file))
        assert one.shape == other.GetSize() == array.shape[::-1]
        assert one.shape[2] == STACK
        assert np.array_equal(np.asarray(one.dataobj), array.T)
        assert np.array_equal(sitk.GetArrayFromImage(other), array)
        assert one.get_data_dtype() == array.dtype
        assert np.allclose(one.affine, sample.affine)
        assert np.allclose(one.get_qform(), one.get_sform())
        assert other.GetSpacing()[:3] == pytest.approx((12.5, 12.5, 9.5))
    for place in ((0, 0, 0), (31, 2, STACK - 1), (4, 17, 9)):
        image = sitk.ReadImage(str(out / "imagesTr/syn_000001_0000.nii.gz"))
        there = LPS_TO_RAS @ image.TransformIndexToPhysicalPoint(place)
        assert there == pytest.approx((sample.affine @ [*place, 1])[:3], abs=1e-3)
    assert sample.affine @ [15.5, 15.5, (STACK - 1) / 2, 1] == pytest.approx([0, 0, 0, 1])


def test_the_slices_follow_each_other(generator: Generator) -> None:
    (smooth,) = Stacks(generator, STACK, 60.0).block(0, uncertainty=3)
    (less,) = Stacks(generator, STACK, SMOOTH_MM).block(0, uncertainty=0)
    (rough,) = Stacks(generator, STACK, 0.0).block(0, uncertainty=0)
    assert between(smooth.image) < between(less.image) < between(rough.image)
    shuffled = np.random.default_rng(0).permutation(smooth.image)
    assert between(smooth.image) < 0.7 * between(shuffled)
    for other in smooth.alternatives:
        assert between(other) < 0.7 * between(np.random.default_rng(0).permutation(other))
    apart = between(np.stack([smooth.image, *smooth.alternatives])[:, STACK // 2])
    assert apart > 2 * between(smooth.image)
    assert np.allclose(smooth.std, smooth.alternatives.std(0, ddof=1), atol=1e-3)
    assert smooth.entropy is not None
    assert smooth.entropy.shape == smooth.image.shape


def test_the_noise_correlates_as_promised() -> None:
    drawn = path(12, (20000,), 3, 4, 2.0, "stack code")
    assert drawn.var(1) == pytest.approx(1, abs=0.05)
    for d in (1, 2, 4):
        correlation = float((drawn[5 - d // 2] * drawn[5 - d // 2 + d]).mean())
        assert correlation == pytest.approx(np.exp(-((d / 4) ** 2)), abs=0.05)
    assert not torch.equal(drawn, path(12, (20000,), 3, 4, 2.0, "stack alternative 0"))


def test_a_stack_depends_on_its_address_only(generator: Generator) -> None:
    stacks = Stacks(generator, STACK, SMOOTH_MM)
    (first,), (again,) = (stacks.block(2, uncertainty=k) for k in (2, 1))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.alternatives[:1], again.alternatives)
    others = [
        stacks.block(3, uncertainty=0),
        stacks.block(2, seed=1, uncertainty=0),
        Stacks(generator, STACK, 21.0).block(2, uncertainty=0),
        Stacks(generator, STACK + 1, SMOOTH_MM).block(2, uncertainty=0),
    ]
    for (other,) in others:
        assert not np.array_equal(other.image[:STACK], first.image)


def test_shards_steps_and_losses_end_in_the_same_folder(
    generator: Generator, out: Path, tmp_path: Path
) -> None:
    wishes: dict[str, Any] = {"uncertainty": 2, "stack": STACK}
    for number in (1, 0):
        report = synthesize(generator, 3, tmp_path / "shards", shard=(number, 2), **wishes)
        assert report.written == 2 - number
    assert tree(tmp_path / "shards") == tree(out)
    synthesize(generator, 1, tmp_path / "steps", **wishes)
    assert plan(generator, 3, tmp_path / "steps", **wishes).missing == 2
    synthesize(generator, 3, tmp_path / "steps", **wishes)
    (tmp_path / "steps" / "labelsTr" / "syn_000001.nii.gz").unlink()
    assert synthesize(generator, 3, tmp_path / "steps", **wishes).written == 1
    assert tree(tmp_path / "steps") == tree(out)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"stack": 8}, f"stack {STACK}, asked for stack 8"),
        ({"stack": 0}, f"stack {STACK}, asked for stack none"),
        ({"smooth_mm": 5.0}, "smooth_mm 10.0, asked for smooth_mm 5.0"),
    ],
)
def test_another_kind_of_case_does_not_join_the_folder(
    generator: Generator, out: Path, wish: dict[str, Any], message: str
) -> None:
    before = tree(out)
    with pytest.raises(OutputError, match=message):
        synthesize(generator, 4, out, **{"uncertainty": 2, "stack": STACK, **wish})
    assert tree(out) == before


def test_slices_take_no_notice_of_stacks(generator: Generator, tmp_path: Path) -> None:
    synthesize(generator, 1, tmp_path / "a", uncertainty=1)
    synthesize(generator, 1, tmp_path / "b", uncertainty=1, smooth_mm=3.0)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    (row,) = rows(tmp_path / "a")
    assert row["slices"] == row["spacing_z_mm"] == row["mask_volume_mm3"] == ""
    assert row["adjoining_hu"] == row["adjoining_dice"] == ""
    assert "adjoining_real" not in json.loads((tmp_path / "a" / "run.json").read_text())


def test_the_manifest_says_how_neighbours_differ(
    out: Path, generator: Generator, phantom_cache: Path
) -> None:
    (sample,) = Stacks(generator, STACK, SMOOTH_MM).block(0, uncertainty=0)
    assert sample.label is not None
    row = rows(out)[0]
    assert (row["slices"], float(row["spacing_z_mm"])) == (str(STACK), 9.5)
    voxels = int((sample.label > 0).sum())
    assert float(row["mask_volume_mm3"]) == pytest.approx(voxels * 12.5**2 * 9.5, abs=0.01)
    assert row["mask_area_mm2"] == ""
    found = continuity(sample.image, sample.label)
    assert float(row["adjoining_hu"]) == pytest.approx(np.mean(found.hu), abs=1e-3)
    assert float(row["adjoining_dice"]) == pytest.approx(np.nanmean(found.dice), abs=1e-3)
    run = json.loads((out / "run.json").read_text())
    real = adjoining(
        SliceCache.open(phantom_cache), DataConfig(size=32), {"pancreas": 1}, (-160.0, 240.0)
    )
    assert run["adjoining_real"] == real
    assert (run["settings"]["stack"], run["settings"]["smooth_mm"]) == (STACK, 10.0)


def test_continuity_of_simple_stacks() -> None:
    images = np.full((4, 16, 16), -160, np.int16)
    images[:, 4:12, 4:12] = 40
    images[1, 4:12, 4:12] = 70
    images[3] = -160
    labels = np.zeros((4, 16, 16), np.uint8)
    labels[:2, 4:6, 4:8] = 1
    labels[1, 4, 4:8] = 2
    found = continuity(images, labels)
    assert found.hu.tolist() == pytest.approx([30, 30, 200])
    assert found.dice[0] == pytest.approx(2 * 4 / 16)
    assert found.dice[1] == 0
    assert np.isnan(found.dice[2])
    assert np.isnan(continuity(images, None).dice).all()
    assert np.isnan(continuity(images[[3, 3]], None).hu).all()


def test_real_neighbours_are_those_that_training_uses(phantom_cache: Path) -> None:
    cache = SliceCache.open(phantom_cache)
    data = DataConfig(size=32)
    pairs, extents, hu = 0, [], []
    for name in cache.split["train"]:
        case = cache.cases[name]
        used = np.flatnonzero(case.label_pixels["pancreas"] >= data.min_label_pixels)
        extents.append((used[-1] - used[0]) * 9.5)
        assert case.label is not None
        for a, b in pairwise(used):
            if b == a + 1:
                pairs += 1
                both = np.asarray(case.image[a : b + 1]).clip(-160, 240)
                hu.append(continuity(both, None).hu[0])
    found = adjoining(cache, data, {"pancreas": 1}, (-160.0, 240.0))
    assert found["pairs"] == pairs
    assert found["extent_mm"] == pytest.approx(np.median(extents), abs=1e-3)
    assert found["hu"]["mean"] == pytest.approx(np.mean(hu), abs=0.01)
    assert 0 < found["dice"]["p5"] <= found["dice"]["mean"] <= found["dice"]["p95"] <= 1
    whole = adjoining(cache, data.model_copy(update={"require_label": False}), {}, (-160.0, 240.0))
    assert whole["pairs"] == 19 * len(cache.split["train"])
    assert whole["dice"] is None
    other = adjoining(cache, data, {"pancreas": 1}, (-1000.0, 1000.0))
    assert other["hu"]["mean"] != found["hu"]["mean"]


def test_heights_run_evenly_and_stay_within_the_scan(tall_run: Path) -> None:
    made = Generator.from_pretrained(tall_run, "cpu")
    extent = read_header(tall_run / "model.safetensors")["adjoining"]["extent_mm"]
    assert extent == pytest.approx(19 * 9.5)
    stacks = Stacks(made, 6, SMOOTH_MM)
    told: list[torch.Tensor] = []
    rows_of = made.rows

    def spy(values: Any, maps: Any = None) -> torch.Tensor | None:
        found = rows_of(values, maps)
        assert found is not None
        told.append(found)
        return found

    made.rows = spy  # type: ignore[method-assign]
    heights = []
    for height in (-1, 0.2, 0.99):
        (sample,) = stacks.block(0, uncertainty=1, condition={"height": height, "pancreas": 1})
        heights.append(torch.cat(told)[:, 1].numpy())
        assert (torch.cat(told)[:, 0] == 1).all()
        told.clear()
        assert sample.origin["condition"]["height"] == pytest.approx(heights[-1].mean(), abs=1e-6)
    step = 2 * 9.5 / extent
    for each in heights:
        assert np.allclose(np.diff(each), step, atol=1e-6)
    assert heights[0][0] == pytest.approx(-1)
    assert heights[1].mean() == pytest.approx(0.2)
    assert heights[2][-1] == pytest.approx(1)
    Stacks(made, 40, SMOOTH_MM).block(0, uncertainty=0)
    all_over = torch.cat(told)[:, 1].numpy()
    assert len(all_over) == 40
    assert (all_over.min(), all_over.max()) == (-1, 1)
    assert (np.diff(all_over) >= 0).all()


def test_a_dropped_unit_is_dropped_in_all_slices(tall_run: Path) -> None:
    stacks = Stacks(Generator.from_pretrained(tall_run, "cpu"), STACK, 1e6)
    (sample,) = stacks.block(0, uncertainty=2, condition={"height": 0}, source="network")
    (again,) = stacks.block(0, uncertainty=2, condition={"height": 0}, source="network")
    assert np.array_equal(sample.alternatives, again.alternatives)
    assert not np.array_equal(sample.alternatives[0], sample.alternatives[1])
    # codes are all but the same, so what is left between neighbours comes from the height
    for other in sample.alternatives:
        assert between(other) < 2 * between(sample.image) + 1
    with pytest.raises(ConfigError, match="uncertainty source mask needs a run"):
        stacks.block(0, uncertainty=2, source="mask")


class Strict:
    """Refuses the first draws of a stack, and remembers what it was shown."""

    fingerprint = "f" * 64

    def __init__(self, refuse: int) -> None:
        self.refuse, self.seen = refuse, list[np.ndarray]()

    def judge(self, image: np.ndarray, label: np.ndarray | None) -> list[str]:
        assert image.ndim == 4
        assert label is not None
        assert label.shape == image.shape
        self.seen.append(image[0])
        return ["hu" if len(self.seen) <= self.refuse else ""]


def test_a_refused_stack_is_drawn_anew(generator: Generator, tmp_path: Path) -> None:
    strict = Strict(2)
    report = synthesize(generator, 1, tmp_path / "out", uncertainty=0, stack=5, filter=strict)
    assert report.refused == {"hu": 2}
    assert len(strict.seen) == 3
    (row,) = rows(tmp_path / "out")
    assert row["refused"] == "hu;hu"
    kept = np.asarray(nib.load(tmp_path / "out" / row["image"]).dataobj).T
    assert np.array_equal(kept, strict.seen[2])
    assert not np.array_equal(strict.seen[0], strict.seen[1])
    (plain,) = Stacks(generator, 5, SMOOTH_MM).block(0, uncertainty=0)
    assert np.array_equal(plain.image, strict.seen[0])
    with pytest.raises(RefusedError, match="sample 0 was refused 64 times, mostly for 'hu'"):
        Stacks(generator, 2, SMOOTH_MM).block(0, uncertainty=0, judge=Strict(99).judge)


def test_the_filter_judges_every_slice_of_a_stack(phantom_cache: Path, tmp_path: Path) -> None:
    cache, data = SliceCache.open(phantom_cache), DataConfig(size=32)
    quick = FilterConfig(segmenter_images=8, folds=2, copy_share=None, agreement_margin=None)
    place = tmp_path / "filter.safetensors"
    filter = open_filter(place, quick, cache=cache, data=data)
    case = cache.cases[cache.split["train"][0]]
    assert case.label is not None
    used = np.flatnonzero(case.label_pixels["pancreas"] >= data.min_label_pixels)
    good = [i for i in used if filter.judge(case.image[i : i + 1], case.label[i : i + 1]) == [""]]
    image, label = (np.repeat(np.asarray(a[good[:1]]), 10, 0) for a in (case.image, case.label))
    bad = label.copy()
    bad[:2] = 0
    worse = bad.copy()
    worse[2] = 0
    assert filter.judge(np.stack([image] * 3), np.stack([label, bad, worse])) == ["", "", "empty"]
    assert filter.judge(image, worse) == ["empty"] * 3 + [""] * 7
    none = open_filter(place, quick.model_copy(update={"stack_share": 0.0}))
    assert none.judge(image[None], bad[None]) == ["empty"]
    assert none.fingerprint != filter.fingerprint
    close = open_filter(place, quick.model_copy(update={"copy_share": 0.5, "stack_share": 1.0}))
    assert close.judge(image[None], worse[None]) == ["copy"]


@pytest.fixture
def refusals(generator: Generator, tall_run: Path, tmp_path: Path) -> Iterator[Any]:
    def refused(made: Any, **options: Any) -> str:
        with pytest.raises(ConfigError) as error:
            synthesize(made, 2, tmp_path / "none", **{"uncertainty": 0, **options})
        assert not (tmp_path / "none").exists()
        return str(error.value)

    return refused


def test_what_cannot_be_stacked_is_named(
    refusals: Any, generator: Generator, tall_run: Path, phantom_cache: Path, tmp_path: Path
) -> None:
    assert refusals(generator, stack=1) == "stack must be 0 for slices, or at least 2, got 1"
    assert refusals(generator, stack=-2) == "stack must be 0 for slices, or at least 2, got -2"
    assert refusals(generator, stack=4, smooth_mm=-1) == "smooth_mm must be 0 or more, got -1"
    nan = float("nan")
    assert refusals(generator, stack=4, smooth_mm=nan) == "smooth_mm must be 0 or more, got nan"
    for form in ("png", "dicom"):
        assert refusals(generator, stack=4, format=form) == (
            f"stack: a volume in one file goes with format nifti, got {form}"
        )
    assert "the real cases of with_real are slices" in refusals(
        generator, stack=4, with_real=phantom_cache
    )
    assert refusals(Toy(), stack=4) == "stack: a medaug.Generator is wanted, got Toy"
    tensors, header, _ = read_tensors(tall_run / "model.safetensors")
    del header["adjoining"]
    write_tensors(tmp_path / "old.safetensors", tensors, header)
    old = Generator.from_pretrained(tmp_path / "old.safetensors", "cpu")
    assert "do not say how many mm the scans extend; train anew" in refusals(old, stack=4)


def test_weights_from_before_give_stacks_without_real_figures(
    tiny_run: Path, tmp_path: Path
) -> None:
    tensors, header, _ = read_tensors(tiny_run / "model.safetensors")
    del header["adjoining"]
    write_tensors(tmp_path / "old.safetensors", tensors, header)
    old = Generator.from_pretrained(tmp_path / "old.safetensors", "cpu")
    synthesize(old, 1, tmp_path / "out", uncertainty=0, stack=3)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["adjoining_real"] is None


def test_a_folder_of_stacks_is_sound_and_previewed(out: Path, generator: Generator) -> None:
    assert inspect(out)["problems"] == []
    assert inspect(out)["settings"]["stack"] == STACK
    stacks = Stacks(generator, STACK, SMOOTH_MM)
    samples = [stacks.block(i, uncertainty=2)[0] for i in range(3)]
    middle = [sample.at(STACK // 2) for sample in samples]
    assert (out / "preview.png").read_bytes() == preview_png(samples) == preview_png(middle)
    assert len(journal.read(out)) == 3


def test_stacks_beside_scans_of_the_users_own_judge_nothing(out: Path, tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    shutil.copytree(out, folder)
    for name in ("mine_1", "mine_2"):
        shutil.copy(
            out / "imagesTr" / "syn_000000_0000.nii.gz", folder / "imagesTr" / f"{name}_0000.nii.gz"
        )
        shutil.copy(out / "labelsTr" / "syn_000000.nii.gz", folder / "labelsTr" / f"{name}.nii.gz")
    nnunet_splits(folder, folds=2)
    for fold in json.loads((folder / "splits_final.json").read_text()):
        assert {case_name(i) for i in range(3)} < set(fold["train"])
        assert len(fold["val"]) == 1


def test_a_slice_of_a_stack_lies_where_the_stack_says(generator: Generator) -> None:
    (stack,) = Stacks(generator, 4, SMOOTH_MM).block(0, uncertainty=2)
    one = stack.at(3)
    assert (stack.slices, one.slices) == (4, 0)
    assert one.image.shape == (32, 32)
    assert one.alternatives.shape == (2, 32, 32)
    assert np.array_equal(one.alternatives[1], stack.alternatives[1, 3])
    assert one.affine @ [5, 6, 0, 1] == pytest.approx(stack.affine @ [5, 6, 3, 1])
    assert replace(stack, label=None, entropy=None).at(0).label is None


def test_transforms_put_a_volume_in_the_place_of_a_volume(out: Path) -> None:
    import torchio as tio

    from medaug.torchio import RandomSynthesis

    subject = tio.Subject(
        ct=tio.ScalarImage(tensor=torch.zeros(1, 32, 32, STACK)),
        organ=tio.LabelMap(tensor=torch.zeros(1, 32, 32, STACK)),
    )
    drawn = RandomSynthesis(out, p=1.0)(subject)
    case = drawn.history[-1].index
    written = nib.load(out / "imagesTr" / f"syn_{case:06d}_0000.nii.gz")
    assert np.array_equal(drawn.ct.data[0].numpy(), np.asarray(written.dataobj))
    assert np.allclose(drawn.ct.affine, written.affine)
    mask = nib.load(out / "labelsTr" / f"syn_{case:06d}.nii.gz")
    assert np.array_equal(drawn.organ.data[0].numpy(), np.asarray(mask.dataobj))
    assert open_pairs(out).pair(case, 0).slices == STACK


def test_a_slice_of_monai_refuses_a_volume(out: Path) -> None:
    from medaug.monai import RandSynthesisd

    draw = RandSynthesisd(["ct", "organ"], out, prob=1.0)
    flat = {"ct": torch.zeros(1, 32, 32), "organ": torch.zeros(1, 32, 32)}
    with pytest.raises(ConfigError, match=f"the item is a slice, and .* a stack of {STACK}"):
        draw(flat)
    deep = {name: torch.zeros(1, 32, 32, 3) for name in flat}
    assert draw(deep)["ct"].shape == (1, 32, 32, STACK)


def test_given_masks_are_consecutive_slices_of_one_scan(
    layout_run: Path, phantom_cache: Path
) -> None:
    plain = Generator.from_pretrained(layout_run, "cpu", mask_strength=0.0)
    cache, stacks = SliceCache.open(phantom_cache), Stacks(plain, 3, SMOOTH_MM)
    least = plain.settings.data.min_label_pixels
    found = set()
    for index in range(6):
        (sample,) = stacks.block(index, uncertainty=0)
        assert sample.label is not None
        assert sample.origin["mask"] == "a real layout deformed at strength 0"
        for name in cache.split["train"]:
            case = cache.cases[name]
            assert case.label is not None
            for z in range(len(case.label) - 2):
                part = (case.label[z : z + 3] == 1).astype(np.uint8)
                if (part.sum((1, 2)) >= least).all() and np.array_equal(part, sample.label):
                    found.add((index, name, z))
    assert {index for index, _, _ in found} == set(range(6))
    assert len({(name, z) for _, name, z in found}) > 3


def test_one_deformation_moves_a_whole_stack(layout_run: Path) -> None:
    stacks = Stacks(Generator.from_pretrained(layout_run, "cpu"), 4, SMOOTH_MM)
    assert stacks.layouts is not None
    same = Deformed(stacks.layouts.real[:1].repeat(9, 1, 1), 1.0, [(9, 9.5)])
    maps = same.stack(0, 0, 5, 9.5)
    assert torch.equal(maps, maps[:1].expand(5, -1, -1))
    assert not torch.equal(maps[0], same.real[0])
    assert not torch.equal(maps, same.stack(0, 1, 5, 9.5))
    assert not torch.equal(maps, same.stack(0, 0, 5, 9.5, 1))
    for source, strong in (("latent", False), ("mask", True), ("network", False)):
        (sample,) = stacks.block(0, uncertainty=6, source=source)
        assert sample.alternative_labels is not None
        moved = [not np.array_equal(mask, sample.label) for mask in sample.alternative_labels]
        assert any(moved) == strong
        assert not np.array_equal(sample.alternatives[0], sample.image)


def test_slices_of_another_distance_are_the_nearest() -> None:
    maps = torch.arange(12, dtype=torch.uint8).view(-1, 1, 1).expand(12, 4, 4).contiguous()
    source = Deformed(maps, 0.0, [(8, 2.0), (4, 5.0)])
    tops = {tuple(source.stack(0, i, 3, 5.0)[:, 0, 0].tolist()) for i in range(5)}
    assert tops == {(0, 2, 5), (1, 3, 6), (2, 4, 7), (8, 9, 10), (9, 10, 11)}
    with pytest.raises(ConfigError) as error:
        source.starts(5, 5.0)
    assert str(error.value) == (
        "stack: 5 slices 5 mm apart extend 20 mm, and the longest stretch of real masks 15 mm; "
        "ask for fewer slices"
    )


def test_masks_that_do_not_continue_each_other_are_refused(
    refusals: Any, layout_run: Path, out: Path, masks_run: Path
) -> None:
    own = Generator.from_pretrained(layout_run, "cpu", masks=masks_run)
    assert refusals(own, stack=3) == (
        "stack: the masks of a stack must continue each other, as those of a slice cache do; "
        "leave --masks out, or name a cache"
    )
    given = Generator.from_pretrained(layout_run, "cpu")
    assert "the longest stretch of real masks" in refusals(given, stack=200)
    alone = Generator.from_pretrained(layout_run / "model.safetensors", "cpu")
    assert "name masks with --masks" in refusals(alone, stack=3)


def test_given_masks_make_the_same_folder_in_shards(layout_run: Path, tmp_path: Path) -> None:
    wishes: dict[str, Any] = {"uncertainty": 2, "stack": 3, "source": "mask"}
    generator = Generator.from_pretrained(layout_run, "cpu")
    for number in (1, 0):
        synthesize(generator, 4, tmp_path / "shards", shard=(number, 2), **wishes)
    synthesize(generator, 4, tmp_path / "once", **wishes)
    assert tree(tmp_path / "shards") == tree(tmp_path / "once")


def test_the_command_takes_both_options(tiny_run: Path, out: Path, tmp_path: Path) -> None:
    words = ["synthesize", "-n", "1", "--run", str(tiny_run), "--out", str(tmp_path / "out")]
    words += ["--stack", "4", "--smooth-mm", "7.5", "--uncertainty", "0", "--no-filter", "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    settings = json.loads((tmp_path / "out" / "run.json").read_text())["settings"]
    assert (settings["stack"], settings["smooth_mm"]) == (4, 7.5)
    assert nib.load(tmp_path / "out/imagesTr/syn_000000_0000.nii.gz").shape == (32, 32, 4)


def test_ignore_marks_voxels_of_a_stack(generator: Generator, tmp_path: Path) -> None:
    synthesize(generator, 1, tmp_path, uncertainty=4, stack=3, ignore_above="q50")
    label = np.asarray(nib.load(tmp_path / "labelsTr/syn_000000.nii.gz").dataobj)
    entropy = np.asarray(nib.load(tmp_path / "uncertainty/syn_000000_entropy.nii.gz").dataobj)
    assert label.shape == (32, 32, 3)
    bound = np.quantile(entropy[entropy > 0], 0.5)
    assert np.array_equal(label == 2, entropy >= bound)
