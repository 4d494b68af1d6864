"""Modes vary and redraw: a case's own voxels, whatever its orientation, size and spacing."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchio as tio
from scipy import ndimage

from medaug.core.codec import CTCodec
from medaug.core.config import resolve
from medaug.core.errors import ConfigError
from medaug.core.modality import CT
from medaug.data.cache.prepare import SliceCache
from medaug.monai import RandSynthesisd
from medaug.synthesis.generator import Generator
from medaug.synthesis.synthesize import synthesize
from medaug.torchio import RandomSynthesis, Synthesis
from medaug.training.loop import fit
from medaug.transforms.torchio1 import arrays
from medaug.transforms.variation import Address, redraw
from tests.conftest import TINY
from tests.support.small_models import LAYOUT, make
from tests.support.toy import Toy
from tests.transforms.test_monai import KEYS
from tests.transforms.test_torchio import same

SHAPE, SPACING = (70, 60, 5), (5.0, 6.0, 9.0)


def subject(shape: tuple[int, int, int] = SHAPE) -> tio.Subject:
    """A round body of fat and organ, all within the model's window of HU but the air."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    hu = np.full(shape, -1000.0)
    body = (x / 0.8) ** 2 + (y / 0.7) ** 2 < 1
    hu[body] = (-60 + 50 * x + 30 * y + 10 * z)[body]
    organ = ((x - 0.25) / 0.3) ** 2 + (y / 0.25) ** 2 < 1
    hu[organ] = 120
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = -170, -180, 30
    return tio.Subject(
        ct=tio.ScalarImage(tensor=torch.from_numpy(hu)[None].float(), affine=affine),
        organ=tio.LabelMap(tensor=torch.from_numpy(organ.astype(np.uint8))[None], affine=affine),
    )


def given_masks() -> Generator:
    """A model that is given its masks, with the weights it is born with."""
    torch.manual_seed(0)
    model = make("spatial_vaegan", "modern", LAYOUT)
    codec = CTCodec((-160.0, 240.0), {"pancreas": 1}, "layout", dict(list(CT.tissues.items())[:3]))
    config = {"data": {"masks": "layout", "size": 32}}
    header = {
        "kind": "ct", "precision": "float32", "images": 0, "source": "", "classes": [],
        "config": config, "shape": vars(LAYOUT), "affine": np.diag([12.5, 12.5, 9, 1]).tolist(),
    }  # fmt: skip
    return Generator(model, codec, header, "", "cpu")


def test_a_real_run_varies_a_volume(tiny_run: Path) -> None:
    plain = subject()
    cases = [Synthesis(tiny_run, n, mode="vary", strength=1)(plain) for n in (1, 2)]
    assert same(Synthesis(tiny_run, 1, mode="vary", strength=1)(plain), cases[0])
    assert not same(*cases)
    body = plain["ct"].data > -1000
    little = Synthesis(tiny_run, 1, mode="vary", strength=0.01)(plain)
    near = Synthesis(tiny_run, 2, mode="vary", strength=0.01)(plain)
    apart = [(a["ct"].data - b["ct"].data)[body].abs().mean() for a, b in (cases, (little, near))]
    assert apart[0] > 2 * apart[1]
    for case in cases:
        assert not torch.equal(case["ct"].data, plain["ct"].data)
        assert np.array_equal(case["ct"].affine, plain["ct"].affine)
        assert case["ct"].shape == case["organ"].shape == plain["ct"].shape
        assert set(case["organ"].data.unique().tolist()) <= {0, 1}


def test_slices_resemble_each_other_over_the_length_asked_for(tiny_run: Path) -> None:
    plain = subject((70, 60, 12))
    step = np.diff(plain["ct"].data[0].numpy(), axis=2)
    jumps = {}
    for smooth_mm in (0.0, 45.0):
        case = Synthesis(tiny_run, 3, mode="vary", strength=1, smooth_mm=smooth_mm)(plain)
        jumps[smooth_mm] = np.abs(np.diff(case["ct"].data[0].numpy(), axis=2) - step).mean()
    assert jumps[45.0] < 0.6 * jumps[0.0]


def test_a_model_redraws_the_image_of_a_mask(tiny_run: Path) -> None:
    plain = subject()
    mine = arrays(plain, "ct", "organ")
    model = given_masks()
    first, other = (redraw(mine, model, Address(0, index, 20)) for index in (1, 2))
    again = redraw(mine, model, Address(0, 1, 20))
    assert np.array_equal(first.image, again.image)
    assert not np.array_equal(first.image, other.image)
    assert not np.array_equal(first.image, mine.image)
    assert np.array_equal(first.label, mine.label)
    assert np.array_equal(first.affine, mine.affine)
    assert first.image.shape == mine.image.shape
    with pytest.raises(ConfigError, match="redraw needs a run that is given its masks"):
        RandomSynthesis(tiny_run, p=1, mode="redraw")(plain)
    assert same(plain, subject())


def test_a_run_without_an_encoder_cannot_vary(phantom_cache: Path, tmp_path: Path) -> None:
    model = {"name": "wgan_gp", "preset": "modern", "width": 8}
    run = tmp_path / "wgan"
    config = {**TINY, "model": model, "train": {**TINY["train"], "images": 16}}
    fit(resolve(config), SliceCache.open(phantom_cache), run, device="cpu")
    with pytest.raises(ConfigError, match="wgan_gp has no encoder; these have one: "):
        RandomSynthesis(run, p=1, mode="vary")(subject())


class Called:
    """What a model was asked for; it gives back what it was given, 10 HU brighter."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def vary(
        self,
        images: np.ndarray,
        labels: np.ndarray | None = None,
        strength: float = 0.5,
        **address: Any,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        self.asked.append({"images": images, "labels": labels, "strength": strength, **address})
        return (images + 10).astype(np.int16), labels

    def redraw(
        self, labels: np.ndarray, *, images: np.ndarray | None = None, **address: Any
    ) -> np.ndarray:
        self.asked.append({"images": images, "labels": labels, **address})
        assert images is not None
        return (images + 10).astype(np.int16)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> Called:
    """The geometry alone: the model is left out, so that what comes back is known."""
    made = Called()
    for name in ("vary", "redraw"):
        asked = getattr(made, name)
        monkeypatch.setattr(
            Generator, name, lambda self, *a, _f=asked, **k: _f(*a, **k), raising=False
        )
    return made


@pytest.mark.parametrize("mode", ["vary", "redraw"])
def test_what_the_model_draws_lands_where_it_was(tiny_run: Path, called: Called, mode: Any) -> None:
    plain = subject()
    before = copy.deepcopy(plain)
    case = Synthesis(tiny_run, 7, mode=mode, seed=3, smooth_mm=18, strength=0.25)(plain)
    (asked,) = called.asked
    assert asked["images"].shape == asked["labels"].shape == (5, 32, 32)
    assert asked["images"].dtype == np.int16
    assert asked["labels"].dtype == np.uint8
    assert (asked["seed"], asked["index"], asked["smooth"]) == (3, 7, 2.0)
    assert asked.get("strength", 0.25) == 0.25
    assert same(plain, before)
    old, new = plain["ct"].data[0].numpy(), case["ct"].data[0].numpy()
    assert new.shape == SHAPE
    assert np.array_equal(case["ct"].affine, plain["ct"].affine)
    assert np.array_equal(new[old == -1000], old[old == -1000])
    organ = plain["organ"].data[0].numpy() == 1
    square = np.ones((3, 3, 1))
    deep = ndimage.binary_erosion(organ, square, 6)
    deep |= ndimage.binary_erosion((old > -1000) & ~organ, square, 6)
    assert deep.sum() > 1000
    assert np.median(new[deep] - old[deep]) == pytest.approx(10, abs=1)
    assert np.abs(new[deep] - old[deep] - 10).max() < 6
    kept = case["organ"].data[0].numpy() == 1
    if mode == "redraw":
        assert np.array_equal(kept, organ)
    else:
        assert 2 * (kept & organ).sum() / (kept.sum() + organ.sum()) > 0.9
    assert case["organ"].data.dtype == torch.uint8


@pytest.mark.parametrize("codes", ["LPS", "SAR", "PIL"])
def test_orientation_makes_no_difference(tiny_run: Path, called: Called, codes: str) -> None:
    turn = tio.ToOrientation(codes)
    plain = subject()
    step = Synthesis(tiny_run, 1, mode="vary")
    straight, turned = step(plain), step(turn(plain))
    assert np.array_equal(called.asked[0]["images"], called.asked[1]["images"])
    assert turned["ct"].shape != plain["ct"].shape or codes == "LPS"
    back = tio.ToOrientation("RAS")(turned)
    assert np.allclose(back["ct"].data, straight["ct"].data, atol=1e-3)
    assert torch.equal(back["organ"].data, straight["organ"].data)
    assert np.allclose(back["ct"].affine, plain["ct"].affine)


def test_outside_the_field_of_view_the_case_stays(tiny_run: Path, called: Called) -> None:
    plain = subject((140, 60, 2))
    case = Synthesis(tiny_run, 1, mode="vary")(plain)
    changed = np.flatnonzero((case["ct"].data != plain["ct"].data)[0].any(-1).any(-1))
    assert np.ptp(changed) + 1 <= 81
    assert 60 < np.mean(changed) < 80


def test_integers_stay_integers(tiny_run: Path, called: Called) -> None:
    plain = subject()
    plain["ct"].set_data(plain["ct"].data.short())
    case = Synthesis(tiny_run, 1, mode="vary")(plain)
    assert case["ct"].data.dtype == torch.int16


def test_random_draws_are_named_and_replayed(tiny_run: Path, called: Called) -> None:
    transform = RandomSynthesis(tiny_run, 1, mode="vary", strength=0.3, smooth_mm=0)
    case = transform(subject())
    (step,) = case.get_applied_transforms()
    assert (step.mode, step.strength, step.smooth_mm) == ("vary", 0.3, 0)
    assert same(step(subject()), case)
    assert called.asked[0]["index"] == called.asked[1]["index"] == step.index
    transform(subject())
    assert called.asked[2]["index"] != step.index


def test_monai_varies_too(tiny_run: Path, called: Called) -> None:
    from monai.data import MetaTensor

    plain = subject()
    item = {
        "image": MetaTensor(plain["ct"].data, torch.from_numpy(plain["ct"].affine)),
        "label": MetaTensor(plain["organ"].data, torch.from_numpy(plain["organ"].affine)),
    }
    transform = RandSynthesisd(KEYS, tiny_run, 1.0, mode="vary").set_random_state(2)
    case = transform(item)
    expected = Synthesis(tiny_run, transform.index, mode="vary")(plain)
    assert torch.equal(case["image"].as_tensor(), expected["ct"].data)
    assert torch.equal(case["label"].as_tensor(), expected["organ"].data)
    assert torch.allclose(case["image"].affine, item["image"].affine)


def test_what_cannot_be_altered_is_refused(tiny_run: Path, tmp_path: Path, called: Called) -> None:
    synthesize(Toy(), 2, tmp_path / "nifti", uncertainty=1)
    for made in (RandomSynthesis, lambda s, **k: RandSynthesisd(KEYS, s, **k)):
        with pytest.raises(ConfigError) as error:
            made(tmp_path / "nifti", mode="vary")
        assert str(error.value) == (
            f"{tmp_path / 'nifti'}: mode 'vary' draws with a model; give a run folder or its "
            ".safetensors file, not a written folder"
        )
        with pytest.raises(ConfigError, match="mode must be replace, vary or redraw, got 'mix'"):
            made(tiny_run, mode="mix")
        with pytest.raises(ConfigError, match="strength must be above 0 and at most 1, got 2"):
            made(tiny_run, mode="vary", strength=2)
        with pytest.raises(ConfigError, match="smooth_mm must not be negative, got -1"):
            made(tiny_run, mode="vary", smooth_mm=-1)
    plain = subject()
    unknown = subject()
    unknown["organ"].data[0, 30, 30, 2] = 9
    two = tio.Subject(ct=tio.ScalarImage(tensor=torch.zeros(2, 9, 9, 2)), organ=plain["organ"])
    two["organ"] = tio.LabelMap(tensor=torch.zeros(1, 9, 9, 2))
    bare = tio.Subject(ct=plain["ct"])
    for case, mode, message in (
        (unknown, "vary", r"the label map holds the ids \[9\], which this run does not know"),
        (unknown, "redraw", r"known: pancreas = 1\)"),
        (two, "vary", "takes one channel of CT and a run trained on CT, got 2 channels"),
        (bare, "vary", r"this run draws label maps \(pancreas\); the case has none"),
        (bare, "redraw", "needs a label map, and the case has none"),
    ):
        before = copy.deepcopy(case)
        with pytest.raises(ConfigError, match=message):
            Synthesis(tiny_run, 1, mode=mode, copy=False)(case)
        assert torch.equal(case["ct"].data, before["ct"].data)
        assert np.array_equal(case["ct"].affine, before["ct"].affine)
