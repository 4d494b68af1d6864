"""Record turns as CUDA graphs: one launch instead of a thousand, double backward included.

Each kind of turn is first played a few times as usual, on the stream that will record it, so that
optimisers and libraries allocate what they keep; then it is recorded, and from then on replayed.
What differs between two turns of a kind is in tensors that stay in place: the slices and their
warps, the position, the learning rates.  Noise comes from the device's generator, which is seeded
by position; a graph reads the seed when it is launched.
"""

import sys
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from medaug.core.errors import ConfigError
from medaug.data.feed.feed import BatchDraw, Feed
from medaug.models.base import OptimizerSettings, Turn
from medaug.training.step import Players, TermKeys

WARM_UP = 3
"""Turns of a kind that are played before it is recorded."""

TurnKey = tuple[object, ...]


class CudaGraphs:
    """Record CUDA graphs on one stream; they share their memory, since no two run at a time."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()

    def warm(self, play: Callable[[], TermKeys]) -> TermKeys:
        """Play without recording, on the stream that will record."""
        self.stream.wait_stream(torch.cuda.current_stream(self.stream.device))
        with torch.cuda.stream(self.stream):
            keys = play()
        torch.cuda.current_stream(self.stream.device).wait_stream(self.stream)
        return keys

    def record(self, play: Callable[[], TermKeys]) -> tuple[Callable[[], object], TermKeys]:
        """Record ``play`` without doing it.

        Returns:
            A function that does what ``play`` does, and what ``play`` returned.

        Raises:
            RuntimeError: something in it cannot be recorded.
        """
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

        Its `capture_end` raises before it informs the device's generator and the allocator: the
        generator would refuse every draw, and the allocator would no longer free cached memory.
        """
        device = self.stream.device
        generator = torch.cuda.default_generators[device.index]
        generator.graphsafe_set_state(torch.Generator(device).graphsafe_get_state())
        with suppress(RuntimeError):  # the allocator knew already
            # Private, since torch's one public function that ends an allocation to a pool is the
            # `capture_end` that has just failed.
            torch._C._cuda_endAllocateToPool(device.index, self.pool)


@dataclass
class _CapturedTurn:
    """One kind of turn.

    Attributes:
        draw: what its batch is made of, in tensors that stay in place.
        warmed: how often it was played before recording.
        replay: plays it again; None until it is recorded.
        logged: the terms that it logs.
    """

    draw: BatchDraw
    warmed: int = 0
    replay: Callable[[], object] | None = None
    logged: TermKeys = ()


class GraphRunner:
    """Play turns on batches of a feed, recorded ones where that is possible.

    Args:
        players: whose turns; made with ``recorded``.
        feed: holds all slices on the players' device.
        recorder: how turns are recorded.
        strict: whether a turn that cannot be recorded is an error; else all are played as usual.
    """

    def __init__(
        self, players: Players, feed: Feed, recorder: CudaGraphs, strict: bool = False
    ) -> None:
        self.players, self.feed, self.recorder, self.strict = players, feed, recorder, strict
        self.captured: dict[TurnKey, _CapturedTurn] = {}
        self.failed = False

    def turn(
        self, turn: Turn, draw: BatchDraw, position: int, settings: Mapping[str, OptimizerSettings]
    ) -> None:
        """Play one turn.

        Args:
            turn: of the players' model.
            draw: what its batch is made of.
            position: images seen before the batch.
            settings: of the optimisers, by player.

        Raises:
            ConfigError: it cannot be recorded, where ``strict``.
        """
        players, placed = self.players, self.feed.placed(draw)
        if self.failed:
            players.turn(turn, self.feed.made(placed), position, settings)
            return
        # Two turns share a recording if they differ only in what is copied into place here.
        key = (*function_key(turn.play), *_shapes(draw), *_constants(settings))
        if key not in self.captured:
            self.captured[key] = _CapturedTurn(_copied(placed))
        captured = self.captured[key]
        _refill(captured.draw, placed)
        players.begin_turn(position, settings)

        def play() -> TermKeys:
            return players.play(turn, self.feed.made(captured.draw), settings)

        # Replay it, or warm up, or record it and replay that.
        if captured.replay is not None:
            captured.replay()
            players.loss_log.sums[captured.logged].count += 1
        elif captured.warmed < WARM_UP:
            self.recorder.warm(play)
            captured.warmed += 1
        elif (replay := self._record(captured, play, turn)) is not None:
            replay()
        else:  # recording may have changed the state of the device's generator
            players.begin_turn(position, settings)
            play()

    def _record(
        self, captured: _CapturedTurn, play: Callable[[], TermKeys], turn: Turn
    ) -> Callable[[], object] | None:
        """Record a turn; None where that fails, and all turns are played as usual from then on."""
        counts = {keys: sums.count for keys, sums in self.players.loss_log.sums.items()}
        try:
            captured.replay, captured.logged = self.recorder.record(play)
        except RuntimeError as error:
            for keys, sums in self.players.loss_log.sums.items():
                sums.count = counts[keys]
            name, reason = _name(turn.play), str(_first(error)).strip().partition("\n")[0]
            if self.strict:
                raise ConfigError(
                    f"config train.capture: on, and {name} cannot be recorded ({reason}); "
                    "auto plays it as usual"
                ) from error
            print(f"train: steps are launched one by one ({name}: {reason})", file=sys.stderr)
            self.failed = True
            self.captured.clear()
        return captured.replay


def can_record(
    feed: Feed, capture: Literal["auto", "on", "off"], world: int = 1, private: bool = False
) -> bool:
    """Whether turns are to be recorded, as far as is known before the first.

    Args:
        feed: makes the batches.
        capture: the setting ``train.capture``.
        world: number of processes that train together.
        private: whether training is differentially private.

    Raises:
        ConfigError: ``on`` where it is impossible.
    """
    if capture == "off":
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
    if capture == "on":
        raise ConfigError(f"config train.capture: on is impossible here: {obstacle}")
    if feed.device.type == "cuda":
        print(f"train: steps are launched one by one: {obstacle}", file=sys.stderr)
    return False


def _first(error: BaseException) -> BaseException:
    """The cause of a failed recording, whose end raises an error of its own."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def _name(play: Callable[..., object]) -> str:
    while isinstance(play, partial):
        play = play.func
    return f"{play.__module__}.{getattr(play, '__qualname__', type(play).__qualname__)}"


def function_key(play: Callable[..., object]) -> TurnKey:
    """What identifies a function that plays a turn: its name and the arguments bound to it."""
    if not isinstance(play, partial):
        return (_name(play),)
    bound = (*play.args, *sorted(play.keywords.items()))
    return (*function_key(play.func), *(_hashable(value) for value in bound))


def _hashable(value: Hashable) -> Hashable:
    try:
        hash(value)
    except TypeError:
        return repr(value)
    return value


def _shapes(draw: BatchDraw) -> TurnKey:
    return tuple(None if part is None else tuple(part.shape) for part in _parts(draw))


def _constants(settings: Mapping[str, OptimizerSettings]) -> TurnKey:
    """What a recorded step takes as constant: all settings but the rate."""
    return tuple((player, replace(own, lr=0.0)) for player, own in settings.items())


def _parts(draw: BatchDraw) -> list[Tensor | None]:
    return [getattr(draw, field.name) for field in fields(draw)]


def _copied(draw: BatchDraw) -> BatchDraw:
    """A copy in tensors of its own."""
    return BatchDraw(*(None if part is None else part.clone() for part in _parts(draw)))  # type: ignore[arg-type]


def _refill(there: BatchDraw, draw: BatchDraw) -> None:
    """Copy ``draw`` into the tensors of ``there``."""
    for mine, new in zip(_parts(there), _parts(draw), strict=True):
        if mine is not None and new is not None:
            mine.copy_(new, non_blocking=True)
