"""Turns captured as CUDA graphs: one launch instead of a thousand, double backward included.

Each kind of turn is played a few times as usual, on the stream that will record it, so that
optimisers and libraries have made what they keep; then it is recorded, and from then on replayed.
What differs between two turns of a kind lies in tensors that last: which slices and how they are
warped, the position, the rates.  Noise comes from the device's generator, seeded by position; a
graph reads the seed when it is launched.
"""

import sys
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Literal, Protocol

import torch
from torch import Tensor

from medaug.core.errors import ConfigError
from medaug.data.feed.feed import BatchDraw, Feed
from medaug.models.base import OptimizerSettings, Turn
from medaug.training.step import Keys, Players

WARM_UP = 3
"""Turns of a kind that are played before it is recorded."""

TurnKey = tuple[object, ...]


class Recorder(Protocol):
    """Records what a function does to tensors, so that it can be done again."""

    def warm(self, play: Callable[[], Keys]) -> Keys:
        """Play without recording."""

    def record(self, play: Callable[[], Keys]) -> tuple[Callable[[], object], Keys]:
        """What does again what ``play`` does, without having done it, and what ``play`` returned.

        Raises:
            RuntimeError: something in it cannot be recorded.
        """


class CudaGraphs:
    """Records as CUDA graphs on one stream; they share their memory, since they run in turns."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()

    def warm(self, play: Callable[[], Keys]) -> Keys:
        self.stream.wait_stream(torch.cuda.current_stream(self.stream.device))
        with torch.cuda.stream(self.stream):
            keys = play()
        torch.cuda.current_stream(self.stream.device).wait_stream(self.stream)
        return keys

    def record(self, play: Callable[[], Keys]) -> tuple[Callable[[], object], Keys]:
        graph = torch.cuda.CUDAGraph()
        try:
            with (
                torch.cuda.stream(self.stream),  # leaves it even where the next one raises
                torch.cuda.graph(graph, pool=self.pool, stream=self.stream),
            ):
                keys = play()
        except BaseException:
            self.recover()
            raise
        return graph.replay, keys

    def recover(self) -> None:
        """Undo what torch before 2.13 leaves of a failed recording.

        Its `capture_end` raises before it tells the device's generator and the allocator: the one
        would refuse every draw, the other would no longer free what it holds to avoid running out
        of memory.
        """
        device = self.stream.device
        generator = torch.cuda.default_generators[device.index]
        generator.graphsafe_set_state(torch.Generator(device).graphsafe_get_state())
        with suppress(RuntimeError):  # it was told
            torch._C._cuda_endAllocateToPool(device.index, self.pool)


@dataclass
class _CapturedTurn:
    """One kind of turn: its inputs, what plays it again, and what that counts."""

    given: BatchDraw
    warmed: int = 0
    replay: Callable[[], object] | None = None
    counted: Keys = ()


class GraphRunner:
    """Plays turns on batches of a feed, recorded ones where that can be had.

    Args:
        game: whose turns; made with ``recorded``.
        feed: resident on the game's device.
        recorder: how turns are recorded.
        strict: whether a turn that cannot be recorded is an error.
    """

    def __init__(self, game: Players, feed: Feed, recorder: Recorder, strict: bool = False) -> None:
        self.game, self.feed, self.recorder, self.strict = game, feed, recorder, strict
        self.reels: dict[TurnKey, _CapturedTurn] = {}
        self.refused = False

    def turn(
        self, turn: Turn, drawn: BatchDraw, position: int, optim: Mapping[str, OptimizerSettings]
    ) -> None:
        """Play ``turn`` on the batch that was ``drawn``, which starts at image ``position``.

        Raises:
            ConfigError: it cannot be recorded, in strict use.
        """
        if self.refused:
            self.game.turn(turn, self.feed.made(self.feed.placed(drawn)), position, optim)
            return
        kind = (*function(turn.play), *shapes(drawn), *still(optim))
        if kind not in self.reels:
            self.reels[kind] = _CapturedTurn(copied(self.feed.placed(drawn)))
        reel = self.reels[kind]
        refill(reel.given, self.feed.placed(drawn))
        self.game.address(position, optim)

        def play() -> Keys:
            return self.game.play(turn, self.feed.made(reel.given), optim)

        if reel.replay is not None:
            reel.replay()
            self.game.account.tallies[reel.counted].count += 1
        elif reel.warmed < WARM_UP:
            self.recorder.warm(play)
            reel.warmed += 1
        else:
            replay = self.recorded(reel, play, turn)
            if replay is None:  # the device's generator may have begun anew
                self.game.address(position, optim)
                play()
            else:
                replay()

    def recorded(
        self, reel: _CapturedTurn, play: Callable[[], Keys], turn: Turn
    ) -> Callable[[], object] | None:
        """What plays the turn, or None where that fails: then all are played as usual."""
        counts = {keys: tally.count for keys, tally in self.game.account.tallies.items()}
        try:
            reel.replay, reel.counted = self.recorder.record(play)
        except RuntimeError as error:
            for keys, tally in self.game.account.tallies.items():
                tally.count = counts[keys]
            name, reason = _name(turn.play), str(_first(error)).strip().partition("\n")[0]
            if self.strict:
                raise ConfigError(
                    f"config train.capture: on, and {name} cannot be recorded ({reason}); "
                    "auto plays it as usual"
                ) from error
            print(f"train: steps are launched one by one ({name}: {reason})", file=sys.stderr)
            self.refused = True
            self.reels.clear()
        return reel.replay


def can_record(
    feed: Feed, wish: Literal["auto", "on", "off"], world: int = 1, private: bool = False
) -> bool:
    """Whether turns on ``feed`` are to be recorded, by all that is known before the first.

    Raises:
        ConfigError: ``on`` where it is impossible.
    """
    if wish == "off":
        return False
    if feed.device.type != "cuda":
        obstacle = f"the device is {feed.device.type}, and graphs are CUDA's"
    elif world > 1:
        obstacle = f"{world} processes average their gradients at each step"
    elif private:
        obstacle = "private training draws a different number of slices at each step"
    elif not feed.resident:
        obstacle = "the slices do not fit into the device's memory"
    else:
        return True
    if wish == "on":
        raise ConfigError(f"config train.capture: on is impossible here: {obstacle}")
    if feed.device.type == "cuda":
        print(f"train: steps are launched one by one: {obstacle}", file=sys.stderr)
    return False


def _first(error: BaseException) -> BaseException:
    """What was raised first: the end of a recording complains of it, too."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def _name(play: Callable[..., object]) -> str:
    while isinstance(play, partial):
        play = play.func
    return f"{play.__module__}.{getattr(play, '__qualname__', type(play).__qualname__)}"


def function(play: Callable[..., object]) -> TurnKey:
    """What tells one function that plays from another: its name, and what it was bound to."""
    if not isinstance(play, partial):
        return (_name(play),)
    bound = (*play.args, *sorted(play.keywords.items()))
    return (*function(play.func), *(_hashable(value) for value in bound))


def _hashable(value: Hashable) -> Hashable:
    try:
        hash(value)
    except TypeError:
        return repr(value)
    return value


def shapes(drawn: BatchDraw) -> TurnKey:
    """What tells the sizes of one batch from those of another."""
    return tuple(None if part is None else tuple(part.shape) for part in _parts(drawn))


def still(optim: Mapping[str, OptimizerSettings]) -> TurnKey:
    """What a recorded step takes for constant: all settings but the rate."""
    return tuple((player, replace(how, lr=0.0)) for player, how in optim.items())


def _parts(drawn: BatchDraw) -> list[Tensor | None]:
    return [getattr(drawn, field.name) for field in fields(drawn)]


def copied(drawn: BatchDraw) -> BatchDraw:
    """``drawn`` in tensors of its own."""
    return BatchDraw(*(None if part is None else part.clone() for part in _parts(drawn)))  # type: ignore[arg-type]


def refill(there: BatchDraw, drawn: BatchDraw) -> None:
    """Write ``drawn`` into the tensors of ``there``."""
    for mine, given in zip(_parts(there), _parts(drawn), strict=True):
        if mine is not None and given is not None:
            mine.copy_(given, non_blocking=True)
