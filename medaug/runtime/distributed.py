"""Run one job in several processes: which one this is, and what it shares with the others.

Under ``torchrun`` (or ``srun`` with the same environment) ``RANK`` and ``WORLD_SIZE`` number the
processes.  Training connects them with `join`: by NCCL between GPUs, else by gloo, and always by
gloo for values on the host.  Work that falls into independent parts needs no connection, only its
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

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.distributed import Store

Result = TypeVar("Result")

PATIENCE = timedelta(minutes=30)
"""How long one process waits for the others before it gives up."""
POLL_S = 0.02
"""Seconds between two looks into the store while the processes find each other."""


@dataclass(frozen=True)
class Share:
    """This process's share of the work.

    Attributes:
        rank: its number, from 0.
        world: how many processes there are.
        local: its number on this machine, from 0.
        neighbours: how many processes this machine has.
    """

    rank: int = 0
    world: int = 1
    local: int = 0
    neighbours: int = 1

    @property
    def pair(self) -> tuple[int, int]:
        """(rank, world), as ``--shard`` takes them."""
        return self.rank, self.world


def share() -> Share:
    """Read this process's share from the environment: torchrun's numbers, else those of srun.

    A SLURM batch script is not a step of srun and does all the work itself, although SLURM numbers
    it as well.

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
    """The processes that train together; with ``world`` 1 every operation is free.

    Attributes:
        rank: number of this process, from 0.
        world: how many there are.
        device: where this process computes.
    """

    def __init__(self, rank: int, world: int, device: "torch.device") -> None:
        self.rank, self.world, self.device = rank, world, device

    @property
    def pair(self) -> tuple[int, int]:
        """(rank, world): which rows of a batch are this process's."""
        return self.rank, self.world

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def all_sum(self, values: "Tensor") -> "Tensor":
        """Sum ``values`` over all processes, in place; the same bits in each of them."""
        import torch.distributed as dist

        with _explained():
            dist.all_reduce(values)
        return values

    def all_min(self, values: "Tensor") -> "Tensor":
        """Take the minimum of ``values`` over all processes, element by element, in place."""
        import torch.distributed as dist

        with _explained():
            dist.all_reduce(values, dist.ReduceOp.MIN)
        return values

    def all_max(self, value: int) -> int:
        """Return the largest ``value`` of all processes."""
        import torch
        import torch.distributed as dist

        if self.world == 1:
            return value
        largest = torch.tensor([value])
        with _explained():
            dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    def broadcast(self, content: bytes | None) -> bytes:
        """Return the first process's ``content`` in every process; the others give None."""
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

    def on_first(self, work: Callable[[], Result]) -> Result:
        """Do ``work`` in the first process alone and return its result, a JSON value, in all.

        Raises:
            MedaugError: in the first process what ``work`` raised, in the others that it failed.
        """
        if self.world == 1:
            return work()
        if not self.first:
            answer = json.loads(self.broadcast(None))
            if "error" in answer:
                raise RanksError(f"process {self.rank}: ended, as process 0 did: {answer['error']}")
            return answer["result"]
        try:
            result = work()
        except BaseException as error:
            reason = str(error) if isinstance(error, MedaugError) else type(error).__name__
            self.broadcast(json.dumps({"error": reason}).encode())
            raise
        self.broadcast(json.dumps({"result": result}).encode())
        return result


_ranks: Ranks | None = None


def current_ranks() -> Ranks | None:
    """The processes that train together, or None where this one is alone."""
    return _ranks


@contextmanager
def join(device: "torch.device") -> Iterator[Ranks]:
    """Connect the processes that the environment names; one alone needs no connection.

    Args:
        device: what the user chose; with GPUs each process takes that of its number on its machine.

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

    # Check the address of the first process and the GPU of this one.
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

    # Find the others, unless the caller has done so.
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

    # Work together; an NCCL group waits for its peers when it ends, and after an error they are
    # gone.
    sound = False
    try:
        yield _ranks
        sound = True
    finally:
        _ranks = None
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


def rendezvous(store: "Store", rank: int, world: int, patience: timedelta) -> "Store":
    """Return a part of ``store`` that only these ``world`` processes use.

    torchrun gives all attempts of a job one store and counts restarts on each machine apart, so
    that neither the store nor the count shows what an earlier attempt left there
    (https://github.com/pytorch/pytorch/issues/135712).  A process that believes a left address
    waits for one that is gone.  Here the first process draws a random key for this attempt, every
    other answers under it with a key of its own, and the attempt holds when the first has repeated
    that answer.

    Args:
        store: shared by all attempts.
        rank: number of this process.
        world: how many processes there are.
        patience: how long to wait for them.

    Raises:
        RuntimeError: not all of them came within ``patience``.
    """
    from torch.distributed import PrefixStore

    attempt = _call(store, world, patience) if rank == 0 else _answer(store, rank, patience)
    return PrefixStore(attempt, store)


def _call(store: "Store", world: int, patience: timedelta) -> str:
    attempt = secrets.token_hex(8)
    store.set("meeting", attempt)
    answers = [f"{attempt}/{other}" for other in range(1, world)]
    store.wait(answers, patience)
    store.set(f"{attempt}/held", " ".join(store.get(answer).decode() for answer in answers))
    return attempt


def _answer(store: "Store", rank: int, patience: timedelta) -> str:
    mine = secrets.token_hex(8)
    until = time.monotonic() + patience.total_seconds()
    store.wait(["meeting"], patience)
    answered = ""
    while time.monotonic() < until:
        attempt = store.get("meeting").decode()
        if attempt != answered:
            store.set(f"{attempt}/{rank}", mine)
            answered = attempt
        held = f"{attempt}/held"
        if store.check([held]) and mine in store.get(held).decode().split():
            return attempt
        time.sleep(POLL_S)
    raise RuntimeError(f"process 0 did not come within {patience.total_seconds():.0f} s")
