"""The rows about growing work: what they call linear and flat, and what they see of a command."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medaug.core.config import DataConfig
from medaug.data.cache.prepare import SliceCache
from medaug.data.checks.likeness import at_least, difference
from medaug.data.feed.feed import Feed, codec_for


def told(n: int, power: float = 1.0, memory: float = 0.0, first: float = 0.0) -> dict[str, float]:
    """What a command of size ``n`` may cost; the others say what grows with it."""
    begun = 4.0 + first * n
    return {
        "seconds": 9.0,
        "cpu_seconds": begun + 1e-3 * n**power,
        "first_seconds": 5.0,
        "first_cpu_seconds": begun,
        "peak_bytes": 9e8,
        "own_peak_bytes": 4e8 + memory * n,
    }


@pytest.mark.parametrize(
    ("how", "reached"),
    [
        ({}, [True, True, True, True]),
        ({"power": 1.3}, [False, True, True, True]),
        ({"memory": 1000.0}, [True, False, True, True]),
        ({"first": 1e-4}, [True, True, False, True]),
    ],
)
def test_growth_sees_what_grows(row: Any, how: dict[str, float], reached: list[bool]) -> None:
    growth = row("growth")
    runs = {"png": {str(n): told(n, **how) for n in (1000, 10_000, 100_000)}}
    extended = {"png": runs["png"]["10000"]}
    held = growth.claims(runs, extended)
    assert [claim.reached for claim in held] == reached
    slow = {"png": {name: 2 * value for name, value in extended["png"].items()}}
    assert not growth.claims(runs, slow)[-1].reached
    table = growth.page(runs, held)
    assert table.count("\n| png | ") == 3
    assert table.count("pass |") == sum(reached)


def test_growth_draws_its_figures(row: Any, tmp_path: Path) -> None:
    growth = row("growth")
    growth.plot({"png": {str(n): told(n) for n in (10, 100)}}, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_an_exponent_is_that_of_the_cost(row: Any) -> None:
    timing = row("timing")
    sizes = [10, 100, 1000]
    assert timing.exponent(sizes, [3 * n for n in sizes]) == pytest.approx(1)
    assert timing.exponent(sizes, [n**2 for n in sizes]) == pytest.approx(2)


def test_a_trend_is_told_from_noise(row: Any) -> None:
    timing = row("timing")
    rng = np.random.default_rng(0)
    at = np.linspace(0, 30, 120)
    still = timing.trend(at, 500 + rng.normal(0, 3, 120))
    assert still.low < 0 < still.high
    assert still.high < 5
    leaking = timing.trend(at, 500 + at + rng.normal(0, 3, 120))
    assert 25 < leaking.low < 30 < leaking.high < 35
    constant = timing.trend(at, [18] * 120)
    assert (constant.level, constant.growth, constant.low, constant.high) == (18, 0, 0, 0)
    with pytest.raises(ValueError, match="3 looks"):
        timing.trend([0, 1, 2], [1, 1, 1])


def test_a_command_is_watched_with_its_children(row: Any, tmp_path: Path) -> None:
    """A child that holds 60 MB and works for half a second, after a sign."""
    processes = row("processes")
    work = "import time\nx = bytearray(60_000_000)\nwhile time.process_time() < 0.5: pass"
    code = (
        f"import pathlib, subprocess, sys\npathlib.Path({str(tmp_path / 'sign')!r}).touch()\n"
        f"subprocess.run([sys.executable, '-c', {work!r}], check=True)"
    )
    found = processes.watch([sys.executable, "-c", code], (tmp_path / "sign").exists, 0.01)
    assert 6e7 < found["own_peak_bytes"] <= found["peak_bytes"] < 3e8
    assert 0.5 < found["cpu_seconds"] < 5
    assert found["first_cpu_seconds"] < found["cpu_seconds"] - 0.4
    assert 0 < found["first_seconds"] < found["seconds"]
    with pytest.raises(AssertionError, match="ended with 3"):
        processes.watch([sys.executable, "-c", "raise SystemExit(3)"], lambda: True)
    with pytest.raises(AssertionError, match="no sign"):
        processes.watch([sys.executable, "-c", "pass"], lambda: False)
    assert not any(place.name == str(os.getpid()) for place in processes.members(1))


def test_a_large_cache_is_one_that_training_takes(
    row: Any, phantom_cache: Path, tmp_path: Path
) -> None:
    growth = row("growth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(growth, "phantom_cache", lambda work: SliceCache.open(phantom_cache))
        patch.setattr(growth, "SCAN", 10)
        cache = SliceCache.open(growth.large_cache(tmp_path, 30))
        larger = SliceCache.open(growth.large_cache(tmp_path, 40))
    assert [len(larger.split[side]) for side in ("train", "heldout")] == [4, 1]
    data = DataConfig(size=32, augment=None)
    feed = Feed(cache, data, codec_for(cache, data), seed=0, device=torch.device("cpu"))
    assert len(feed) == 30
    assert len(torch.unique(feed.images.flatten(1), dim=0)) == 30
    growth.train(str(cache.path), str(tmp_path / "run"), 64, str(tmp_path / "begun"))
    assert (tmp_path / "begun").exists()


def test_the_quick_bound_of_a_likeness_is_one() -> None:
    rng = np.random.default_rng(0)
    for number in range(60):
        steps = rng.normal(0, 150, (40, 8)).cumsum(0)
        one = np.clip(6000 * rng.uniform(0.3, 1, 8) + steps, 0, None)
        cut = one[rng.integers(0, 8) : len(one) - rng.integers(0, 8)]
        share = rng.choice([0, 0.25, 0.5, 0.75])
        copy = cut[:-1] * (1 - share) + cut[1:] * share
        copy = np.roll(copy, 4, axis=1) if number % 2 else copy
        copy = (copy[::-1] if number % 3 else copy) * rng.uniform(0.97, 1.03, copy.shape)
        other = np.clip(one[::-1] * rng.uniform(0.6, 1.6, 8), 0, None)
        for pair in ((one, copy), (copy, one), (one, other)):
            assert at_least(*pair) <= difference(*pair) + 1e-9
    assert at_least(one, 1.3 * one) > 0.1
