"""Train and synthesise in a loop: nothing piles up, and where something does it is seen."""

import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medaug.data.cache.prepare import SliceCache

CYCLES, PLANTED = 12, 9
LOOSE = {"own_bytes": 0.05}
"""Of a short soak: the allocator is still warming up."""


@pytest.fixture
def soaked(row: Any, phantom_cache: Path, tmp_path: Path) -> Callable[..., tuple[Any, list[Any]]]:
    soak = row("soak")

    def run(cycles: int, plant: Callable[[int], None] | None = None) -> tuple[Any, list[Any]]:
        looks = soak.soak(
            SliceCache.open(phantom_cache),
            tmp_path,
            lambda done, _: done >= cycles,
            images=64,
            samples=8,
            commands_every=0,
            after_each=plant,
        )
        return soak, looks

    return run


def verdicts(soak: Any, looks: list[Any]) -> dict[str, bool]:
    found = {claim.what: claim.reached for claim in soak.claims(looks, LOOSE)}
    return {
        name: reached
        for name, title in soak.LEVELS.items()
        for what, reached in found.items()
        if f"of {title}," in what
    }


def test_training_and_synthesis_in_a_loop_leave_nothing_behind(soaked: Any, tmp_path: Path) -> None:
    soak, looks = soaked(CYCLES)
    assert len(looks) == CYCLES
    told = verdicts(soak, looks)
    assert set(told) == {"own_bytes", "descriptors", "threads", "shared", "temporary"}
    assert all(told.values()), (told, looks)
    held = soak.claims(looks, LOOSE)
    assert soak.page(looks, held).count("| pass |") == 5
    soak.plot(looks, tmp_path / "soak.png")
    assert (tmp_path / "soak.png").read_bytes()[:4] == b"\x89PNG"
    assert "temporary" not in os.environ.get("TMPDIR", "")


@pytest.fixture
def hoard() -> Iterator[list[Any]]:
    held: list[Any] = []
    yield held
    for one in held:
        if isinstance(one, int):
            os.close(one)


def test_each_kind_of_leak_is_seen(row: Any, soaked: Any, hoard: list[Any]) -> None:
    """A fortieth of the memory, a descriptor and a temporary file in every cycle.

    The memory is the system's own: the C library may still hold freed pages of earlier tests.
    """
    share = row("soak").own_bytes() // 40

    def plant(number: int) -> None:
        pages = mmap.mmap(-1, share, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        np.frombuffer(pages, np.uint8)[:] = 1
        hoard.append(pages)
        hoard.append(os.open(os.devnull, os.O_RDONLY))
        os.close(tempfile.mkstemp()[0])

    soak, looks = soaked(PLANTED, plant)
    told = verdicts(soak, looks)
    assert {name for name, reached in told.items() if not reached} == {
        "own_bytes",
        "descriptors",
        "temporary",
    }
