"""Colour from the files to the files: every model, the commands, and other libraries' readers."""

import csv
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from PIL import Image

from medaug.core.codec import PictureCodec, from_dict
from medaug.core.config import resolve
from medaug.core.errors import ConfigError
from medaug.core.types import Sample
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
from medaug.data.feed.feed import Feed, codec_for
from medaug.data.sources.pictures import celeba
from medaug.models.base import Shape
from medaug.runtime.pictures import grid, preview_png
from medaug.synthesis.generator import Generator
from medaug.synthesis.writers import open_writer
from medaug.training.step import Players
from medaug.transforms.pairs import open_pairs
from tests.conftest import Medaug
from tests.support import photographs as made
from tests.support.small_models import PROGRESS, SMALL, batch, make

RGB = Shape(3, 3, 32, cond_dim=2, classes=2)


@pytest.mark.parametrize("known", SMALL, ids="-".join)
def test_every_model_carries_colour(known):
    model = make(*known, RGB)
    game = Players(model, 0, torch.device("cpu"), "float32")
    for progress in PROGRESS:
        for turn in model.turns(progress):
            torch.manual_seed(1)
            gradients = game.gradients(turn.play(batch(RGB)))
            assert all(
                g.isfinite().all() for own in gradients.values() for g in own if g is not None
            )
    header = {
        "kind": "image", "precision": "float32", "images": 0, "source": "",
        "classes": ["cat", "dog"], "config": {},
        "shape": vars(RGB), "affine": np.eye(4).tolist(),
    }  # fmt: skip
    generator = Generator(model, PictureCodec(3), header, "", "cpu")
    sample = next(iter(generator.generate(1, uncertainty=2)))
    assert (sample.image.shape, sample.image.dtype) == ((32, 32, 3), np.uint8)
    assert (sample.std.shape, sample.alternatives.shape) == ((32, 32, 3), (2, 32, 32, 3))
    assert sample.slices == 0
    assert np.ptp(sample.image.astype(int), -1).max() > 0


def test_the_codec_keeps_every_level_and_channel():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16)
    image = torch.stack([levels, levels.flip(1), 255 - levels], -1)
    codec = from_dict(PictureCodec(3).to_dict())
    x = codec.encode(image, None)
    assert (x.shape, codec.images, float(x.min()), float(x.max())) == ((1, 3, 16, 16), 3, -1, 1)
    assert torch.equal(x[:, 1], PictureCodec().encode(levels.flip(1))[:, 0])
    assert torch.equal(codec.decode(x)[0], image)
    assert PictureCodec().to_dict() == {"kind": "image"}
    assert from_dict({"kind": "image"}) == PictureCodec(1)


def sample(seed: int) -> Sample:
    draws = np.stack([made.scene(seed + k, 24, 24) for k in range(3)])
    std = draws.std(0, ddof=1).astype(np.float32)
    return Sample(7, draws[0], None, np.eye(4), draws, None, std, None)


def test_png_is_read_in_colour_by_another_library(tmp_path):
    case = sample(0)
    _, writer = open_writer("png", "image")
    row = {"kind": "image", "label": "", "index": "7", "spacing_x_mm": "1", "spacing_y_mm": "1"}
    for role, (name, content) in writer.files(case, "syn_000007", 6).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
        row[role] = name
    read = {r: sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / row[r])))
            for r in ("image", "std", "samples")}  # fmt: skip
    np.testing.assert_array_equal(read["image"], case.image)
    np.testing.assert_array_equal(read["samples"], np.concatenate(list(case.alternatives), 1))
    assert np.abs(read["std"] - case.std).max() <= 0.5
    again = writer.read(tmp_path, row)
    np.testing.assert_array_equal(again.image, case.image)
    assert again.std.shape == (24, 24, 3)


def test_sheets_show_colours(tmp_path):
    pictures = np.stack([made.scene(k, 24, 24) for k in range(5)])
    grid(pictures, None, tmp_path / "grid.png", window=(0.0, 255.0), across=3)
    shown = np.asarray(Image.open(tmp_path / "grid.png"))
    np.testing.assert_array_equal(shown[2:170:7, 2:170:7], pictures[0])
    (tmp_path / "p.png").write_bytes(preview_png([sample(k) for k in range(3)]))
    shown = np.asarray(Image.open(tmp_path / "p.png"))
    np.testing.assert_array_equal(shown[2:170:7, 2:170:7], sample(0).image)


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("faces") / "celeba"
    made.celeba(root, 48)
    return root


def test_from_files_to_files(medaug: Medaug, faces: Path):
    small = ["--size", 32, "--set", "model.width=8", "--set", "model.latent_dim=8",
             "--set", "train.batch=8", "--set", "model.prior=gaussian", "--device", "cpu",
             "--model", "vae"]  # fmt: skip
    told = ["--set", "data.attributes=[Smiling,Male]"]
    trained = medaug("train", "--data", faces, "--run", "run", "--images", 64, *small, *told)
    assert trained.code == 0, trained.err
    assert medaug("train", "--data", faces, "--run", "run", "--images", 64, *small, *told).code == 0
    draw = ["synthesize", "-n", 4, "--run", "run", "--device", "cpu"]
    for smiling in (0, 1):
        result = medaug(*draw, "--out", f"out{smiling}", "--condition", f"Smiling={smiling}")
        assert result.code == 0, result.err
    generator = Generator.from_pretrained("run", "cpu")
    assert (generator.kind, generator.picture, generator.channels) == ("image", (32, 32, 3), 3)
    samples = generator.generate(4, condition={"Smiling": 1})
    with Path("out1/manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, drawn in zip(rows, samples, strict=True):
        seen = sitk.GetArrayFromImage(sitk.ReadImage(f"out1/{row['image']}"))
        np.testing.assert_array_equal(seen, drawn.image)
        other = sitk.GetArrayFromImage(sitk.ReadImage(f"out0/{row['image']}"))
        assert not np.array_equal(seen, other)
    with Image.open("out1/preview.png") as shown:
        assert shown.mode == "RGB"
    for source in ("run", "out1"):
        with pytest.raises(ConfigError, match="RGB pictures"):
            open_pairs(source).pair(0, 0)
    refused = medaug(*draw, "--out", "x", "--format", "nifti")
    assert (refused.code, refused.err) == (
        2,
        "medaug: format nifti takes grey slices, and these samples are RGB; take png\n",
    )
    assert not Path("x").exists()
    look = ["explore", "run", "--rows", 2, "--steps", 3, "--device", "cpu", "--json"]
    drawn = medaug(*look, "--attribute", "Smiling")
    assert drawn.code == 0, drawn.err
    cache = SliceCache.open(Path("cache/celeba-32px"))
    smiling = sum(int(cache.cases[name].attributes[:, 3].sum()) for name in cache.split["train"])
    assert drawn.json["facts"] == {"slices_with": smiling, "slices_without": 32 - smiling}
    for what in ("--interpolate", "--reconstruct"):
        assert medaug(*look, what).code == 0
    wrong = medaug(*look, "--attribute", "Hat")
    assert (wrong.code, wrong.err) == (
        2,
        f"medaug: attribute 'Hat' is not in {Path('cache/celeba-32px').resolve()} "
        "(there: 5_o_Clock_Shadow, Eyeglasses, Male, Smiling)\n",
    )
    said = medaug("inspect", "cache/celeba-32px", "--json").json
    assert (said["slices"], said["attributes"]) == (48, list(made.ATTRIBUTES))
    assert medaug("inspect", faces, "--json").json["parts"] == {
        "train": 32, "heldout": 8, "validation": 8,
    }  # fmt: skip
    grey = medaug("prepare", faces, "--size", 32, "--colour", "grey", "--json")
    assert grey.json["cache"] == "cache/celeba-32px-grey"
    away = medaug(*look, "--reconstruct", "--cache", "cache/celeba-32px-grey")
    assert away.code == 2
    assert "its channels 1 differ from the model's 3" in away.err


def test_a_feed_tells_each_picture_its_own_attributes(faces: Path, tmp_path: Path):
    prepare(celeba.open_folder(faces), tmp_path / "c", CacheSettings(size=37), 0)
    cache = SliceCache.open(tmp_path / "c")
    data = resolve({"data": {"attributes": ["Smiling"], "masks": "none", "augment": None}}).data
    cpu = torch.device("cpu")
    feed = Feed(cache, data, codec_for(cache, data), seed=0, device=cpu)
    assert feed.shape == Shape(3, 3, 37, cond_dim=1)
    seen = feed.batch(0, 32)
    mouth = (seen.x[:, 2, 24, 18] + 1) * 127.5  # bright where the face smiles
    assert seen.cond is not None
    assert ((mouth > 170).float() == seen.cond[:, 0]).all()
    assert 0 < seen.cond.sum() < 32
    valid = Feed(cache, data, codec_for(cache, data), seed=0, device=cpu, split="validation")
    assert len(valid) == 8
