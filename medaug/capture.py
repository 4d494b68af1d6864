"""Turns captured as CUDA graphs: one launch instead of a thousand, double backward included.

Each kind of turn is played a few times as usual, on the stream that will record it, so that
optimisers and libraries have made what they keep; then it is recorded, and from then on replayed.
What differs between two turns of a kind lies in tensors that last: which slices and how they are
warped, the position, the rates.  Noise comes from the device's generator, seeded by position; a
graph reads the seed when it is launched.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from medaug.data.feed import Drawn, Feed
from medaug.errors import ConfigError
from medaug.models.base import Optim, Turn
from medaug.rounds import Game, Keys

WARM_UP = 3
"""Turns of a kind that are played before it is recorded."""

Kind = tuple[object, ...]


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
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            keys = play()
        return graph.replay, keys


@dataclass
class _Reel:
    """One kind of turn: its inputs, what plays it again, and what that counts."""

    given: Drawn
    warmed: int = 0
    replay: Callable[[], object] | None = None
    counted: Keys = ()


class Capture:
    """Plays turns on batches of a feed, recorded ones where that can be had.

    Args:
        game: whose turns; made with ``recorded``.
        feed: resident on the game's device.
        recorder: how turns are recorded.
        strict: whether a turn that cannot be recorded is an error.
    """

    def __init__(self, game: Game, feed: Feed, recorder: Recorder, strict: bool = False) -> None:
        self.game, self.feed, self.recorder, self.strict = game, feed, recorder, strict
        self.reels: dict[Kind, _Reel] = {}
        self.refused = False

    def turn(self, turn: Turn, drawn: Drawn, position: int, optim: Mapping[str, Optim]) -> None:
        """Play ``turn`` on the batch that was ``drawn``, which starts at image ``position``.

        Raises:
            ConfigError: it cannot be recorded, in strict use.
        """
        if self.refused:
            self.game.turn(turn, self.feed.made(self.feed.placed(drawn)), position, optim)
            return
        kind = (_name(turn), *shapes(drawn), *still(optim))
        if kind not in self.reels:
            self.reels[kind] = _Reel(copied(self.feed.placed(drawn)))
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
            self.record(reel, play, turn)

    def record(self, reel: _Reel, play: Callable[[], Keys], turn: Turn) -> None:
        """Record and play; where that fails play as usual from now on."""
        counts = {keys: tally.count for keys, tally in self.game.account.tallies.items()}
        try:
            replay, reel.counted = self.recorder.record(play)
        except RuntimeError as error:
            for keys, tally in self.game.account.tallies.items():
                tally.count = counts[keys]
            reason = str(error).strip().partition("\n")[0]
            if self.strict:
                raise ConfigError(
                    f"config train.capture: on, and {_name(turn)} cannot be recorded ({reason}); "
                    "auto plays it as usual"
                ) from error
            print(
                f"train: steps are launched one by one ({_name(turn)}: {reason})", file=sys.stderr
            )
            self.refused = True
            play()
            return
        reel.replay = replay
        replay()


def capture_for(
    game: Game, feed: Feed, wish: Literal["auto", "on", "off"], world: int = 1
) -> Capture | None:
    """The capture of a game on a feed, or None where its turns are played one by one.

    Raises:
        ConfigError: ``on`` where it is impossible.
    """
    if wish == "off":
        return None
    if game.device.type != "cuda":
        obstacle = f"the device is {game.device.type}, and graphs are CUDA's"
    elif world > 1:
        obstacle = f"{world} processes average their gradients at each step"
    elif game.private is not None:
        obstacle = "private training draws a different number of slices at each step"
    elif not feed.resident:
        obstacle = "the slices do not fit into the device's memory"
    else:
        return Capture(game, feed, CudaGraphs(game.device), wish == "on")
    if wish == "on":
        raise ConfigError(f"config train.capture: on is impossible here: {obstacle}")
    if game.device.type == "cuda":
        print(f"train: steps are launched one by one: {obstacle}", file=sys.stderr)
    return None


def _name(turn: Turn) -> str:
    return f"{turn.play.__module__}.{turn.play.__qualname__}"


def shapes(drawn: Drawn) -> Kind:
    """What tells the sizes of one batch from those of another."""
    return tuple(None if part is None else tuple(part.shape) for part in _parts(drawn))


def still(optim: Mapping[str, Optim]) -> Kind:
    """What a recorded step takes for constant: all settings but the rate."""
    return tuple((player, replace(how, lr=0.0)) for player, how in optim.items())


def _parts(drawn: Drawn) -> list[Tensor | None]:
    return [getattr(drawn, field.name) for field in fields(drawn)]


def copied(drawn: Drawn) -> Drawn:
    """``drawn`` in tensors of its own."""
    return Drawn(*(None if part is None else part.clone() for part in _parts(drawn)))  # type: ignore[arg-type]


def refill(there: Drawn, drawn: Drawn) -> None:
    """Write ``drawn`` into the tensors of ``there``."""
    for mine, given in zip(_parts(there), _parts(drawn), strict=True):
        if mine is not None and given is not None:
            mine.copy_(given, non_blocking=True)
