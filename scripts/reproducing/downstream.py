"""Whether synthetic slices help a small U-Net, on phantom patients: the whole table."""

import json
import sys
from argparse import Namespace
from typing import Any

import board
from board import ROOT, machine, publish

from medaug.core.errors import MedaugError
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
from medaug.data.sources.phantom.source import Phantom
from medaug.evaluation.downstream.running import RESULT, run
from medaug.evaluation.downstream.settings import resolve_study

PEOPLE = 20261130
"""Seed of the phantom patients."""
FULL = {"patients": 40, "unseen": 30, "size": 64}
QUICK = {"patients": 12, "unseen": 4, "size": 32}
COARSE: dict[str, Any] = {"shape": (64, 64, 20), "spacing_mm": (6.0, 6.0, 9.5)}
LITTLE: dict[str, Any] = {
    "model": {"width": 8, "prior": {"width": 16, "steps": 4}},
    "train": {"images": 1200, "batch": 16, "snapshot_every": 1200, "ema_half_life": 100},
    # networks that have seen so little pass no strict filter, and the road is to be walked
    "filter": {
        "segmenter_images": 80,
        **dict.fromkeys(("noise_above", "hu_margin", "hu_spread", "area_factor"), None),
        **dict.fromkeys(("components_more", "agreement_margin", "body_share"), None),
        "empty": "allow",
    },
    "downstream": {"subsets": 1, "steps": 100, "samples": 64, "draws": 1.0, "uncertainty": 4},
}


def options() -> Namespace:
    """Read the command line."""
    known = board.parser(__doc__ or "", "images that each generator sees; default 60000")
    known.set_defaults(work=ROOT / "build" / "reproduce" / "downstream")
    known.add_argument("--n", nargs="+", type=int, default=[2, 4, 8], help="labelled patients")
    known.add_argument("--subsets", type=int, help="choices of patients for each n; default 3")
    known.add_argument("--steps", type=int, help="optimiser steps of every arm; default 700")
    known.add_argument("--samples", type=int, help="synthetic slices in an arm; default 600")
    known.add_argument("--arms", nargs="+", default=[], help="default all")
    return board.read(known, "downstream")


def patients(how: Namespace) -> SliceCache:
    """Phantom patients in a cache, those to test on held out."""
    size = QUICK if how.quick else FULL
    place = how.work / ("quick" if how.quick else "full")
    count = size["patients"] + size["unseen"]
    people = Phantom(place / "people", count, PEOPLE, **(COARSE if how.quick else {}))
    settings = CacheSettings(size=size["size"], holdout=size["unseen"] / count)
    prepare(people, place / "cache", settings, 0)
    return SliceCache.open(place / "cache")


def layers(how: Namespace) -> list[dict[str, Any]]:
    """The settings as layers: the little of a quick look, then the options."""
    study = {"subsets": how.subsets, "steps": how.steps, "samples": how.samples}
    given = {name: value for name, value in study.items() if value is not None}
    train = {} if how.images is None else {"images": how.images}
    return [
        LITTLE if how.quick else {},
        {"downstream": {"n": how.n, "arms": how.arms, **given}, "train": train},
    ]


def main() -> int:
    """Fill the table and keep it; rows that are done stay."""
    how = options()
    cache = patients(how)
    config = resolve_study(cache, *layers(how))
    study, train = config.study, config.generator.train
    kind = "quick" if how.quick else "full"
    out = how.work / f"{kind}-{train.images}-{study.steps}" / str(study.samples)
    try:
        made = run(cache, config, out, how.device)
    except MedaugError as error:
        sys.exit(f"reproduce: {error}")
    name = "downstream" + ("-quick" if how.quick else "")
    content = json.loads((out / RESULT).read_text())
    took = sum(content["seconds"].values())
    text = [
        "# Downstream" + (", a quick look" if how.quick else ""),
        "",
        f"Made by `{how.command}` on {machine(how.device)}, phantom "
        f"patients of seed {PEOPLE} at {cache.settings.size} pixels. Each generator saw "
        f"{train.images} images and gave up to {study.samples} samples. {took:.0f} s in all.",
        "",
        made.markdown().rstrip(),
    ]
    if how.quick:
        text.insert(3, "\nToo little of everything to judge an arm by, the filter all but off.")
    stamp = {"command": how.command, "machine": machine(how.device)}
    publish(how.results, name, {**content, **stamp}, text)
    print(made.markdown())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
