"""Codes as a tool: closed forms, ends of walks, and sheets of pictures of the right size."""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from medaug.core import registry
from medaug.core.config import resolve
from medaug.core.errors import ConfigError
from medaug.data import open_source
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
from medaug.data.feed.feed import Feed, codec_for
from medaug.evaluation import latent as explore
from medaug.models.base import Model, OptimizerSettings, Turn
from medaug.runtime.pictures import CELL_PX, GAP_PX
from medaug.synthesis.generator import Generator
from tests.conftest import TINY

SIDE = 16


class Blank(Model):
    """Draws its code, one pixel a cell, with the place of the told class lit."""

    noise_shape: tuple[int, ...] = (1, 4, 4)

    def __init__(self, listens: bool = True) -> None:
        super().__init__()
        self.listens = listens

    def players(self) -> dict[str, tuple[nn.Module, ...]]:
        return {}

    def turns(self, progress: float) -> Sequence[Turn]:
        return []

    def optim(self, progress: float) -> dict[str, OptimizerSettings]:
        return {}

    def prior(self, noise: Tensor, cond: Tensor | None) -> Tensor:
        return 0.1 * noise - 0.8

    def decode(self, z: Tensor, cond: Tensor | None) -> Tensor:
        z = z.reshape(-1, 1, 4, 4)
        if cond is not None and self.listens:
            lit = nn.functional.pad(cond, (0, 6)).reshape(-1, 1, 4, 4)
            z = z * (1 - lit) + lit
        return nn.functional.interpolate(z, size=SIDE)


class Pooled(Blank):
    """The same with an encoder: means over cells, as a grid."""

    def encode(self, x: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        mu = nn.functional.adaptive_avg_pool2d(x, 4)
        return mu, torch.zeros_like(mu)


class Flat(Pooled):
    """The same, as a vector."""

    noise_shape = (16,)

    def encode(self, x: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        mu, logvar = super().encode(x, cond)
        return mu.flatten(1), logvar.flatten(1)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> SliceCache:
    """Ten classes, told apart by the one cell of 4 x 4 that is lit."""
    root = tmp_path_factory.mktemp("digits")
    rng = np.random.default_rng(0)
    for part, n in (("train", 60), ("t10k", 30)):
        labels = (np.arange(n) % 10).astype(np.uint8)
        cells = rng.integers(0, 40, (n, 16)).astype(np.uint8)
        cells[np.arange(n), labels] = 255
        images = cells.reshape(n, 4, 4).repeat(4, 1).repeat(4, 2)
        header = struct.pack(">IIII", 0x803, n, SIDE, SIDE)
        (root / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = struct.pack(">II", 0x801, n)
        (root / f"{part}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    prepare(open_source(str(root)), root / "cache", CacheSettings(size=None))
    return SliceCache.open(root / "cache")


def generator_of(model: Model, cache: SliceCache, **data: Any) -> Generator:
    config = resolve({"data": {"masks": "none", "augment": None, **data}})
    codec = codec_for(cache, config.data)
    feed = Feed(cache, config.data, codec, seed=0, device=torch.device("cpu"))
    header = {
        "kind": cache.kind,
        "precision": "float32",
        "images": 0,
        "config": config.dump(),
        "shape": vars(feed.shape),
        "classes": list(feed.condition.classes),
        "condition": list(feed.condition.names),
        "conditions": feed.condition.rows,
        "affine": np.eye(4).tolist(),
        "source": cache.source,
    }
    return Generator(model, codec, header, "0" * 64, "cpu")


def test_an_attributes_vector_is_the_difference_of_the_means() -> None:
    codes = torch.tensor([[[1.0, 0.0]], [[3.0, 2.0]], [[0.0, 5.0]]])
    vector = explore.attribute_vector(codes, torch.tensor([True, True, False]))
    assert torch.equal(vector, torch.tensor([[2.0, -4.0]]))


@pytest.mark.parametrize(("present", "counts"), [(True, "3 with and 0"), (False, "0 with and 3")])
def test_an_attributes_vector_needs_both_sides(present: bool, counts: str) -> None:
    with pytest.raises(ConfigError) as caught:
        explore.attribute_vector(torch.zeros(3, 2), torch.full((3,), present))
    assert str(caught.value) == (
        f"an attribute's vector needs slices with and without it, got {counts} without"
    )


def test_a_straight_walk_is_even_and_a_spherical_one_stays_on_the_shell() -> None:
    a, b = torch.randn(2, 5, 3, 8, 8, generator=torch.Generator().manual_seed(0)).unbind(0)
    for spherical in (False, True):
        points = explore.walk(a, b, 7, spherical)
        assert points.shape == (5, 7, 3, 8, 8)
        assert torch.allclose(points[:, 0], a, atol=1e-6)
        assert torch.allclose(points[:, -1], b, atol=1e-6)
    straight, arc = explore.walk(a, b, 3), explore.walk(a, b, 3, spherical=True)
    assert torch.allclose(straight[:, 1], (a + b) / 2)
    lengths = arc.flatten(2).norm(dim=2)
    assert torch.allclose(lengths[:, 1], lengths[:, [0, 2]].mean(1), rtol=0.05)
    assert (straight[:, 1].flatten(1).norm(dim=1) < 0.85 * lengths[:, 1]).all()
    assert torch.allclose(
        explore.walk(a, a, 4, spherical=True), a[:, None].expand(-1, 4, -1, -1, -1)
    )
    with pytest.raises(ConfigError) as caught:
        explore.walk(a, b, 1)
    assert str(caught.value) == "steps must be at least 2, got 1"


@pytest.mark.parametrize("model", [Pooled, Flat])
@pytest.mark.parametrize("classes", [True, False])
def test_the_ends_of_a_walk_are_the_reconstructions(
    digits: SliceCache, model: type[Model], classes: bool
) -> None:
    generator = generator_of(model(), digits, classes=classes)
    both = explore.show(explore.open_feed(generator, digits), 6, 0)
    assert (both.cond is not None) == classes
    a, b = both.part(slice(3)), both.part(slice(3, None))
    images, labels = explore.interpolate(
        generator, generator.encode(*a), generator.encode(*b), 5, conds=(a.cond, b.cond)
    )
    assert labels is None
    assert images.shape == (3, 5, SIDE, SIDE)
    assert images.dtype == np.uint8
    assert np.array_equal(images[:, 0], explore.reconstruct(generator, a).images)
    assert np.array_equal(images[:, -1], explore.reconstruct(generator, b).images)
    assert np.abs(explore.reconstruct(generator, a).images.astype(int) - a.images).max() <= 1


@pytest.mark.parametrize("preset", ["modern", "author"])
def test_real_models_reconstruct_what_they_can_walk_between(
    phantom_cache: Path, tiny_run: Path, tmp_path: Path, preset: str
) -> None:
    from medaug.training.loop import fit

    cache, run = SliceCache.open(phantom_cache), tiny_run
    if preset == "author":
        run = tmp_path / "run"
        model = {"name": "vaegan", "latent_dim": 4}
        fit(
            resolve({**TINY, "model": model, "train": {**TINY["train"], "images": 8}}),
            cache,
            run,
            device="cpu",
        )
    generator = Generator.from_pretrained(run, "cpu")
    both = explore.show(explore.open_feed(generator, cache, "train"), 4, 0)
    codes = generator.encode(*both)
    assert codes.shape == ((4, 4, 8, 8) if preset == "modern" else (4, 4))
    images, labels = explore.interpolate(generator, codes[:2], codes[2:], 3)
    again = explore.reconstruct(generator, both)
    assert labels is not None
    assert again.labels is not None
    ends = images[:, [0, -1]].swapaxes(0, 1).reshape(4, 32, 32)
    assert np.abs(ends.astype(int) - again.images).max() <= 1
    assert np.mean(labels[:, 0] == again.labels[:2]) > 0.99
    assert images.dtype == np.int16
    sheet = tmp_path / "sheet.png"
    report = explore.explore(generator, "reconstruct", sheet, cache, rows=2)
    assert report.facts.keys() == {"mean_absolute_error_hu"}
    assert size_of(sheet) == (2, 2)


def size_of(path: Path) -> tuple[float, float]:
    """How many cells a sheet is wide and high."""
    with Image.open(path) as picture:
        return tuple((n - GAP_PX) / (CELL_PX + GAP_PX) for n in picture.size)  # type: ignore[return-value]


def test_sheets_have_a_line_for_each_slice(digits: SliceCache, tmp_path: Path) -> None:
    generator = generator_of(Pooled(), digits)
    path = tmp_path / "sheet.png"
    options: dict[str, Any] = {"rows": 3, "steps": 4}
    drawn = explore.explore(generator, "interpolate", path, digits, **options)
    assert size_of(path) == (6, 3) == (drawn.columns, drawn.rows)
    drawn = explore.explore(generator, "attribute", path, digits, attribute="7", **options)
    assert size_of(path) == (6, 3)
    assert drawn.facts == {"slices_with": 6, "slices_without": 54}
    before = path.read_bytes()
    explore.explore(generator, "attribute", path, digits, attribute="7", **options)
    assert path.read_bytes() == before
    drawn = explore.explore(generator, "reconstruct", path, digits, **options)
    assert size_of(path) == (2, 3)
    assert drawn.facts["mean_absolute_error_grey_levels"] < 1
    planned = explore.plan(generator, "reconstruct", path, digits, **options)
    assert (planned.rows, planned.columns, planned.facts) == (3, 2, {})
    assert str(drawn).startswith(f"{path}: reconstruct, 3 x 2 pictures, mean absolute error grey")


def test_a_run_that_is_given_its_masks_shows_them(
    layout_run: Path, phantom_cache: Path, tmp_path: Path
) -> None:
    generator, cache = Generator.from_pretrained(layout_run), SliceCache.open(phantom_cache)
    path = tmp_path / "sheet.png"
    for what, columns in (("reconstruct", 2), ("interpolate", 5)):
        explore.explore(generator, what, path, cache, rows=1, steps=3)
        assert size_of(path) == (columns, 1), what
    real = explore.show(explore.open_feed(generator, cache), 1, 0)
    again = explore.reconstruct(generator, real)
    assert again.labels is real.labels is not None
    assert again.images.shape == real.images.shape


def test_without_an_encoder_a_walk_is_between_noises(digits: SliceCache, tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    drawn = explore.explore(generator_of(Blank(), digits), "interpolate", path, rows=2, steps=5)
    assert size_of(path) == (5, 2)
    assert drawn.source == "noise, along great arcs"


def test_a_model_without_an_encoder_names_those_that_have_one(
    digits: SliceCache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = [("a", "Blank"), ("b", "Pooled"), ("b.flat", "Flat"), ("c.flat", "Flat")]
    known = {
        name: registry.Entry(name, f"tests.evaluation.test_explore:{kind}", "")
        for name, kind in rows
    }
    monkeypatch.setattr("medaug.synthesis.trained.MODELS", known)
    generator = generator_of(Blank(), digits)
    generator.config["model"]["name"] = "wgan_gp"
    message = "wgan_gp has no encoder; these have one: b, c"
    with pytest.raises(ConfigError) as caught:
        generator.encode(np.zeros((1, SIDE, SIDE), np.uint8))
    assert str(caught.value) == message
    for what in ("attribute", "reconstruct"):
        with pytest.raises(ConfigError) as caught:
            explore.plan(generator, what, tmp_path, digits, attribute="7")
        assert str(caught.value) == message


def test_what_does_not_fit_the_model_is_refused(
    digits: SliceCache, phantom_cache: Path, tmp_path: Path
) -> None:
    generator = generator_of(Pooled(), digits)
    ct = SliceCache.open(phantom_cache)
    images = np.zeros((2, SIDE, SIDE), np.uint8)
    cases: list[tuple[Any, str]] = [
        (
            lambda: generator.encode(images[:, :8]),
            "images: this model takes the shape (2, 16, 16), got (2, 8, 16)",
        ),
        (
            lambda: generator.encode(images),
            "cond: this model takes the shape (2, 10), got None",
        ),
        (
            lambda: explore.plan(generator, "attribute", tmp_path, digits, attribute="smile"),
            f"attribute 'smile' is not in {digits.path} (there: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)",
        ),
        (
            lambda: explore.plan(generator, "reconstruct", tmp_path, ct),
            f"{ct.path}: its kind ct differ from the model's image; "
            "name the cache it was trained on",
        ),
        (
            lambda: explore.plan(generator, "reconstruct", tmp_path),
            "reconstruct needs real slices; give the cache the model was trained on",
        ),
        (
            lambda: explore.plan(generator, "dream", tmp_path),
            "explore: 'dream' is not known (known: interpolate, attribute, reconstruct)",
        ),
        (
            lambda: explore.plan(generator, "reconstruct", tmp_path, digits, rows=0),
            "rows must be at least 1, got 0",
        ),
        (
            lambda: explore.plan(generator, "interpolate", tmp_path, digits, steps=1),
            "steps must be at least 2, got 1",
        ),
        (
            lambda: explore.explore(generator, "reconstruct", tmp_path, digits, rows=99),
            f"rows: 99 slices are needed, {digits.path} has 30 to show; ask for fewer",
        ),
    ]
    for call, message in cases:
        with pytest.raises(ConfigError) as caught:
            call()
        assert str(caught.value) == message
    assert list(tmp_path.iterdir()) == []


def test_similarity_tells_a_model_that_listens_from_one_that_does_not(digits: SliceCache) -> None:
    scores = {}
    for listens in (True, False):
        generator = generator_of(Blank(listens), digits)
        feeds = [explore.open_feed(generator, digits, split) for split in ("train", "heldout")]
        options: dict[str, Any] = {"draws": 2, "images": 4096}
        scores[listens] = explore.attribute_similarity(generator, *feeds, **options)
        assert scores[listens] == explore.attribute_similarity(generator, *feeds, **options)
    heard, deaf = scores[True], scores[False]
    assert heard.real_cosine > 0.95
    assert heard.cosine > 0.9
    assert deaf.cosine < 0.6
    assert heard.squared_error < deaf.squared_error / 3
    deaf_mute = generator_of(Blank(), digits, classes=False)
    with pytest.raises(ConfigError) as caught:
        explore.attribute_similarity(deaf_mute, *feeds)
    assert str(caught.value) == (
        "attribute similarity needs a condition; this model was not conditioned"
    )
