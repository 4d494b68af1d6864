"""What the tables share: real pictures and their classifier, trained runs, rows that are kept."""

import json
import os
import platform
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from classifier import accuracy, load, save, train_classifier
from scoreboard import Reference, real_row, reconstruction_error, score
from torch import Tensor
from torch.nn.functional import one_hot

from medaug.core.config import Config, resolve
from medaug.data import open_source
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
from medaug.runtime.device import choose_device
from medaug.runtime.files import write_bytes, write_json
from medaug.synthesis.generator import Generator
from medaug.training.loop import TrainReport, fit
from medaug.training.workflow import PICTURES

QUICK_WIDTH = 16
QUICK_BATCH = 32
QUICK_IMAGES = 20_000
QUICK_MORE = {"wgan": 10, "aaae": 2, "spatial_vaegan": 2, "wae_gan": 2, "wae_mmd": 2}
"""Models whose images cost less get more of them, so that all take a minute or two on one core."""
ROOT = Path(__file__).resolve().parents[2]
DATA = ("mnist", "fashion-mnist")
PRESETS = ["author", "modern"]


def parser(description: str, images: str) -> ArgumentParser:
    """The options that all tables have; ``images`` says what the one of that name is."""
    made = ArgumentParser(description=description)
    made.add_argument("--device", default="auto", help="where to train; default auto")
    made.add_argument("--work", type=Path, default=ROOT / "build" / "reproduce")
    made.add_argument("--results", type=Path, default=ROOT / "docs" / "results")
    made.add_argument("--quick", action="store_true", help="short runs of small networks")
    made.add_argument("--images", type=int, help=images)
    return made


def read(options: ArgumentParser, table: str) -> Namespace:
    """Read the command line, and write into ``command`` what makes this ``table`` and no other."""
    how = options.parse_args()
    words = ["scripts/reproduce", table]
    for name, value in vars(how).items():
        if name not in ("device", "work", "results") and value != options.get_default(name):
            values = value if isinstance(value, list) else [] if value is True else [value]
            words += [f"--{name}", *map(str, values)]
    how.command = " ".join(words)
    return how


def options(description: str, table: str) -> Namespace:
    """Read the command line of a table of generators.

    Beside the options there are ``n``, how many samples are scored, and ``cut``, what the names of
    tables of shorter runs end in.
    """
    known = parser(description, "images of a run, fewer than its preset says")
    known.add_argument("--data", nargs="+", default=list(DATA), choices=DATA)
    known.add_argument("--models", nargs="+", default=[], help="default all")
    known.add_argument("--presets", nargs="+", default=PRESETS)
    how = read(known, table)
    how.images = how.images or (QUICK_IMAGES if how.quick else None)
    how.n = 2000 if how.quick else 10_000
    how.cut = "-quick" if how.quick else f"-{how.images}" if how.images else ""
    if how.cut:
        how.work /= "quick" if how.quick else f"cut-{how.images}"
    return how


def pictures(how: Namespace, data: str) -> tuple[SliceCache, Reference, dict[str, float]]:
    """The cache, the real pictures with their classifier, and what is known of that."""
    folder = os.environ.get("MEDAUG_TEST_DATA")
    if not folder:
        sys.exit("reproduce: MEDAUG_TEST_DATA does not name a folder that holds mnist/")
    shared = (how.work.parent if how.cut else how.work) / "cache"
    prepare(open_source(data, Path(folder) / data), shared / data, CacheSettings(size=None), 0)
    cache = SliceCache.open(shared / data)
    images, test = (torch.from_numpy(np.array(cache.cases[p].image)) for p in ("train", "test"))
    count = 2 * len(images) if how.quick else 12 * len(images)
    kept = shared / f"classifier-{data}-{count}.safetensors"
    device = str(choose_device(how.device))
    if not kept.exists():
        started = time.monotonic()
        labels = classes(cache, "train")
        network = train_classifier(images, labels, 10, count=count, device=device)
        found = accuracy(network, test, classes(cache, "test"))
        facts = {"test_accuracy": found, "seconds": time.monotonic() - started}
        save(kept, network, facts)
        print(f"{data}: classifier at {100 * found:.2f} % on the test set", flush=True)
    network, facts = load(kept, device)
    return cache, Reference.of(network, images, test, how.n), facts


def classes(cache: SliceCache, part: str) -> Tensor:
    """Class ids (n,) of one part."""
    found = cache.cases[part].classes
    assert found is not None
    return torch.from_numpy(np.array(found)).long()


def settings(
    how: Namespace, data: str, model: Mapping[str, Any], images: int | None = None
) -> Config:
    """The config of a run: a preset, cut to fewer images, or short and small."""
    train: dict[str, Any] = {}
    if images is None and how.images is not None:
        images = how.images * (QUICK_MORE.get(model["name"], 1) if how.quick else 1)
    if images is not None:
        train = {"images": images}
        if model["preset"] == "modern":
            train["ema_half_life"] = max(images // 20, 1)
    if how.quick:
        train |= {"batch": QUICK_BATCH, "snapshot_every": train["images"]}
        model = {**model, "width": QUICK_WIDTH}
    return resolve(PICTURES, {"data": {"name": data}, "model": dict(model), "train": train})


def trained(
    config: Config, cache: SliceCache, run: Path, how: Namespace, init: Path | None = None
) -> TrainReport:
    """Train to the end, or leave where the user interrupts."""
    report = fit(config, cache, run, device=how.device, init=init)
    if not report.finished:
        sys.exit("reproduce: interrupted; the same command goes on")
    return report


def drawn(generator: Generator, n: int) -> Tensor:
    """``n`` samples, uint8 (n, s, s)."""
    samples = generator.generate(n, uncertainty=0)
    return torch.from_numpy(np.stack([sample.image for sample in samples]))


def rebuilt(generator: Generator, cache: SliceCache, n: int) -> float | None:
    """Reconstruction error over ``n`` test pictures in [-1, 1] units; None without an encoder."""
    if not hasattr(generator.model, "encode"):
        return None
    images = np.array(cache.cases["test"].image[:n])
    cond = one_hot(classes(cache, "test")[:n], 10).float() if generator.classes else None
    codes = generator.encode(images, cond=cond)
    again, _ = generator.decode(codes, cond)
    return reconstruction_error(torch.from_numpy(images), torch.from_numpy(again))


def real_figures(real: Reference, facts: Mapping[str, float]) -> dict[str, Any]:
    """The row of real training pictures, with the test set's own inception score."""
    test = score(real.test, real)["inception_score"]
    return {**real_row(real), "inception_score_test": test, "classifier": dict(facts)}


def machine(device: str) -> str:
    """What a time was measured on."""
    where = choose_device(device)
    if where.type == "cuda":
        return torch.cuda.get_device_name(where)
    return f"CPU, {torch.get_num_threads()} threads, {platform.machine()}"


def publish(folder: Path, name: str, content: Mapping[str, Any], parts: Sequence[str]) -> None:
    """Write a table as JSON, and the ``parts`` of its page as lines of text."""
    stamped = {**content, "date": datetime.now(UTC).date().isoformat(), "torch": torch.__version__}
    write_json(folder / f"{name}.json", stamped)
    write_bytes(folder / f"{name}.md", ("\n".join(parts) + "\n").encode())


def section(
    data: str,
    head: Sequence[str],
    columns: Mapping[str, str],
    rows: Iterable[tuple[Sequence[str], Mapping[str, Any]]],
) -> list[str]:
    """The table of one data set as lines of Markdown.

    Args:
        data: its name, the title.
        head: titles of the columns that name a row.
        columns: titles of the figures, by their names.
        rows: the cells that name each row, and its figures.
    """
    titles = [*head, *columns.values()]
    lines = [titles, ["---"] * len(titles)]
    for cells, figures in rows:
        found = (figures.get(name) for name in columns)
        lines.append([*cells, *("" if value is None else f"{value:.3g}" for value in found)])
    return ["", f"## {data}", "", *(f"| {' | '.join(cells)} |" for cells in lines)]


def kept(
    path: Path, config: Config, how: Namespace, make: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """A row, made now or by an earlier call; one made otherwise is not mixed in."""
    made_with = {"config": config.dump(), "n": how.n}
    if not path.exists():
        write_json(path, {**make(), "made_with": made_with})
    found: dict[str, Any] = json.loads(path.read_text())
    if found["made_with"] != made_with:
        sys.exit(f"reproduce: {path} was made with other settings; choose another --work")
    return found
