"""One loop for every model: ``fit`` plays rounds until enough images are seen.

Progress is counted in images; order, warps and noise are functions of (seed, images seen), so the
training state is weights and optimisers alone, and a killed run goes on bit for bit on the CPU.
"""

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medaug import __version__
from medaug.core.batch import Batch
from medaug.core.config import Config
from medaug.core.errors import ConfigError, TrainingError
from medaug.core.seeds import derive, generator
from medaug.core.text import tell
from medaug.data.cache.prepare import SliceCache
from medaug.data.feed.feed import Feed, codec_for
from medaug.models import build
from medaug.models.base import Model
from medaug.runtime.collectives import share_norms
from medaug.runtime.device import channels_last, choose_device, choose_precision, tune
from medaug.runtime.distributed import Ranks, joined
from medaug.runtime.files import exclusive, remove_parts
from medaug.runtime.progress import progress
from medaug.runtime.signals import noted
from medaug.training.checkpoint import load_state, pack, save_state, sound, unpack, write_tensors
from medaug.training.cuda_graphs import CudaGraphs, GraphRunner, can_record
from medaug.training.ema import Average, shadow_of
from medaug.training.export import Exporter
from medaug.training.prefetch import Prefetcher
from medaug.training.privacy import PrivacyAccountant, PrivateGradients, check_supported
from medaug.training.run import (
    append_metrics,
    claim,
    snapshot_paths,
    truncate_metrics,
    weights_path,
)
from medaug.training.step import Players, below
from medaug.training.weights import start_from


def check_shared(config: Config, world: int) -> None:
    """Refuse what ``world`` processes cannot share.

    Raises:
        ConfigError: private training, or a batch that they do not divide.
    """
    if world > 1 and config.train.privacy is not None:
        raise ConfigError(
            f"train.privacy: {world} processes cannot share a private step, whose slices are "
            "drawn and whose noise is added once; train in one process"
        )
    if config.train.batch % world:
        raise ConfigError(
            f"config train.batch: {config.train.batch} is of all processes together, and {world} "
            "do not divide it; choose a multiple, or another number of processes"
        )


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
        waited: see ``seconds``; of recorded turns without the start of their copies to the GPU,
            which nobody waits for.
        privacy: what a private run promises, as in the weights' header; else None.
        signal: which one stopped it; None where it ended by itself.
    """

    run: Path
    images: int
    resumed: int
    finished: bool
    seconds: float
    waited: float
    privacy: dict[str, Any] | None = None
    signal: int | None = None


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

    Under torchrun every process calls it alike: each plays its rows of the same batches, and the
    first one writes.  ``train.batch`` is of all together, so their number may change under a run.

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
        RanksError: another process of several is gone.
    """
    with joined(choose_device(device)) as ranks, ExitStack() as stack:
        place = Path(run)
        start = None if init is None else Path(init)
        trainer = _set_up(config, cache, place, ranks, stack, start, unlabeled)
        trainer.begin(start)
        return trainer.work()


def _set_up(
    config: Config,
    cache: SliceCache,
    run: Path,
    ranks: Ranks,
    stack: ExitStack,
    init: Path | None,
    unlabeled: SliceCache | None,
) -> "_Trainer":
    """All that training needs; the first process holds ``run`` until ``stack`` ends."""
    where, seed = ranks.device, config.train.seed
    tune(where)
    check_shared(config, ranks.world)
    codec = codec_for(cache, config.data)
    feed = Feed(cache, config.data, codec, seed=seed, device=where, unlabeled=unlabeled)
    construct = partial(build, config.model.name, config.model.arguments, feed.shape)
    privacy = config.train.privacy
    ledger = None
    if privacy is not None:
        check_supported(config.model, feed.shape)
        ledger = PrivacyAccountant(privacy, config.train.batch, feed.owners)
    torch.manual_seed(derive(seed, "weights"))
    model = construct()

    def claimed() -> dict[str, Any]:
        stack.enter_context(exclusive(run))
        remove_parts(run)
        return claim(run, config, _facts(run, cache, unlabeled, feed, config, where, init))

    began = ranks.led(claimed)
    precision = str(began["_precision"])
    shadow = shadow_of(construct, model)
    if ranks.world > 1:
        share_norms(model)
    if precision == "bfloat16":
        channels_last(model)
        channels_last(shadow)
    private = None
    if ledger is not None:
        private = PrivateGradients(model, ledger, str(began["_secret"]), where, precision)
    trainer = _Trainer(config, cache, feed, model.to(where), run, precision, private, ranks)
    trainer.shadow = Average(shadow.to(where), model, config.train.ema_half_life)
    return trainer


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
        private: PrivateGradients | None,
        ranks: Ranks,
    ) -> None:
        self.config, self.feed, self.model, self.run = config, feed, model, run
        self.private, self.ranks = private, ranks
        self.exporter = Exporter(config, cache, feed)
        device, wish = feed.device, config.train.capture
        recorded = can_record(feed, wish, ranks.world, private is not None)
        self.game = Players(model, config.train.seed, device, precision, private, recorded)
        self.capture = None
        if recorded:
            self.capture = GraphRunner(self.game, feed, CudaGraphs(device), wish == "on")
        self.supply = Prefetcher(feed, model, config.train, private, ranks.pair, recorded)
        self.images = self.resumed = 0

    def begin(self, init: Path | None) -> None:
        """Take up the newest checkpoint, or start from ``init`` or from noise, all alike."""
        state: tuple[int, dict[str, Tensor]] | None = None

        def found() -> int | None:
            nonlocal state
            state = load_state(self.run)
            if state is None and init is not None:
                start_from(self.model, _weights(init))
            truncate_metrics(self.run, 0 if state is None else state[0])
            return None if state is None else state[0]

        images = self.ranks.led(found)
        tensors = {} if state is None else state[1]
        if self.ranks.world > 1:
            mine = tensors or {f"game.{k}": v for k, v in self.game.tensors().items()}
            tensors = unpack(self.ranks.send(pack(mine) if self.ranks.first else None))
        if tensors:
            self.game.restore(below(tensors, "game."))
        if images is None:
            self.shadow.copy()
        else:
            self.images = images
            self.shadow.model.load_state_dict(below(tensors, "average."))
            if self.ranks.first:
                tell(f"{self.run}: going on from image {self.images}")
        self.resumed = self.images

    def work(self) -> TrainReport:
        """Play until done or interrupted; whatever happens, the last checkpoint is sound."""
        train = self.config.train
        started = time.monotonic()
        due = _next(self.images, train.snapshot_every)
        every = max(train.batch, train.snapshot_every // METRICS_PER_SNAPSHOT)
        told = _next(self.images, every)
        self.model.train()
        stop = 0
        with (
            noted() as signals,
            closing(self.supply),
            progress("train", train.images, "images", self.images, not self.ranks.first) as bar,
        ):
            since, at = time.monotonic(), self.images
            while self.images < train.images:
                stop = self.ranks.agreed(max(signals, default=0))
                if stop:
                    break
                seen = self.round()
                bar.advance(seen, self.note)
                if self.images >= told or self.images >= train.images:
                    self.tell((self.images - at) / max(time.monotonic() - since, 1e-9))
                    since, at = time.monotonic(), self.images
                    told = _next(self.images, every)
                if due <= self.images < train.images:
                    self.snapshot()
                    due = _next(self.images, train.snapshot_every)
            if self.images > self.resumed or not self.ranks.led(self.exported):
                self.snapshot(planned=self.images >= train.images)
        if stop and self.ranks.first:
            tell(f"{self.run}: interrupted; the same command goes on")
        return TrainReport(
            self.run,
            self.images,
            self.resumed,
            self.images >= train.images,
            time.monotonic() - started,
            self.supply.waited,
            self.statement(),
            stop or None,
        )

    def exported(self) -> bool:
        """Whether the run's generator is there, whole."""
        return sound(weights_path(self.run))

    note = ""

    def round(self) -> int:
        """Play the turns of one round; returns the images it saw."""
        config = self.config.train
        progress_made = self.images / config.images
        optim = self.model.optim(progress_made)
        start = self.images
        for turn in self.model.turns(progress_made):
            given = self.supply.next(self.images)
            (self.capture or self.game).turn(turn, given, self.images, optim)
            self.images += turn.batches * config.batch
        self.shadow.update(self.images - start, self.images)
        return self.images - start

    def tell(self, speed: float) -> None:
        """Write the means of every term since the last time."""
        means = self.game.account.close()
        row = {"images": self.images, "images_per_s": round(speed, 1), **means}
        if self.private is not None:
            row["epsilon"] = self.private.ledger.epsilon(self.images)
        self.ranks.led(lambda: append_metrics(self.run, row))
        terms = {key.partition("/")[2]: value for key, value in means.items()}
        terms.pop("gradient", None)
        self.note = " ".join(f"{term} {value:.3g}" for term, value in terms.items())

    def statement(self) -> dict[str, Any] | None:
        """What a private run promises by now."""
        return None if self.private is None else self.private.ledger.statement(self.images)

    def snapshot(self, planned: bool = True) -> None:
        """Keep the training state, the exported generator and a picture of what it draws.

        One that is not ``planned`` has no picture, and no generator beside the one in use, so that
        the run becomes what it would have been without the interruption.
        """
        self.game.account.check()
        self.check_alike()
        self.ranks.led(lambda: self.write(planned))

    def check_alike(self) -> None:
        """Stop where processes have come to hold different weights.

        Raises:
            TrainingError: they have.
        """
        if self.ranks.world == 1:
            return
        mine = int(sha256(pack(self.game.tensors())).hexdigest()[:15], 16)
        if self.ranks.agreed(mine) != -self.ranks.agreed(-mine):
            raise TrainingError(
                f"{self.run}: the processes hold different weights at image {self.images}; the "
                "last checkpoint is sound: the same command goes on from it, and if this comes "
                "again, a model or a machine does not compute the same everywhere"
            )

    def write(self, planned: bool) -> None:
        """The files of a snapshot; its state comes last, since from then on none is made again."""
        tensors = {f"game.{k}": v for k, v in self.game.tensors().items()}
        self.shadow.model.fit_prior(self.still())
        average = self.shadow.model.state_dict()
        tensors |= {f"average.{k}": v for k, v in average.items()}
        header = self.exporter.header(self.images, self.game.precision, self.statement())
        write_tensors(weights_path(self.run), average, header)
        if planned:
            self.keep(average, header)
            self.exporter.draw(self.shadow.model, self.run, self.images)
        save_state(self.run, self.images, tensors)

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


def _next(images: int, every: int) -> int:
    return (images // every + 1) * every
