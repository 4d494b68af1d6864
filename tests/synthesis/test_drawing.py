"""How a block is drawn: again where refused, and with alternatives from three sources."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medaug.core.config import resolve
from medaug.core.errors import ConfigError, RefusedError
from medaug.data.cache.prepare import SliceCache
from medaug.synthesis.generator import Generator
from medaug.synthesis.synthesize import synthesize
from medaug.training.loop import fit
from tests.conftest import TINY
from tests.support.toy import Toy
from tests.support.trees import tree


class Bright:
    """Refuses what is bright on average, for one of two reasons."""

    fingerprint = "bright"

    def __init__(self, above: float) -> None:
        self.above = above

    def judge(self, image: np.ndarray, label: np.ndarray | None) -> list[str]:
        means = image.mean((1, 2))
        return [("hu" if m < self.above + 1 else "noise") if m > self.above else "" for m in means]


@pytest.fixture(scope="module")
def middle(tiny_run: Path) -> float:
    drawn = Generator.from_pretrained(tiny_run, "cpu").generate(32, uncertainty=0)
    return float(np.median([s.image.mean() for s in drawn]))


def test_refused_samples_are_drawn_anew_and_the_others_stay(tiny_run: Path, middle: float) -> None:
    generator = Generator.from_pretrained(tiny_run, "cpu")
    plain = generator.block(0, uncertainty=2)
    kept = generator.block(0, uncertainty=2, judge=Bright(middle).judge)
    refused = [bool(s.origin["refused"]) for s in kept]
    assert 0 < sum(refused) < 16
    for one, other, again in zip(plain, kept, refused, strict=True):
        assert np.array_equal(one.image, other.image) != again
        assert other.image.mean() <= middle
        assert set(other.origin["refused"]) <= {"hu", "noise"}
        close = np.abs(other.alternatives - other.image).mean()
        assert close < np.abs(other.alternatives - plain[0].image).mean() or one is plain[0]


def test_filtered_folders_agree_whatever_the_shards(
    tiny_run: Path, tmp_path: Path, middle: float
) -> None:
    options: dict[str, Any] = {"uncertainty": 2, "filter": Bright(middle)}
    generator = Generator.from_pretrained(tiny_run, "cpu")
    report = synthesize(generator, 40, tmp_path / "whole", **options)
    for number in (1, 0):
        again = Generator.from_pretrained(tiny_run, "cpu")
        synthesize(again, 40, tmp_path / "parts", shard=(number, 2), **options)
    synthesize(generator, 20, tmp_path / "steps", **options)
    synthesize(generator, 40, tmp_path / "steps", **options)
    assert tree(tmp_path / "whole") == tree(tmp_path / "parts") == tree(tmp_path / "steps")
    with (tmp_path / "whole" / "manifest.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    reasons = [reason for row in rows for reason in row["refused"].split(";") if reason]
    counted = {reason: reasons.count(reason) for reason in set(reasons)}
    drawn = sum(report.refused.values())
    assert 0 < len(reasons) <= drawn  # those of the last block's tail are drawn, not written
    assert set(counted) <= set(report.refused)
    assert f"{drawn} draws refused" in str(report)


def test_a_filter_that_leaves_little_stops_with_advice(tmp_path: Path) -> None:
    class Picky(Toy):
        def block(self, number: int, *args: Any, **options: Any) -> list[Any]:
            made = super().block(number, *args, **options)
            for sample in made:
                sample.origin["refused"] = ["area"] * 4 + ["hu"] * (sample.index % 2)
            return made

    with pytest.raises(RefusedError) as caught:
        synthesize(Picky(), 100, tmp_path / "out", filter=Bright(0.0))
    assert str(caught.value) == (
        "the filter keeps 16 of 88 draws, fewer than 20%; most fail 'area' (64); train longer, "
        "loosen that check (--set filter.KEY=VALUE), or see what it refuses with --no-filter"
    )
    assert not list((tmp_path / "out").glob("imagesTr/*"))


def test_a_sample_that_never_passes_is_told(tiny_run: Path) -> None:
    generator = Generator.from_pretrained(tiny_run, "cpu")

    def never(image: np.ndarray, label: np.ndarray | None) -> Sequence[str]:
        return ["copy"] * len(image)

    with pytest.raises(RefusedError, match="sample 0 was refused 64 times, mostly for 'copy'"):
        generator.block(0, uncertainty=0, judge=never)


def test_the_three_sources_differ_and_are_named(layout_run: Path) -> None:
    generator = Generator.from_pretrained(layout_run, "cpu")
    drawn = {
        source: list(generator.generate(4, uncertainty=3, source=source))
        for source in ("latent", "network", "mask")
    }
    for source, samples in drawn.items():
        for sample, first in zip(samples, drawn["latent"], strict=True):
            assert np.array_equal(sample.image, first.image)
            assert sample.origin["source"] == source
            assert sample.std.max() > 0
            assert sample.entropy is not None
            assert (sample.entropy.max() > 0) == (source == "mask")
    stds = [np.stack([s.std for s in samples]) for samples in drawn.values()]
    assert not np.array_equal(stds[0], stds[1])
    assert not np.array_equal(stds[0], stds[2])
    assert [samples[0].origin["how"] for samples in drawn.values()] == [
        "other noise for the same mask",
        "the same noise through other snapshots",
        "the same noise for the mask a little deformed",
    ]


def test_dropout_shows_the_network_where_there_are_no_snapshots(
    phantom_cache: Path, tmp_path: Path
) -> None:
    asked = {"model": {"dropout": 0.2}, "train": {"images": 80}}
    fit(resolve(TINY, asked), SliceCache.open(phantom_cache), tmp_path / "run", device="cpu")
    generator = Generator.from_pretrained(tmp_path / "run", "cpu")
    one = list(generator.generate(4, uncertainty=3, source="network"))
    two = list(Generator.from_pretrained(tmp_path / "run", "cpu").generate(
        4, uncertainty=3, source="network"))  # fmt: skip
    for sample, again in zip(one, two, strict=True):
        assert sample.origin["how"] == "other units dropped"
        assert sample.std.max() > 0
        assert np.array_equal(sample.alternatives, again.alternatives)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("weather", r"uncertainty source 'weather' is not known \(latent, network, mask\)"),
        ("network", "needs several snapshots .* or a decoder trained with dropout"),
        ("mask", r"needs a run that is given its masks .* has data.masks joint"),
    ],
)
def test_sources_that_a_run_lacks_are_refused(tiny_run: Path, source: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Generator.from_pretrained(tiny_run, "cpu").generate(1, source=source)


def test_a_folder_is_of_one_source(layout_run: Path, tmp_path: Path) -> None:
    generator = Generator.from_pretrained(layout_run, "cpu")
    synthesize(generator, 3, tmp_path / "out", uncertainty=2, source="network")
    with (tmp_path / "out" / "manifest.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert {row["uncertainty_source"] for row in rows} == {"network"}
    assert {row["mask"] for row in rows} == {"a real layout deformed at strength 1"}
    with pytest.raises(ValueError, match="holds samples made with source network"):
        synthesize(generator, 3, tmp_path / "out", uncertainty=2)


def test_snapshots_are_kept_as_asked(layout_run: Path, tiny_run: Path) -> None:
    assert len(list((layout_run / "snapshots").glob("*.safetensors"))) == 2
    assert not (tiny_run / "snapshots").exists()


@pytest.mark.parametrize("model", ["spatial_vaegan", "vae", "aaae", "wae_mmd"])
def test_vary_goes_as_far_as_asked(phantom_cache: Path, tmp_path: Path, model: str) -> None:
    small: dict[str, Any] = {"name": model, "width": 8}
    if model != "spatial_vaegan":
        small |= {"latent_dim": 8, "prior": {"width": 16}}
    else:
        small |= TINY["model"]
    config = resolve({"data": {"size": 32}, "model": small, "train": {**TINY["train"]}})
    cache = SliceCache.open(phantom_cache)
    fit(config, cache, tmp_path / "run", device="cpu")
    generator = Generator.from_pretrained(tmp_path / "run", "cpu")
    case = next(iter(cache.cases.values()))
    images, labels = np.array(case.image[:6]), np.array(case.label[:6])  # type: ignore[index]
    rebuilt, _ = generator.decode(generator.encode(images, labels))
    far = []
    for strength in (0.05, 0.3, 1.0):
        drawn, masks = generator.vary(images, labels, strength)
        assert drawn.shape == images.shape
        assert masks is not None
        far.append(float(np.abs(drawn.astype(float) - rebuilt).mean()))
    assert far == sorted(far)
    one, _ = generator.vary(images, labels, 0.5, seed=1, index=2)
    again, _ = generator.vary(images, labels, 0.5, seed=1, index=2)
    other, _ = generator.vary(images, labels, 0.5, seed=1, index=3)
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_a_smooth_path_changes_less_from_slice_to_slice() -> None:
    from medaug.synthesis.variation import path

    rough, smooth = (path(40, (4, 4), 0, 0, width) for width in (0.0, 4.0))
    for noise in (rough, smooth):
        assert noise.std() == pytest.approx(1, abs=0.25)
    steps = [float((noise[1:] - noise[:-1]).square().mean()) for noise in (rough, smooth)]
    assert steps[1] < 0.2 * steps[0]


def test_values_that_cannot_work_are_refused(tiny_run: Path, layout_run: Path) -> None:
    joint, layout = (Generator.from_pretrained(run, "cpu") for run in (tiny_run, layout_run))
    images, labels = np.zeros((2, 32, 32), np.int16), np.ones((2, 32, 32), np.uint8)
    for call, message in (
        (lambda: joint.vary(images, labels, 0.0), "strength must be above 0 and at most 1, got 0"),
        (lambda: joint.vary(images), "labels are needed: this model was trained with masks"),
        (lambda: joint.vary(images[:, :9], labels), r"takes \(n, 32, 32\), got \(2, 9, 32\)"),
        (lambda: joint.vary(images, labels[:1]), r"wanted is the images' \(2, 32, 32\)"),
        (lambda: joint.redraw(labels), "redraw needs a run that is given its masks"),
        (lambda: layout.redraw(labels), "images are needed, whose tissues fill the layout"),
        (lambda: layout.redraw(labels, images=images, smooth=-1), "smooth must not be negative"),
    ):
        with pytest.raises(ConfigError, match=message):
            call()  # type: ignore[no-untyped-call]
