"""Prefetch batches: on the CPU the next one is made in a background thread.

A batch is a function of its position alone, so that the thread can make the next one while the
loop computes.  On a GPU no thread is needed: batches are made by kernels that run asynchronously.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import torch

from medaug.core.config import TrainConfig
from medaug.data.feed.feed import Feed
from medaug.models.base import Model
from medaug.training.privacy import PrivateGradients

Item = TypeVar("Item")
Made = TypeVar("Made")


def batches(
    feed: Feed,
    model: Model,
    train: TrainConfig,
    start: int,
    *,
    private: PrivateGradients | None = None,
    part: tuple[int, int] = (0, 1),
    draws_only: bool = False,
) -> Generator[Any, None, None]:
    """Yield what each turn of a run is played on, in order.

    Args:
        feed: makes the batches.
        model: its turns say how many images each of them takes.
        train: images of a batch and of the whole run.
        start: images seen before the first of these turns.
        private: chooses the slices where training is differentially private.
        part: (i, k): the rows of process i of k.
        draws_only: yield the `BatchDraw` of each turn, from which recorded turns make their batch
            themselves; else the `Batch`.
    """

    def make(turn: tuple[int, int]) -> Any:
        position, count = turn
        if private is None:
            draw = feed.drawn(position, count, part)
        else:
            draw = feed.moving(private.sample(position), position)
        return draw if draws_only else feed.made(feed.placed(draw))

    turns = turns_from(start, model, train)
    return prefetch(make, turns) if feed.device.type == "cpu" else (make(turn) for turn in turns)


def turns_from(start: int, model: Model, train: TrainConfig) -> Iterator[tuple[int, int]]:
    """Yield the position of each turn from image ``start`` on, and how many images it takes."""
    images = start
    while images < train.images:
        for turn in model.turns(images / train.images):
            count = turn.batches * train.batch
            yield images, count
            images += count


def prefetch(make: Callable[[Item], Made], items: Iterable[Item]) -> Generator[Made, None, None]:
    """Yield ``make(item)`` for each item in order, making the next while the caller is busy.

    One thread makes them all, and at most one that is made waits.  What ``make`` raises is raised
    here in its place.  Closing the generator ends the thread.
    """
    with ThreadPoolExecutor(1, "medaug-prefetch") as pool:
        _use_one_core(pool)
        rest = iter(items)
        coming = deque(pool.submit(make, item) for item in islice(rest, 1))
        while coming:
            made = coming.popleft().result()
            coming.extend(pool.submit(make, item) for item in islice(rest, 1))
            yield made


def _use_one_core(pool: ThreadPoolExecutor) -> None:
    """Let torch use one core in the thread of ``pool``, so that it does not slow the loop down.

    Torch keeps that number for each thread, and the last one set for threads to come.
    """

    def set_one() -> None:
        torch.get_num_threads()  # a thread that has never read it would forget what is set
        torch.set_num_threads(1)

    threads = torch.get_num_threads()
    pool.submit(set_one).result()
    torch.set_num_threads(threads)
