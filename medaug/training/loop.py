"""Train any model: set up, resume, loop, snapshot.

Progress is counted in images.  The order of slices, their warps and all noise are functions of
(seed, images seen), so the training state is the weights and the optimisers alone, and a run that
was killed and resumed has the same bits as one that never stopped (on the CPU).
"""

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
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
from medaug.runtime.distributed import Ranks, join
from medaug.runtime.files import exclusive, remove_parts
from medaug.runtime.progress import progress
from medaug.runtime.signals import caught_signals
from medaug.training.checkpoint import (
    below,
    load_state,
    pack,
    save_state,
    sound,
    unpack,
    write_tensors,
)
from medaug.training.cuda_graphs import CudaGraphs, GraphRunner, can_record
from medaug.training.ema import Average
from medaug.training.export import Exporter
from medaug.training.prefetch import batches
from medaug.training.privacy import PrivacyAccountant, PrivateGradients, check_supported
from medaug.training.run import (
    append_metrics,
    claim,
    snapshot_paths,
    truncate_metrics,
    weights_path,
)
from medaug.training.step import Players
from medaug.training.weights import start_from

METRICS_PER_SNAPSHOT = 5
FIT_IMAGES, FIT_BATCH = 10_000, 250
"""How many training images a model sees when it fits what is fitted at once, such as a mixture."""


@dataclass(frozen=True)
class TrainReport:
    """What a call of ``fit`` did.

    Attributes:
        run: the run folder.
        images: images seen in all.
        resumed: images seen before this call.
        finished: whether the run is complete; false after an interrupt.
        seconds: duration of the loop.
        waited: seconds of these that the loop waited for data.  Of recorded turns the copies to
            the GPU do not count, since they are asynchronous.
        privacy: the guarantee of a private run, as in the weights' header; else None.
        signal: the signal that stopped the run; None where it ended by itself.
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
    """Train ``config`` on ``cache`` in the folder ``run``; the same call resumes.

    Under torchrun every process makes the same call: each trains on its rows of the same batches,
    and the first one writes.  ``train.batch`` counts the rows of all processes together, so their
    number may change when a run is resumed.

    Args:
        config: what to train.
        cache: complete, with the size and field of view of ``config.data``.
        run: the run folder, new or of an earlier call with the same settings.
        device: ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:1``.
        init: a weight file or run of the same model and shape to start from; default: noise.
        unlabeled: slices of scans without labels that join training.

    Raises:
        ConfigError: a setting that is not accepted.
        RunError: the folder holds another run, or none of its checkpoints is sound.
        TrainingError: a loss or gradient is not finite.
        OutputError: the disk does not take the result.
        RanksError: another process of several is gone.
    """
    start = None if init is None else Path(init)
    if start is not None and start.is_dir():
        start = weights_path(start)
    with set_up(config, cache, Path(run), device, start, unlabeled) as training:
        resume(training, start)

        # Loop: play rounds until all images are seen or a signal stops the run.
        train, ranks = config.train, training.ranks
        metrics_every = max(train.batch, train.snapshot_every // METRICS_PER_SNAPSHOT)
        metrics_due = _next_multiple(training.images, metrics_every)
        snapshot_due = _next_multiple(training.images, train.snapshot_every)
        started = since = time.monotonic()
        before, note, signal = training.images, "", 0
        with (
            caught_signals() as signals,
            closing(training.batches()) as data,
            progress("train", train.images, "images", training.images, not ranks.first) as bar,
        ):
            while training.images < train.images:
                signal = ranks.all_max(max(signals, default=0))
                if signal:
                    break
                bar.advance(play_round(training, data), note)
                if training.images >= metrics_due or training.images >= train.images:
                    seconds = max(time.monotonic() - since, 1e-9)
                    note = log_metrics(training, (training.images - before) / seconds)
                    since, before = time.monotonic(), training.images
                    metrics_due = _next_multiple(training.images, metrics_every)
                if snapshot_due <= training.images < train.images:
                    save_snapshot(training)
                    snapshot_due = _next_multiple(training.images, train.snapshot_every)

            # The last snapshot, after an interrupt too; a finished run that is whole needs none.
            finished = training.images >= train.images
            if training.images > training.resumed or not ranks.on_first(
                lambda: sound(weights_path(training.run))
            ):
                save_snapshot(training, planned=finished)
        if signal and ranks.first:
            tell(f"{training.run}: interrupted; the same command goes on")
        return TrainReport(
            training.run,
            training.images,
            training.resumed,
            finished,
            time.monotonic() - started,
            training.waited,
            training.privacy_statement(),
            signal or None,
        )


@dataclass
class Training:
    """The state of a run in training.

    Attributes:
        config: of the run.
        run: its folder.
        ranks: the processes that train together.
        feed: makes the batches.
        model: in training, on the device.
        average: of its weights, which is what is exported.
        players: the model's players with their optimisers.
        runner: plays turns: ``players``, or a `GraphRunner` that records and replays them.
        exporter: describes and draws the generator.
        images: images seen so far.
        resumed: images seen before this call.
        waited: seconds spent waiting for batches.
    """

    config: Config
    run: Path
    ranks: Ranks
    feed: Feed
    model: Model
    average: Average
    players: Players
    runner: Players | GraphRunner
    exporter: Exporter
    images: int = 0
    resumed: int = 0
    waited: float = 0.0

    def batches(self) -> Any:
        """Yield what each turn from here on is played on."""
        return batches(
            self.feed,
            self.model,
            self.config.train,
            self.images,
            private=self.players.private,
            part=self.ranks.pair,
            draws_only=isinstance(self.runner, GraphRunner),
        )

    def privacy_statement(self) -> dict[str, Any] | None:
        """What a private run guarantees by now; None where training is not private."""
        private = self.players.private
        return None if private is None else private.accountant.statement(self.images)


@contextmanager
def set_up(
    config: Config,
    cache: SliceCache,
    run: Path,
    device: str = "auto",
    init: Path | None = None,
    unlabeled: SliceCache | None = None,
) -> Iterator[Training]:
    """Build all that training needs; the first process holds the folder ``run`` meanwhile.

    Args:
        config: what to train.
        cache: the slices.
        run: the run folder.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        init: the weight file that a new run starts from, or None.
        unlabeled: slices of scans without labels, or None.
    """
    train = config.train
    with join(choose_device(device)) as ranks, ExitStack() as held:
        # Data: how slices become tensors, and batches as a function of the images seen.
        where = ranks.device
        tune(where)
        check_shared(config, ranks.world)
        codec = codec_for(cache, config.data)
        feed = Feed(cache, config.data, codec, seed=train.seed, device=where, unlabeled=unlabeled)
        accountant = None
        if train.privacy is not None:
            check_supported(config.model, feed.shape)
            accountant = PrivacyAccountant(train.privacy, train.batch, feed.owners)

        # Model: its first weights are a function of the seed.
        torch.manual_seed(derive(train.seed, "weights"))
        model = build(config.model.name, config.model.arguments, feed.shape)

        # Run folder: new, or of the same run; precision and secret stay as they were at its start.
        def claim_folder() -> dict[str, Any]:
            held.enter_context(exclusive(run))
            remove_parts(run)
            return claim(run, config, _facts(run, cache, unlabeled, feed, config, where, init))

        facts = ranks.on_first(claim_folder)
        precision = str(facts["_precision"])

        # Device: memory layout, norms over the batch of all processes, the averaged copy.
        if ranks.world > 1:
            share_norms(model)
        if precision == "bfloat16":
            channels_last(model)
        model = model.to(where).train()
        average = Average(model, train.ema_half_life)

        # Steps: plain or private gradients, played turn by turn or recorded as CUDA graphs.
        private = None
        if accountant is not None:
            private = PrivateGradients(model, accountant, str(facts["_secret"]), where, precision)
        recorded = can_record(feed, train.capture, ranks.world, private is not None)
        players = Players(model, train.seed, where, precision, private, recorded)
        runner: Players | GraphRunner = players
        if recorded:
            runner = GraphRunner(players, feed, CudaGraphs(where), train.capture == "on")
        exporter = Exporter(config, cache, feed)
        yield Training(config, run, ranks, feed, model, average, players, runner, exporter)


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


def _facts(
    run: Path,
    cache: SliceCache,
    unlabeled: SliceCache | None,
    feed: Feed,
    config: Config,
    device: torch.device,
    init: Path | None,
) -> dict[str, Any]:
    """What ``run.json`` records; what starts with ``_`` may differ when the run is resumed."""

    def place(of: SliceCache) -> str:
        return os.path.relpath(of.path.resolve(), run.resolve())

    return {
        "command": "train",
        "cache": cache.fingerprint,
        "unlabeled": None if unlabeled is None else unlabeled.fingerprint,
        "source": cache.source,
        "init": None if init is None else init.name,
        "_slices": len(feed),
        "_cache": place(cache),
        "_unlabeled": None if unlabeled is None else place(unlabeled),
        "_precision": choose_precision(config.train.precision, device),
        "_device": str(device),
        "_versions": {"medaug": __version__, "torch": torch.__version__},
        **({} if config.train.privacy is None else {"_secret": secrets.token_hex(32)}),
    }


def resume(training: Training, init: Path | None = None) -> None:
    """Load the newest sound checkpoint; without one start from ``init`` or the first weights.

    With several processes the first one reads and sends what it holds to all.

    Args:
        training: as ``set_up`` made it.
        init: a weight file, or None.
    """
    run, ranks, players = training.run, training.ranks, training.players
    tensors: dict[str, Tensor] = {}

    def load() -> int | None:
        nonlocal tensors
        state = load_state(run)
        images, tensors = (None, {}) if state is None else state
        if images is None and init is not None:
            start_from(training.model, init)
        truncate_metrics(run, images or 0)
        return images

    images = ranks.on_first(load)
    if ranks.world > 1:
        mine = tensors or {f"game.{k}": v for k, v in players.tensors().items()}
        tensors = unpack(ranks.broadcast(pack(mine) if ranks.first else None))
    if tensors:
        players.restore(below(tensors, "game."))
    if images is None:
        training.average.copy()
        return
    training.average.model.load_state_dict(below(tensors, "average."))
    training.images = training.resumed = images
    if ranks.first:
        tell(f"{run}: going on from image {images}")


def play_round(training: Training, data: Iterator[Any]) -> int:
    """Play the turns of one round and average the weights.

    Args:
        training: the run.
        data: what the turns are played on, as ``Training.batches`` yields it.

    Returns:
        The images seen.
    """
    train, model = training.config.train, training.model
    start = training.images
    progress = start / train.images
    settings = model.optim(progress)
    for turn in model.turns(progress):
        before = time.perf_counter()
        batch = next(data)
        training.waited += time.perf_counter() - before
        training.runner.turn(turn, batch, training.images, settings)
        training.images += turn.batches * train.batch
    training.average.update(training.images - start, training.images)
    return training.images - start


def log_metrics(training: Training, speed: float) -> str:
    """Append the means of every term since the last call to ``metrics.jsonl``.

    Args:
        training: the run.
        speed: images per second.

    Returns:
        The means in short, for a progress bar.
    """
    means = training.players.loss_log.means()
    row = {"images": training.images, "images_per_s": round(speed, 1), **means}
    private = training.players.private
    if private is not None:
        row["epsilon"] = private.accountant.epsilon(training.images)
    training.ranks.on_first(lambda: append_metrics(training.run, row))
    terms = {key.partition("/")[2]: value for key, value in means.items()}
    terms.pop("gradient", None)
    return " ".join(f"{term} {value:.3g}" for term, value in terms.items())


def save_snapshot(training: Training, planned: bool = True) -> None:
    """Write the training state, the generator and a picture of what it draws.

    Args:
        training: the run.
        planned: whether it comes at its time; one after an interrupt has no picture and is not
            kept in ``snapshots``, so that the run becomes what it would have been undisturbed.

    Raises:
        TrainingError: a term was not finite, or the processes hold different weights.
    """
    training.players.loss_log.check()
    _check_same_weights(training)
    training.ranks.on_first(lambda: _write_snapshot(training, planned))


def _check_same_weights(training: Training) -> None:
    ranks = training.ranks
    if ranks.world == 1:
        return
    mine = int(sha256(pack(training.players.tensors())).hexdigest()[:15], 16)
    if ranks.all_max(mine) != -ranks.all_max(-mine):
        raise TrainingError(
            f"{training.run}: the processes hold different weights at image {training.images}; "
            "the last checkpoint is sound: the same command goes on from it, and if this comes "
            "again, a model or a machine does not compute the same everywhere"
        )


def _write_snapshot(training: Training, planned: bool) -> None:
    """Write the files; the state comes last, since once it is there none is written again."""
    run, images, model = training.run, training.images, training.average.model
    tensors = {f"game.{k}": v for k, v in training.players.tensors().items()}
    model.fit_prior(_unwarped_batches(training))
    weights = model.state_dict()
    tensors |= {f"average.{k}": v for k, v in weights.items()}
    header = training.exporter.header(
        images, training.players.precision, training.privacy_statement()
    )
    write_tensors(weights_path(run), weights, header)
    kept = training.config.train.keep_snapshots
    if planned and kept:
        write_tensors(run / "snapshots" / f"{images:010d}.safetensors", weights, header)
        for old in snapshot_paths(run)[:-kept]:
            old.unlink()
    if planned:
        training.exporter.draw(model, run, images)
    save_state(run, images, tensors)


def _unwarped_batches(training: Training) -> Iterator[Batch]:
    """Yield up to 10,000 training slices, unwarped and the same at every call."""
    feed = training.feed
    draws = generator(training.config.train.seed, "settle")
    chosen = torch.randperm(len(feed), generator=draws)[: min(FIT_IMAGES, len(feed))]
    for index in chosen.split(FIT_BATCH):
        yield feed.at(index)


def _next_multiple(images: int, every: int) -> int:
    return (images // every + 1) * every
