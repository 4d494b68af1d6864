"""What the turns of a run play on, in their order: on the CPU each batch is made one ahead.

A batch is a function of its place alone, so that a thread makes the next one while the loop plays.
On a GPU batches are made by kernels that nobody waits for.
"""

import time
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

Place = TypeVar("Place")
Made = TypeVar("Made")


class Prefetcher:
    """Hands out batches of a feed, or what is drawn of them, until it is closed.

    Args:
        feed: where batches are made.
        model: whose turns they are for.
        train: how many images a batch and the run have.
        private: draws the slices where training is differentially private.
        part: which rows of each batch, as `Feed.batch` takes them.
        drawn: whether turns make their batches themselves, of what is drawn.

    Attributes:
        waited: seconds that were spent in ``next``.
    """

    def __init__(
        self,
        feed: Feed,
        model: Model,
        train: TrainConfig,
        private: PrivateGradients | None,
        part: tuple[int, int],
        drawn: bool,
    ) -> None:
        self.feed, self.model, self.train = feed, model, train
        self.private, self.part, self.drawn = private, part, drawn
        self.waited = 0.0
        self.coming: Generator[Any, None, None] | None = None

    def next(self, images: int) -> Any:
        """What the turn at image ``images`` plays on, once it is there; turns come in order."""
        before = time.perf_counter()
        if self.coming is None:
            self.coming = self.begun(self.places(images))
        made = next(self.coming)
        self.waited += time.perf_counter() - before
        return made

    def begun(self, places: Iterator[tuple[int, int]]) -> Generator[Any, None, None]:
        """What the turns at ``places`` play on."""
        if self.feed.device.type == "cpu":
            return prefetch(self.made, places)
        return (self.made(place) for place in places)

    def close(self) -> None:
        """End the thread; the next turn may be any."""
        if self.coming is not None:
            self.coming.close()
        self.coming = None

    def places(self, images: int) -> Iterator[tuple[int, int]]:
        """Where the batch of each turn from ``images`` on begins, and how many images it has."""
        while images < self.train.images:
            for turn in self.model.turns(images / self.train.images):
                count = turn.batches * self.train.batch
                yield images, count
                images += count

    def made(self, place: tuple[int, int]) -> Any:
        """What a turn at ``place`` plays on."""
        position, count = place
        if self.private is None:
            drawn = self.feed.drawn(position, count, self.part)
        else:
            drawn = self.feed.moving(self.private.sample(position), position)
        return drawn if self.drawn else self.feed.made(self.feed.placed(drawn))


def prefetch(make: Callable[[Place], Made], places: Iterable[Place]) -> Generator[Made, None, None]:
    """``make`` of every place in order, each made while its user is busy with the one before.

    One thread makes them all, and at most one that is made waits.  What ``make`` raises is raised
    here when its turn has come.
    """
    with ThreadPoolExecutor(1, "medaug-supply") as pool:
        _on_one_core(pool)
        rest = iter(places)
        coming = deque(pool.submit(make, place) for place in islice(rest, 1))
        while coming:
            made = coming.popleft().result()
            coming.extend(pool.submit(make, place) for place in islice(rest, 1))
            yield made


def _on_one_core(pool: ThreadPoolExecutor) -> None:
    """Have torch compute on one core in the thread of ``pool``, where it crowds out nobody.

    Torch keeps that number for each thread, and the last one set for threads to come.
    """

    def alone() -> None:
        torch.get_num_threads()  # a thread that has never asked would forget what it is set to
        torch.set_num_threads(1)

    threads = torch.get_num_threads()
    pool.submit(alone).result()
    torch.set_num_threads(threads)
