"""Batches made one ahead: the same ones, one at most, and no thread that outlives the loop."""

import signal
import threading
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from medaug.core.config import resolve
from medaug.core.errors import CacheError
from medaug.data.cache.prepare import SliceCache
from medaug.data.feed.feed import Feed, codec_for
from medaug.models import build
from medaug.training import loop
from medaug.training.prefetch import batches, prefetch, turns_from
from tests.conftest import TINY

SETTINGS = resolve(TINY, {"train": {"images": 320}})


def helpers() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("medaug-prefetch")]


@pytest.fixture(scope="module")
def cache(phantom_cache: Path) -> SliceCache:
    return SliceCache.open(phantom_cache)


@pytest.fixture(scope="module")
def feed(cache: SliceCache) -> Feed:
    data = SETTINGS.data
    return Feed(cache, data, codec_for(cache, data), seed=0, device=torch.device("cpu"))


def model_for(shape: Any) -> Any:
    return build(SETTINGS.model.name, SETTINGS.model.arguments, shape)


def test_all_come_in_order_and_one_at_most_is_made_ahead() -> None:
    made: list[int] = []
    begun = [threading.Event() for _ in range(6)]

    def make(place: int) -> int:
        made.append(place)
        begun[place].set()
        return 10 * place

    found = []
    for place, value in enumerate(prefetch(make, range(5))):
        found.append(value)
        if place < 4:
            assert begun[place + 1].wait(30)
        assert made == list(range(min(place + 2, 5)))
    assert found == [0, 10, 20, 30, 40]
    assert not helpers()
    assert list(prefetch(make, [])) == []


def test_what_goes_wrong_is_raised_as_it_was_when_its_turn_has_come() -> None:
    wrong = CacheError("cannot be read")

    def make(place: int) -> int:
        if place == 1:
            raise wrong
        return place

    coming = prefetch(make, range(3))
    assert next(coming) == 0
    with pytest.raises(CacheError) as caught:
        next(coming)
    assert caught.value is wrong
    assert not helpers()


def test_one_thread_on_one_core_until_it_is_closed() -> None:
    before, later = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        with closing(prefetch(lambda _: torch.get_num_threads(), range(9))) as coming:
            assert next(coming) == next(coming) == 1
            assert len(helpers()) == 1
            other = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
            other.start()
            other.join()
        assert not helpers()
        assert [torch.get_num_threads(), *later] == [2, 2]
    finally:
        torch.set_num_threads(before)


def test_turns_play_on_the_batches_of_their_places(feed: Feed) -> None:
    model = model_for(feed.shape)
    places = list(turns_from(0, model, SETTINGS.train))
    counts = {count for _, count in places}
    assert len(counts) > 1  # the prior takes more images at once
    assert all(start + count == then for (start, count), (then, _) in pairwise(places))
    assert list(turns_from(places[2][0], model, SETTINGS.train)) == places[2:]
    with closing(batches(feed, model, SETTINGS.train, places[2][0])) as coming:
        for place in places[2:5]:
            assert torch.equal(next(coming).x, feed.batch(*place).x)
    assert not helpers()
    with closing(batches(feed, model, SETTINGS.train, 0)) as coming:
        for place in places:
            assert torch.equal(next(coming).x, feed.batch(*place).x)
        with pytest.raises(StopIteration):
            next(coming)
    assert not helpers()


def test_on_a_gpu_no_thread_makes_them(feed: Feed) -> None:
    who: list[threading.Thread] = []

    def drawn(*place: object) -> None:
        who.append(threading.current_thread())

    device = torch.device("cuda")
    far: Any = SimpleNamespace(device=device, drawn=drawn, placed=lambda x: x, made=lambda x: x)
    coming = batches(far, model_for(feed.shape), SETTINGS.train, 0)
    next(coming)
    next(coming)
    coming.close()
    assert who == 2 * [threading.main_thread()]


@pytest.mark.parametrize("how", ["signal", "KeyboardInterrupt", "a batch that cannot be made"])
def test_a_run_that_ends_early_leaves_no_thread(
    cache: SliceCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    played, made = loop.play_round, Feed.made

    def round(training: loop.Training, data: Any) -> int:
        seen = played(training, data)
        assert len(helpers()) == 1
        if training.images > 64 and how == "signal":
            signal.raise_signal(signal.SIGTERM)
        if training.images > 64 and how == "KeyboardInterrupt":
            raise KeyboardInterrupt
        return seen

    def unreadable(self: Feed, drawn: Any) -> Any:
        if how.startswith("a batch"):
            raise CacheError("cannot be read")
        return made(self, drawn)

    monkeypatch.setattr(loop, "play_round", round)
    monkeypatch.setattr(Feed, "made", unreadable)
    if how == "signal":
        report = loop.fit(SETTINGS, cache, tmp_path, device="cpu")
        assert not report.finished
        assert 0 < report.waited < report.seconds
    else:
        wrong = CacheError if how.startswith("a batch") else KeyboardInterrupt
        with pytest.raises(wrong):
            loop.fit(SETTINGS, cache, tmp_path, device="cpu")
    assert not helpers()
