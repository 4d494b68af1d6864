"""Drawing by index: the same sample whatever the batch, block or number of alternatives."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from medaug import Generator
from medaug.core.config import resolve
from medaug.core.errors import ConfigError, RunError, WeightsError
from medaug.data.cache.prepare import SliceCache
from medaug.synthesis.generator import vote_entropy
from medaug.training.checkpoint import compact, read_header, read_tensors, write_tensors
from medaug.training.loop import fit
from tests.conftest import TINY


@pytest.fixture(scope="module")
def generator(tiny_run: Path) -> Generator:
    return Generator.from_pretrained(tiny_run, "cpu")


def test_a_sample_depends_on_seed_and_index_only(generator: Generator) -> None:
    whole = list(generator.generate(20, uncertainty=2))
    assert [s.index for s in whole] == list(range(20))
    (late,) = generator.generate(1, start=17, uncertainty=2)
    (alone,) = generator.generate(1, start=17, uncertainty=0)
    (other,) = generator.generate(1, start=17, uncertainty=2, seed=1)
    assert np.array_equal(whole[17].image, late.image)
    assert np.array_equal(whole[17].alternatives, late.alternatives)
    assert np.array_equal(whole[17].image, alone.image)
    assert not np.array_equal(whole[17].image, other.image)
    assert not np.array_equal(whole[17].image, whole[16].image)
    assert alone.alternatives.shape == (0, 32, 32)


def test_a_sample_has_its_units(generator: Generator) -> None:
    samples = generator.generate(3, uncertainty=4)
    assert len(samples) == 3
    for sample in samples:
        assert sample.image.dtype == np.int16
        assert sample.image.min() >= -160
        assert sample.image.max() <= 240
        assert sample.label is not None
        assert set(np.unique(sample.label)) <= {0, 1}
        assert sample.alternatives.shape == (4, 32, 32)
        assert np.allclose(sample.std, sample.alternatives.std(0, ddof=1), atol=1e-3)
        assert sample.entropy is not None
        assert sample.entropy.min() >= 0
        assert sample.entropy.max() <= 1
        assert np.allclose(np.diag(sample.affine)[:3], [12.5, 12.5, 9.5])
        assert np.allclose(sample.affine @ [15.5, 15.5, 0, 1], [0, 0, 0, 1])


def test_vote_entropy_closed_forms() -> None:
    votes = np.zeros((4, 1, 3), np.uint8)
    votes[:2, 0, 1] = 1
    votes[:, 0, 2] = [0, 1, 2, 2]
    assert np.allclose(vote_entropy(votes, [1, 2]), [[0.0, 1.0, 1.5]])
    assert vote_entropy(votes[:0], [1]).shape == (1, 3)


@pytest.fixture(scope="module")
def told_run(phantom_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A moment of training on whole scans, told whether the pancreas shows, and the height."""
    data = {"attributes": ["pancreas"], "height": True, "require_label": False}
    config = resolve(TINY, {"data": data, "train": {"images": 16}})
    run = tmp_path_factory.mktemp("told") / "run"
    fit(config, SliceCache.open(phantom_cache), run, device="cpu")
    return run


def test_conditions_come_from_the_training_slices_unless_fixed(told_run: Path) -> None:
    header = read_header(told_run / "model.safetensors")
    assert header["condition"] == ["pancreas", "height"]
    assert header["shape"]["cond_dim"] == 2
    rows = {tuple(row) for row in header["conditions"]}
    told = Generator.from_pretrained(told_run, "cpu")
    free = list(told.generate(20, uncertainty=1))
    values = [tuple(sample.origin["condition"].values()) for sample in free]
    assert set(values) <= rows
    assert len(set(values)) > 5
    asked = {"pancreas": 1, "height": "0.25"}
    fixed = list(told.generate(20, uncertainty=1, condition=asked))
    assert all(s.origin["condition"] == {"pancreas": 1, "height": 0.25} for s in fixed)
    assert not np.array_equal(free[0].image, fixed[0].image)
    (alone,) = told.generate(1, start=17, condition=asked)
    assert np.array_equal(alone.image, fixed[17].image)
    half = list(told.generate(16, uncertainty=0, condition={"pancreas": 0}))
    assert {(0.0, s.origin["condition"]["height"]) for s in half} <= rows


def test_a_condition_the_model_does_not_know_is_refused(
    told_run: Path, generator: Generator
) -> None:
    with pytest.raises(ConfigError) as caught:
        Generator.from_pretrained(told_run, "cpu").generate(1, condition={"class": 3})
    assert str(caught.value) == (
        "condition 'class' is not known; this model was conditioned on pancreas, height"
    )
    with pytest.raises(ConfigError) as caught:
        generator.generate(1, condition={"height": 0})
    assert str(caught.value) == "condition 'height' is not known; this model was not conditioned"


def test_weights_from_before_conditions_still_load(tiny_run: Path, tmp_path: Path) -> None:
    tensors, header, _ = read_tensors(tiny_run / "model.safetensors")
    for name in ("condition", "conditions"):
        del header[name]
    header["shape"] = {key: header["shape"][key] for key in ("channels", "images", "size")}
    write_tensors(tmp_path / "old.safetensors", tensors, header)
    old = Generator.from_pretrained(tmp_path / "old.safetensors", "cpu")
    new = Generator.from_pretrained(tiny_run, "cpu")
    assert old.condition == new.condition
    assert np.array_equal(old.block(0, 0, 0)[3].image, new.block(0, 0, 0)[3].image)


@pytest.mark.parametrize("n", [0, -1])
def test_n_below_one_is_refused(generator: Generator, n: int) -> None:
    with pytest.raises(ConfigError) as caught:
        generator.generate(n)
    assert str(caught.value) == f"n must be at least 1, got {n}"


def test_a_missing_or_untrained_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        Generator.from_pretrained(tmp_path / "none")
    assert str(caught.value) == f"{tmp_path / 'none'}: no such run or weight file"
    with pytest.raises(RunError) as caught:
        Generator.from_pretrained(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: holds no weights (model.safetensors); train it first, "
        "they appear at the first snapshot"
    )


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_pickle_is_refused(tmp_path: Path, how: str) -> None:
    path = tmp_path / "model.safetensors"
    if how == "torch":
        torch.save({"a": torch.zeros(2)}, path)
    else:
        path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(WeightsError) as caught:
        Generator.from_pretrained(tmp_path)
    assert str(caught.value) == (
        f"{path}: a pickle, which can run code when it is loaded; "
        "medaug reads safetensors files only"
    )


@pytest.mark.parametrize("fill", range(0, 256, 8))
def test_no_length_of_the_header_is_taken_for_a_pickle(tmp_path: Path, fill: int) -> None:
    path = tmp_path / "w.safetensors"
    write_tensors(path, {"a": torch.zeros(2)}, {"note": "x" * fill})
    assert read_header(path)["note"] == "x" * fill


def test_damaged_and_strange_weight_files_are_refused(tiny_run: Path, tmp_path: Path) -> None:
    sound = (tiny_run / "model.safetensors").read_bytes()
    path = tmp_path / "w.safetensors"
    middle = len(sound) // 2
    contents = {
        "not a safetensors file": b"hello world, this is text",
        "damaged, its content does not match its checksum": (
            sound[:middle] + bytes([sound[middle] ^ 1]) + sound[middle + 1 :]
        ),
        "damaged, ": sound[:-10],
        "a safetensors file, but not written by medaug": (
            b"\x20\0\0\0\0\0\0\0" + b'{"__metadata__":{"a":"b"}}      '
        ),
    }
    for message, content in contents.items():
        path.write_bytes(content)
        with pytest.raises(WeightsError) as caught:
            Generator.from_pretrained(path)
        assert str(caught.value).startswith(f"{path}: {message}")


def test_weights_of_another_format_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_tensors(path, {"a": torch.zeros(2)}, {"version": 99})
    with pytest.raises(WeightsError) as caught:
        read_header(path)
    assert str(caught.value) == f"{path}: written in format 99, this medaug reads 1"


def test_weights_that_do_not_fit_the_networks_are_refused(tiny_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    tensors, header, _ = read_tensors(tiny_run / "model.safetensors")
    tensors.pop("encoder.stem.weight")
    write_tensors(path, tensors, header)
    with pytest.raises(WeightsError) as caught:
        Generator.from_pretrained(path)
    assert str(caught.value) == (
        f"{path}: its weights do not fit the networks of this medaug; "
        "use the version that wrote it, or train again"
    )


def test_compact_weights_draw_nearly_the_same(
    generator: Generator, tiny_run: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small.safetensors"
    compact(tiny_run / "model.safetensors", small)
    assert small.stat().st_size < 0.6 * (tiny_run / "model.safetensors").stat().st_size
    mine, theirs = (
        g.block(0, 0, 0)[0].image for g in (generator, Generator.from_pretrained(small))
    )
    assert np.abs(mine.astype(int) - theirs).mean() < 3


def test_the_weight_file_holds_no_judge_and_no_path(tiny_run: Path, phantom_root: Path) -> None:
    tensors, header, _ = read_tensors(tiny_run / "model.safetensors")
    assert not any(name.startswith("discriminator") for name in tensors)
    assert str(phantom_root.parent) not in str(header)
    assert header["codec"] == {
        "kind": "ct",
        "window_hu": [-160.0, 240.0],
        "labels": {"pancreas": 1},
        "masks": "joint",
        "order": ["pancreas"],
        "tissues": {},
    }
