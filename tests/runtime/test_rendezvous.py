"""Processes meet each other, and none that a store remembers."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch.distributed import DistStoreError, HashStore, Store

from medaug.runtime.distributed import rendezvous

SOON = timedelta(seconds=20)


def met(store: Store, world: int, late: int = -1) -> list[Store]:
    """The stores of all, of whom ``late`` comes half a second after the others."""

    def come(rank: int) -> Store:
        time.sleep(0.5 * (rank == late))
        return rendezvous(store, rank, world, SOON)

    with ThreadPoolExecutor(world) as threads:
        return list(threads.map(come, range(world)))


@pytest.mark.parametrize("late", range(3))
def test_those_who_meet_have_a_place_of_their_own(late: int) -> None:
    shared = HashStore()
    earlier = met(shared, 3)
    earlier[0].set("address", "of somebody who is gone")
    again = met(shared, 3, late)
    assert not any(store.check(["address"]) for store in again)
    again[0].set("address", "here")
    assert [store.get("address") for store in again] == [b"here"] * 3


def test_who_comes_alone_is_told_so() -> None:
    moment = timedelta(seconds=0.2)
    with pytest.raises(DistStoreError):
        rendezvous(HashStore(), 0, 2, moment)
    remembering = HashStore()
    met(remembering, 2)
    with pytest.raises(RuntimeError, match="process 0 did not come within 0 s"):
        rendezvous(remembering, 1, 2, moment)
