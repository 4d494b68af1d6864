"""What both tables share: real pictures and their classifier, trained runs, rows that are kept."""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
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
QUICK_MORE = {"wgan": 10, "aaae": 2, "vaegan": 2, "wae_gan": 2, "wae_mmd": 2}
"""Models whose images cost less get more of them, so that all take a minute or two on one core."""
ROOT = Path(__file__).resolve().parents[2]
DATA = ("mnist", "fashion-mnist")
PRESETS = ["author", "modern"]


@dataclass(frozen=True)
class Asked:
    """How a table was called.

    Attributes:
        quick: small networks and short runs, some longer where images are cheap.
        data: which sources.
        models: which models, all of them where empty.
        presets: which presets.
        images: of training for a run; None for the preset's own.
        device: where to train.
        work: where runs and rows are kept.
        results: where tables go.
    """

    quick: bool
    data: list[str]
    models: list[str]
    presets: list[str]
    images: int | None
    device: str
    work: Path
    results: Path

    @property
    def cut(self) -> str:
        """What the names of tables of shorter runs end in."""
        if self.quick:
            return "-quick"
        return "" if self.images is None else f"-{self.images}"

    @property
    def n(self) -> int:
        """How many samples are scored."""
        return 2000 if self.quick else 10_000


def asked(description: str) -> Asked:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="short runs, 2000 samples")
    parser.add_argument("--images", type=int, help="of a run, fewer than its preset says")
    parser.add_argument("--data", nargs="+", default=list(DATA), choices=DATA)
    parser.add_argument("--models", nargs="+", default=[])
    parser.add_argument("--presets", nargs="+", default=PRESETS)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "reproduce")
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "results")
    how = parser.parse_args()
    images = how.images or (QUICK_IMAGES if how.quick else None)
    work = how.work
    if how.quick:
        work /= "quick"
    elif images:
        work /= f"cut-{images}"
    return Asked(
        how.quick, how.data, how.models, how.presets, images, how.device, work, how.results
    )


def called(how: Asked) -> str:
    """The options that make these rows and no others."""
    words = ["--quick"] if how.quick else []
    if how.images not in (None, QUICK_IMAGES if how.quick else None):
        words += ["--images", str(how.images)]
    for option, chosen, usual in (
        ("--data", how.data, list(DATA)),
        ("--models", how.models, []),
        ("--presets", how.presets, PRESETS),
    ):
        words += [option, *chosen] if chosen != usual else []
    return "".join(f" {word}" for word in words)


def pictures(how: Asked, data: str) -> tuple[SliceCache, Reference, dict[str, float]]:
    """The cache, the real pictures with their classifier, and what is known of that."""
    folder = os.environ.get("MEDAUG_TEST_DATA")
    if not folder:
        sys.exit("reproduce: MEDAUG_TEST_DATA does not name a folder that holds mnist/")
    shared = (how.work.parent if how.cut else how.work) / "cache"
    cache_path = shared / data
    prepare(open_source(data, Path(folder) / data), cache_path, CacheSettings(size=None), 0)
    cache = SliceCache.open(cache_path)
    train, test = (cache.cases[part] for part in ("train", "test"))
    images, labels = torch.from_numpy(np.array(train.image)), classes(cache, "train")
    count = 2 * len(images) if how.quick else 12 * len(images)
    kept = shared / f"classifier-{data}-{count}.safetensors"
    device = str(choose_device(how.device))
    if not kept.exists():
        started = time.monotonic()
        network = train_classifier(images, labels, 10, count=count, device=device)
        found = accuracy(network, torch.from_numpy(np.array(test.image)), classes(cache, "test"))
        facts = {"test_accuracy": found, "seconds": time.monotonic() - started}
        save(kept, network, facts)
        print(f"{data}: classifier at {100 * found:.2f} % on the test set", flush=True)
    network, facts = load(kept, device)
    real = Reference.of(network, images, torch.from_numpy(np.array(test.image)), how.n)
    return cache, real, facts


def classes(cache: SliceCache, part: str) -> Tensor:
    """Class ids (n,) of one part."""
    found = cache.cases[part].classes
    assert found is not None
    return torch.from_numpy(np.array(found)).long()


def settings(how: Asked, data: str, model: Mapping[str, Any], images: int | None = None) -> Config:
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
    config: Config, cache: SliceCache, run: Path, how: Asked, init: Path | None = None
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
    test = score(real.test, real)
    return {
        **real_row(real),
        "inception_score_test": test["inception_score"],
        "classifier": dict(facts),
    }


def machine(device: str) -> str:
    """What a time was measured on."""
    where = choose_device(device)
    if where.type == "cuda":
        return torch.cuda.get_device_name(where)
    return f"CPU, {torch.get_num_threads()} threads, {platform.machine()}"


def publish(folder: Path, name: str, content: Mapping[str, Any], text: str) -> None:
    """Write a table as JSON and as text."""
    stamped = {**content, "date": datetime.now(UTC).date().isoformat(), "torch": torch.__version__}
    write_json(folder / f"{name}.json", stamped)
    write_bytes(folder / f"{name}.md", text.encode())


def kept(path: Path, made_with: Mapping[str, Any]) -> dict[str, Any] | None:
    """A row that an earlier call finished; one made otherwise is not mixed in."""
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    if found["made_with"] != made_with:
        sys.exit(f"reproduce: {path} was made with other settings; choose another --work")
    return found
