"""Stacks of given masks: consecutive slices of one scan, deformed as one."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medaug import Generator
from medaug.core.errors import ConfigError
from medaug.data.cache.prepare import SliceCache
from medaug.synthesis.masks.deformed import Deformed
from medaug.synthesis.request import SMOOTH_MM
from medaug.synthesis.stacks import Stacks
from medaug.synthesis.synthesize import synthesize
from tests.support.refusals import stack_refused
from tests.support.trees import tree


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


@pytest.fixture
def refusals(tmp_path: Path) -> Callable[..., str]:
    return partial(stack_refused, tmp_path / "none")


def test_masks_that_do_not_continue_each_other_are_refused(
    refusals: Callable[..., str], layout_run: Path, masks_run: Path
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
