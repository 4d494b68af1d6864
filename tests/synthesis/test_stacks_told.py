"""What a stack is told holds for all its slices, and what cannot be stacked is named."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medaug import Generator
from medaug.core.config import resolve
from medaug.core.errors import ConfigError
from medaug.data.cache.prepare import SliceCache
from medaug.synthesis.request import SMOOTH_MM
from medaug.synthesis.stacks import Stacks
from medaug.training.checkpoint import read_header, read_tensors, write_tensors
from medaug.training.loop import fit
from tests.conftest import TINY
from tests.support.refusals import stack_refused
from tests.support.stacked import STACK, between
from tests.support.toy import Toy


@pytest.fixture(scope="module")
def generator(tiny_run: Path) -> Generator:
    return Generator.from_pretrained(tiny_run, "cpu")


@pytest.fixture(scope="module")
def tall_run(phantom_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A moment of training on whole scans, told the height, with dropout."""
    data = {"height": True, "attributes": ["pancreas"], "require_label": False}
    config = resolve(TINY, {"data": data, "model": {"dropout": 0.3}, "train": {"images": 16}})
    run = tmp_path_factory.mktemp("tall") / "run"
    fit(config, SliceCache.open(phantom_cache), run, device="cpu")
    return run


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


@pytest.fixture
def refusals(tmp_path: Path) -> Callable[..., str]:
    return partial(stack_refused, tmp_path / "none")


def test_what_cannot_be_stacked_is_named(
    refusals: Callable[..., str],
    generator: Generator,
    tall_run: Path,
    phantom_cache: Path,
    tmp_path: Path,
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
