"""One loop for every model: ``fit`` plays rounds until enough images are seen.

Progress is counted in images; order, warps and noise are functions of (seed, images seen), so the
training state is weights and optimisers alone, and a killed run goes on bit for bit on the CPU.
"""

import os
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medaug import __version__
from medaug.checkpoint import load_state, read_tensors, save_state, write_tensors
from medaug.codec import CTCodec
from medaug.config import Config
from medaug.data.adjoining import adjoining
from medaug.data.cache import SliceCache
from medaug.data.feed import Feed, codec_for
from medaug.device import channels_last, choose_device, choose_precision
from medaug.errors import RunError
from medaug.files import held, remove_parts
from medaug.models import build
from medaug.models.base import Model
from medaug.preview import grid
from medaug.private import Ledger, Private, check
from medaug.progress import progress
from medaug.rounds import Average, Game, below, shadow_of
from medaug.run import append_metrics, claim, snapshot_paths, truncate_metrics, weights_path
from medaug.seeds import derive, generator
from medaug.tensors import Batch
from medaug.text import tell

GRID = 16
METRICS_PER_SNAPSHOT = 5
SETTLE = 10_000
SETTLE_BATCH = 250


@dataclass(frozen=True)
class TrainReport:
    """What a call of ``fit`` did.

    Attributes:
        run: the run folder.
        images: images seen in all, of which ``resumed`` before this call.
        resumed: see ``images``.
        finished: whether the run is complete; false after an interrupt.
        seconds: of this call; ``waited`` of them for data.
        waited: see ``seconds``.
        privacy: what a private run promises, as in the weights' header; else None.
    """

    run: Path
    images: int
    resumed: int
    finished: bool
    seconds: float
    waited: float
    privacy: dict[str, Any] | None = None


def fit(
    config: Config,
    cache: SliceCache,
    run: str | Path,
    *,
    device: str = "auto",
    init: str | Path | None = None,
    unlabeled: SliceCache | None = None,
) -> TrainReport:
    """Train ``config`` on ``cache`` in the folder ``run``; called again it goes on.

    Args:
        config: what to train.
        cache: complete, of the size and field that ``config.data`` asks for.
        run: the run folder, new or of an earlier call with the same settings.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        init: a weight file or run of the same model and shape to start from instead of noise.
        unlabeled: slices of scans without labels that join training.

    Raises:
        ConfigError: a setting that is not accepted.
        RunError: the folder holds another run, or none of its checkpoints is sound.
        TrainingError: a loss or gradient is not finite.
        OutputError: the disk does not take the result.
    """
    run, init = Path(run), None if init is None else Path(init)
    where = choose_device(device)
    codec = codec_for(cache, config.data)
    seed = config.train.seed
    feed = Feed(cache, config.data, codec, seed=seed, device=where, unlabeled=unlabeled)
    construct = partial(build, config.model.name, config.model.arguments, feed.shape)
    privacy = config.train.privacy
    ledger = None
    if privacy is not None:
        check(config.model, feed.shape)
        ledger = Ledger(privacy, config.train.batch, feed.owners)
    torch.manual_seed(derive(seed, "weights"))
    model = construct()
    with held(run):
        remove_parts(run)
        began = claim(run, config, _facts(run, cache, unlabeled, feed, config, where, init))
        precision = str(began["_precision"])
        shadow = shadow_of(construct, model)
        if precision == "bfloat16":
            channels_last(model)
            channels_last(shadow)
        private = None
        if ledger is not None:
            private = Private(model, ledger, str(began["_secret"]), where, precision)
        trainer = _Trainer(config, cache, feed, model.to(where), run, precision, private)
        trainer.shadow = Average(shadow.to(where), model, config.train.ema_half_life)
        trainer.begin(init)
        return trainer.work()


def _facts(
    run: Path,
    cache: SliceCache,
    unlabeled: SliceCache | None,
    feed: Feed,
    config: Config,
    where: torch.device,
    init: Path | None,
) -> dict[str, Any]:
    return {
        "command": "train",
        "cache": cache.fingerprint,
        "unlabeled": None if unlabeled is None else unlabeled.fingerprint,
        "source": cache.source,
        "init": None if init is None else _weights(init).name,
        "_slices": len(feed),
        "_cache": os.path.relpath(cache.path.resolve(), run.resolve()),
        "_unlabeled": None
        if unlabeled is None
        else os.path.relpath(unlabeled.path.resolve(), run.resolve()),
        "_precision": choose_precision(config.train.precision, where),
        "_device": str(where),
        "_versions": {"medaug": __version__, "torch": torch.__version__},
        **({} if config.train.privacy is None else {"_secret": secrets.token_hex(32)}),
    }


def _weights(path: Path) -> Path:
    return weights_path(path) if path.is_dir() else path


class _Trainer:
    """The state of one call of ``fit``."""

    shadow: Average

    def __init__(
        self,
        config: Config,
        cache: SliceCache,
        feed: Feed,
        model: Model,
        run: Path,
        precision: str,
        private: Private | None,
    ) -> None:
        self.config, self.cache, self.feed, self.model, self.run = config, cache, feed, model, run
        self.private = private
        self.game = Game(model, config.train.seed, feed.device, precision, private)
        self.images = self.resumed = 0
        self.waited = 0.0

    def begin(self, init: Path | None) -> None:
        """Take up the newest checkpoint, or start from ``init`` or from noise."""
        state = load_state(self.run)
        if state is not None:
            self.images, tensors = state
            self.game.restore(below(tensors, "game."))
            self.shadow.model.load_state_dict(below(tensors, "average."))
            tell(f"{self.run}: going on from image {self.images}")
        elif init is not None:
            _start_from(self.model, _weights(init))
            self.shadow.copy()
        self.resumed = self.images
        truncate_metrics(self.run, self.images)

    def work(self) -> TrainReport:
        """Play until done or interrupted; whatever happens, the last checkpoint is sound."""
        train = self.config.train
        started = time.monotonic()
        due = _next(self.images, train.snapshot_every)
        every = max(train.batch, train.snapshot_every // METRICS_PER_SNAPSHOT)
        told = _next(self.images, every)
        self.model.train()
        with (
            _interrupts() as interrupted,
            progress("train", train.images, "images", self.images) as bar,
        ):
            since, at = time.monotonic(), self.images
            while self.images < train.images and not interrupted:
                seen = self.round()
                bar.advance(seen, self.note)
                if self.images >= told or self.images >= train.images:
                    self.tell((self.images - at) / max(time.monotonic() - since, 1e-9))
                    since, at = time.monotonic(), self.images
                    told = _next(self.images, every)
                if due <= self.images < train.images:
                    self.snapshot()
                    due = _next(self.images, train.snapshot_every)
            if self.images > self.resumed or not weights_path(self.run).exists():
                self.snapshot()
        if interrupted:
            tell(f"{self.run}: interrupted; the same command goes on")
        return TrainReport(
            self.run,
            self.images,
            self.resumed,
            self.images >= train.images,
            time.monotonic() - started,
            self.waited,
            self.statement(),
        )

    note = ""

    def round(self) -> int:
        """Play the turns of one round; returns the images it saw."""
        progress_made = self.images / self.config.train.images
        optim = self.model.optim(progress_made)
        start = self.images
        for turn in self.model.turns(progress_made):
            count = turn.batches * self.config.train.batch
            before = time.perf_counter()
            if self.private is None:
                batch = self.feed.batch(self.images, count)
            else:
                batch = self.feed.warped(self.private.sample(self.images), self.images)
            self.waited += time.perf_counter() - before
            self.game.turn(turn, batch, self.images, optim)
            self.images += count
        self.shadow.update(self.images - start, self.images)
        return self.images - start

    def tell(self, speed: float) -> None:
        """Write the means of every term since the last time."""
        means = self.game.account.close()
        row = {"images": self.images, "images_per_s": round(speed, 1), **means}
        if self.private is not None:
            row["epsilon"] = self.private.ledger.epsilon(self.images)
        append_metrics(self.run, row)
        terms = {key.partition("/")[2]: value for key, value in means.items()}
        terms.pop("gradient", None)
        self.note = " ".join(f"{term} {value:.3g}" for term, value in terms.items())

    def statement(self) -> dict[str, Any] | None:
        """What a private run promises by now."""
        return None if self.private is None else self.private.ledger.statement(self.images)

    def snapshot(self) -> None:
        """Keep the training state, the exported generator and a picture of what it draws."""
        self.game.account.check()
        tensors = {f"game.{k}": v for k, v in self.game.tensors().items()}
        self.shadow.model.settle(self.still())
        average = self.shadow.model.state_dict()
        tensors |= {f"average.{k}": v for k, v in average.items()}
        save_state(self.run, self.images, tensors)
        header = self.header()
        write_tensors(weights_path(self.run), average, header)
        self.keep(average, header)
        self.draw()

    def keep(self, average: dict[str, Tensor], header: dict[str, Any]) -> None:
        """The newest ``keep_snapshots`` generators, beside the one in use."""
        count = self.config.train.keep_snapshots
        if not count:
            return
        place = self.run / "snapshots" / f"{self.images:010d}.safetensors"
        write_tensors(place, average, header)
        for old in snapshot_paths(self.run)[:-count]:
            old.unlink()

    def still(self) -> Iterator[Batch]:
        """Unwarped training images, the same at every call."""
        count = min(SETTLE, len(self.feed))
        draws = generator(self.config.train.seed, "settle")
        chosen = torch.randperm(len(self.feed), generator=draws)[:count]
        for index in chosen.split(SETTLE_BATCH):
            yield self.feed.at(index)

    def header(self) -> dict[str, Any]:
        """What a reader of the weights needs to know: config, codec, shape and geometry."""
        shape, condition = self.feed.shape, self.feed.condition
        return {
            "kind": self.cache.content,
            "precision": self.game.precision,
            "images": self.images,
            **({} if self.private is None else {"privacy": self.statement()}),
            "config": self.config.dump(),
            "codec": self.feed.codec.to_dict(),
            "shape": vars(shape),
            "classes": list(condition.classes),
            "condition": list(condition.names),
            "conditions": [list(row) for row in condition.rows],
            "affine": typical_affine(self.cache).tolist(),
            "adjoining": self.adjoining,
            "source": self.cache.source,
        }

    @cached_property
    def adjoining(self) -> dict[str, Any] | None:
        """How real slices follow each other, for stacks to be held against."""
        codec = self.feed.codec
        if not isinstance(codec, CTCodec):
            return None
        return adjoining(self.cache, self.config.data, codec.labels, codec.window_hu)

    @torch.no_grad()
    def draw(self) -> None:
        """Samples of the same noise, and for the same masks, at every snapshot, as one picture."""
        model = self.shadow.model
        draws = generator(self.config.train.seed, "grid")
        noise = torch.randn(GRID, *model.noise_shape, generator=draws).to(self.feed.device)
        codec, label = self.feed.codec, None
        if isinstance(codec, CTCodec) and codec.told:
            order = torch.randperm(len(self.feed), generator=draws).repeat(GRID)[:GRID]
            cond, label = self.feed.at(order).cond, self.feed.marks(order)
        else:
            cond = self.feed.condition.at(self.config.train.seed, range(GRID))
            cond = None if cond is None else cond.to(self.feed.device)
        image, drawn = codec.decode(model.decode(model.prior(noise, cond), cond))
        label = drawn if label is None else label
        path = self.run / "samples" / f"{self.images:010d}.png"
        window = (0.0, 255.0)
        if isinstance(codec, CTCodec):
            window = codec.window_hu
        masks = None if label is None else label.cpu().numpy()
        grid(image.cpu().numpy(), masks, path, window=window)


def typical_affine(cache: SliceCache) -> np.ndarray:
    """The affine of a synthetic slice: the cache's pixel and median step, origin at its centre."""
    if cache.kind == "image":
        return np.eye(4)
    spacing = np.median([case.spacing_mm for case in cache.cases.values()], axis=0)
    size = next(iter(cache.cases.values())).image.shape[-1]
    affine = np.diag([*spacing, 1.0])
    affine[:2, 3] = -spacing[:2] * (size - 1) / 2
    return affine


def _start_from(model: Model, path: Path) -> None:
    """Take over the weights in ``path``; networks it does not hold keep their own.

    Raises:
        RunError: the weights are of another model or shape.
    """
    tensors, _, _ = read_tensors(path)
    mine: dict[str, Tensor] = model.state_dict()
    for name, value in tensors.items():
        if name not in mine or mine[name].shape != value.shape:
            raise RunError(
                f"{path}: holds weights of another model or size ({name} does not fit); "
                "start from weights made by the same --model, preset and --size"
            )
    model.load_state_dict({**mine, **tensors})


def _next(images: int, every: int) -> int:
    return (images // every + 1) * every


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying by them, where signals can be had."""
    caught: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        caught.append(number)

    try:
        old = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread
        yield caught
        return
    try:
        yield caught
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
