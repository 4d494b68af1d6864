"""Stacks: volumes along a smooth path, the same whatever the order, judged and measured as such."""

import json
import shutil
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

from medaug import Generator
from medaug.cli.console import app
from medaug.cli.describe import describe
from medaug.core.config import DataConfig
from medaug.core.errors import ConfigError, OutputError
from medaug.data.cache.prepare import SliceCache
from medaug.data.feed.continuity import adjoining, continuity
from medaug.runtime.pictures import preview_png
from medaug.synthesis import journal
from medaug.synthesis.manifest import case_name
from medaug.synthesis.nnunet_splits import nnunet_splits
from medaug.synthesis.request import SMOOTH_MM
from medaug.synthesis.stacks import Stacks
from medaug.synthesis.synthesize import plan, synthesize
from medaug.synthesis.variation import path
from medaug.training.checkpoint import read_tensors, write_tensors
from medaug.transforms.pairs import open_pairs
from tests.support.stacked import STACK, between, rows
from tests.support.trees import tree
from tests.synthesis.test_writers import LPS_TO_RAS


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
    assert describe(out)["problems"] == []
    assert describe(out)["settings"]["stack"] == STACK
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
