"""How processes meet in a store where earlier ones may have met and died.

torchrun gives all its attempts one store, and counts restarts on each machine apart, so that
neither the store nor the count tells what an earlier attempt left there
(https://github.com/pytorch/pytorch/issues/135712).  A process that believes such an address waits
for somebody who is gone.  Here the first process names the meeting by a word of its own, every
other answers by one of its own, and a meeting holds when the first has repeated that answer.
"""

import secrets
import time
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed import Store

PAUSE_S = 0.02


def meet(store: "Store", rank: int, world: int, patience: timedelta) -> "Store":
    """The part of ``store`` that these ``world`` processes have for themselves.

    Raises:
        RuntimeError: not all of them came within ``patience``.
    """
    from torch.distributed import PrefixStore

    lead = _call if rank == 0 else _answer
    return PrefixStore(lead(store, rank, world, patience), store)


def _call(store: "Store", rank: int, world: int, patience: timedelta) -> str:
    meeting = secrets.token_hex(8)
    store.set("meeting", meeting)
    answers = [f"{meeting}/{other}" for other in range(1, world)]
    store.wait(answers, patience)
    store.set(f"{meeting}/held", " ".join(store.get(answer).decode() for answer in answers))
    return meeting


def _answer(store: "Store", rank: int, world: int, patience: timedelta) -> str:
    mine = secrets.token_hex(8)
    until = time.monotonic() + patience.total_seconds()
    store.wait(["meeting"], patience)
    answered = ""
    while time.monotonic() < until:
        meeting = store.get("meeting").decode()
        if meeting != answered:
            store.set(f"{meeting}/{rank}", mine)
            answered = meeting
        held = f"{meeting}/held"
        if store.check([held]) and mine in store.get(held).decode().split():
            return meeting
        time.sleep(PAUSE_S)
    raise RuntimeError(f"process 0 did not come within {patience.total_seconds():.0f} s")
