"""What the figures cost: 5000 synthetic slices of 128 x 128 against 5000 real ones, on two cores.

Real and synthetic slices alike are phantom slices under small smooth warps and grain, since only
the cost is asked for.  The measuring process does nothing else: it reads the slices, makes the
feature spaces, training the encoder, with nothing kept from before, and takes every figure that a
folder of slices with masks gets.
"""

import pickle
import tempfile
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from material import phantom_cache
from processes import fresh, peak_bytes
from results import Claim, Measured, Setup

from medaug.core.seeds import generator
from medaug.data.cache.prepare import CacheSettings, SliceCache
from medaug.data.feed.warp import field, warp, warp_ids
from medaug.evaluation.families import FAMILIES
from medaug.evaluation.features.spaces import Spaces, spaces_of
from medaug.evaluation.slices.evidence import Evidence, SliceSet, real_slices
from medaug.evaluation.slices.seen import Seen
from medaug.evaluation.subject import Subject

N, QUICK = 5000, 300
SIZE = 128
CORES = 2
SECONDS, PEAK_GB = 300, 4
WINDOW = (-160.0, 240.0)
SEED = 0
WARP = {"rotate": 0.1, "scale": 0.1, "shift": 0.03, "elastic": 0.02}


class Folder(Subject):
    """Slices of which nothing is known but what they show."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence

    @property
    def generator(self) -> None:
        return None

    @cached_property
    def seen(self) -> Seen:
        return Seen.of(self.evidence.train, WINDOW)

    @cached_property
    def spaces(self) -> Spaces:
        return spaces_of(self.evidence)


def warped(part: SliceSet, n: int, name: str) -> SliceSet:
    """``n`` warped slices of a set, HU int16, with their masks and the case of each."""
    assert part.labels is not None
    known = torch.tensor(sorted(part.names.values()), dtype=torch.uint8)
    images, labels, cases = [], [], []
    for i in range(n):
        draws = generator(SEED, name, i)
        chosen = int(torch.randint(len(part), (), generator=draws))
        x = torch.from_numpy(part.images[chosen].astype(np.float32))[None, None] / 200 - 0.2
        grid = field(1, (x.shape[2], x.shape[3]), draws, **WARP)
        labels.append(warp_ids(torch.from_numpy(part.labels[chosen])[None], grid, known)[0].numpy())
        x = warp(x, grid)[0, 0]
        x = (x + 0.2) * 200 + 5 * torch.randn(x.shape, generator=draws)
        images.append(np.clip(x.round().numpy(), *WINDOW).astype(np.int16))
        cases.append(part.cases[chosen] if name != "synthetic" else f"syn_{i:06d}")
    planes = np.stack(images), np.stack(labels)
    return SliceSet(*planes, cases, np.arange(n), 3.0, 3.0, dict(part.names))


def write_evidence(cache: SliceCache, n: int, path: Path) -> None:
    """``n`` slices in each role, made from the training and the held-out ones of a cache."""
    train, heldout = (real_slices(cache, split, WINDOW) for split in ("train", "heldout"))
    sources = {"synthetic": train, "train": train, "heldout": heldout}
    parts = [warped(part, n, name) for name, part in sources.items()]
    with path.open("wb") as file:
        pickle.dump(Evidence(*parts, WINDOW, SEED), file)


def read_evidence(path: str) -> Evidence:
    """What `write_evidence` wrote."""
    with open(path, "rb") as file:
        return pickle.load(file)


def take(path: str, threads: int) -> dict[str, Any]:
    """Every figure, timed, in this process."""
    torch.set_num_threads(threads)
    started = last = time.monotonic()
    folder, seconds_of = Folder(read_evidence(path)), {}
    spaces = folder.spaces
    seconds_of["spaces"], last = time.monotonic() - last, time.monotonic()
    figures, values = 0, {}
    for name, measure_family in FAMILIES.items():
        family = measure_family(folder)
        seconds_of[name], last = time.monotonic() - last, time.monotonic()
        figures += len(family.figures)
        values.update({figure.name: figure.value for figure in family.figures})
    return {
        "seconds": time.monotonic() - started,
        "seconds_of": seconds_of,
        "peak_bytes": peak_bytes(),
        "slices": spaces.n,
        "figures": figures,
        "values": values,
    }


def claims(found: dict[str, Any]) -> list[Claim]:
    """Time and memory."""
    return [
        Claim("time of all figures", found["seconds"], "<", SECONDS, "s"),
        Claim("peak memory", found["peak_bytes"] / 1e9, "<", PEAK_GB, "GB"),
    ]


def measure_metrics(setup: Setup) -> Measured:
    """Time and memory of all figures, taken in a process of its own."""
    n = QUICK if setup.quick else N
    cache = phantom_cache(setup.work, settings=CacheSettings(size=SIZE, holdout=0.5))
    with tempfile.TemporaryDirectory(dir=setup.work) as folder:
        path = Path(folder) / "slices.pickle"
        write_evidence(cache, n, path)
        found = fresh("metrics", "take", path, CORES)
    note = f"{n} synthetic, training and held-out slices each, {SIZE} x {SIZE}, {CORES} threads."
    return Measured(claims(found), found, n, SEED, note)
