"""Many processes, one job: who this process is, and what it shares with the others.

Under ``torchrun`` (or ``srun`` with the same environment) ``RANK`` and ``WORLD_SIZE`` number the
processes.  Training joins them with `joined`: NCCL between GPUs, gloo otherwise, and always gloo
for what the host decides.  Work that falls into independent parts needs no connection, only its
`share`, which SLURM's own numbers give as well.
"""

import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from medaug.core.errors import ConfigError, MedaugError, RanksError

# How processes meet in a store where earlier ones may have met and died.
#
# torchrun gives all its attempts one store, and counts restarts on each machine apart, so that
# neither the store nor the count tells what an earlier attempt left there
# (https://github.com/pytorch/pytorch/issues/135712).  A process that believes such an address waits
# for somebody who is gone.  Here the first process names the meeting by a word of its own, every
# other answers by one of its own, and a meeting holds when the first has repeated that answer.


if TYPE_CHECKING:
    from torch.distributed import Store


PAUSE_S = 0.02


def rendezvous(store: "Store", rank: int, world: int, patience: timedelta) -> "Store":
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


if TYPE_CHECKING:
    import torch
    from torch import Tensor


Told = TypeVar("Told")


BUCKET_BYTES = 32 * 2**20
"""Gradients travel in pieces of about this size, so that no copy of all of them is made."""


PATIENCE = timedelta(minutes=30)
"""How long one process waits for the others before it gives up."""


@dataclass(frozen=True)
class Share:
    """Part ``rank`` of ``world``; ``local`` is its number, of ``neighbours``, on this machine."""

    rank: int = 0
    world: int = 1
    local: int = 0
    neighbours: int = 1

    @property
    def pair(self) -> tuple[int, int]:
        """As ``--shard`` has it."""
        return self.rank, self.world


def share() -> Share:
    """This process's part by the environment: torchrun's numbers, else those of an srun step.

    A SLURM batch script is no step and does all by itself, although SLURM numbers it, too.

    Raises:
        ConfigError: numbers that make no sense.
    """
    for names in (
        ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
        ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", ""),
    ):
        if names[0] not in os.environ or names[1] not in os.environ:
            continue
        if names[0] == "SLURM_PROCID" and _is_batch_script():
            continue
        rank, world = _number(names[0]), _number(names[1])
        if not 0 <= rank < world:
            raise ConfigError(
                f"{names[0]} is {rank} and {names[1]} {world}; ranks count from 0 to {names[1]} - 1"
            )
        local = _number(names[2]) if names[2] in os.environ else 0
        near = _number(names[3]) if names[3] in os.environ else 1
        return Share(rank, world, local, near)
    return Share()


def _is_batch_script() -> bool:
    return "SLURM_JOB_ID" in os.environ and "SLURM_STEP_ID" not in os.environ


def _number(name: str) -> int:
    text = os.environ[name]
    if not text.isdecimal():
        raise ConfigError(f"{name} is {text!r}, and a number from 0 is wanted")
    return int(text)


class Ranks:
    """The processes that train together; this one alone where ``world`` is 1.

    Attributes:
        rank: number of this process.
        world: how many there are.
        device: where this process computes.
    """

    def __init__(self, rank: int, world: int, device: "torch.device") -> None:
        self.rank, self.world, self.device = rank, world, device

    @property
    def pair(self) -> tuple[int, int]:
        """This process's part of a batch."""
        return self.rank, self.world

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def add(self, values: "Tensor") -> "Tensor":
        """Sum ``values`` over all processes, in place; the same bits everywhere."""
        import torch.distributed as dist

        with _explained():
            dist.all_reduce(values)
        return values

    def lowest(self, values: "Tensor") -> "Tensor":
        """The least of ``values`` over all processes, in place."""
        import torch.distributed as dist

        with _explained():
            dist.all_reduce(values, dist.ReduceOp.MIN)
        return values

    def agreed(self, value: int) -> int:
        """The largest ``value`` of all processes, the same everywhere."""
        import torch
        import torch.distributed as dist

        if self.world == 1:
            return value
        told = torch.tensor([value])
        with _explained():
            dist.all_reduce(told, dist.ReduceOp.MAX)
        return int(told)

    def send(self, content: bytes | None) -> bytes:
        """What the first process gives, everywhere; the others give None."""
        import torch
        import torch.distributed as dist

        if self.world == 1:
            return content or b""
        size = torch.tensor([len(content or b"")])
        with _explained():
            dist.broadcast(size, 0)
            data = torch.empty(int(size), dtype=torch.uint8)
            if content:
                data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
            if len(data):
                dist.broadcast(data, 0)
        return data.numpy().tobytes()

    def led(self, work: Callable[[], Told]) -> Told:
        """What ``work`` returns in the first process, which alone does it; a JSON value.

        Raises:
            MedaugError: in the first process what ``work`` raised, in the others that it did.
        """
        if self.world == 1:
            return work()
        if not self.first:
            told = json.loads(self.send(None))
            if "error" in told:
                raise RanksError(f"process {self.rank}: ended, as process 0 did: {told['error']}")
            return told["result"]
        try:
            result = work()
        except BaseException as error:
            reason = str(error) if isinstance(error, MedaugError) else type(error).__name__
            self.send(json.dumps({"error": reason}).encode())
            raise
        self.send(json.dumps({"result": result}).encode())
        return result


_ranks: Ranks | None = None


def together() -> Ranks | None:
    """The processes that train together, or None where this one is alone."""
    return _ranks


@contextmanager
def joined(device: "torch.device") -> Iterator[Ranks]:
    """Join the processes that the environment tells of; ``device`` is what the user asked for.

    With GPUs each process takes that of its number on its machine.

    Raises:
        ConfigError: SLURM tasks that do not know of each other, or too few GPUs.
    """
    import torch
    import torch.distributed as dist

    global _ranks
    part = share()
    if part.world == 1:
        yield Ranks(0, 1, device)
        return
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if name not in os.environ:
            raise ConfigError(
                f"{part.world} processes and no {name}, so they cannot find each other; start "
                "them with torchrun, or as examples/slurm_train.sh does"
            )
    if device.type == "cuda":
        if part.local >= torch.cuda.device_count():
            raise ConfigError(
                f"process {part.local} of this machine has no GPU of its own "
                f"({torch.cuda.device_count()} here); start fewer, or use --device cpu"
            )
        device = torch.device("cuda", part.local)
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    own = not dist.is_initialized()
    if own:
        with _explained():
            found, _, _ = next(dist.rendezvous("env://", part.rank, part.world, timeout=PATIENCE))
            store = rendezvous(found, part.rank, part.world, PATIENCE)
            dist.init_process_group(
                backend, store=store, rank=part.rank, world_size=part.world, timeout=PATIENCE
            )
    _ranks = Ranks(part.rank, part.world, device)
    print(f"process {part.rank} of {part.world} on {device}", file=sys.stderr)
    sound = False
    try:
        yield _ranks
        sound = True
    finally:
        _ranks = None
        # an NCCL group waits for its peers when it is taken down, and after an error they are gone
        if own and (sound or device.type == "cpu"):
            dist.destroy_process_group()


@contextmanager
def _explained() -> Iterator[None]:
    """Turn the loss of another process into one sentence.

    Raises:
        RanksError: a process of the group is gone or does not answer.
    """
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise RanksError(
            f"another process of this job ended or does not answer ({reason}); the same command "
            "goes on from the last checkpoint"
        ) from error
