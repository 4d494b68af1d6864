"""Whether synthetic slices help a small U-Net, on phantom patients: the whole table."""

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from board import ROOT, machine

from medaug.core.errors import MedaugError
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
from medaug.data.sources.phantom.source import Phantom
from medaug.evaluation.downstream.running import RESULT, run
from medaug.evaluation.downstream.settings import resolve_study
from medaug.runtime.files import write_bytes, write_json

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


def asked() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small everything, under 5 minutes")
    parser.add_argument("--n", nargs="+", type=int, default=[2, 4, 8], help="labelled patients")
    parser.add_argument("--subsets", type=int, help="choices of patients for each n; default 3")
    parser.add_argument("--steps", type=int, help="of the optimiser in every arm; default 700")
    parser.add_argument("--images", type=int, help="that each generator sees; default 60000")
    parser.add_argument("--samples", type=int, help="synthetic slices in an arm; default 600")
    parser.add_argument("--arms", nargs="+", default=[], help="default all")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "reproduce" / "downstream")
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "results")
    return parser.parse_args()


def patients(how: argparse.Namespace) -> SliceCache:
    """Phantom patients in a cache, those to test on held out."""
    size = QUICK if how.quick else FULL
    place = how.work / ("quick" if how.quick else "full")
    count = size["patients"] + size["unseen"]
    people = Phantom(place / "people", count, PEOPLE, **(COARSE if how.quick else {}))
    settings = CacheSettings(size=size["size"], holdout=size["unseen"] / count)
    prepare(people, place / "cache", settings, 0)
    return SliceCache.open(place / "cache")


def wishes(how: argparse.Namespace) -> list[dict[str, Any]]:
    """The settings as layers: the little of a quick look, then what was asked for."""
    study = {"subsets": how.subsets, "steps": how.steps, "samples": how.samples}
    told = {name: value for name, value in study.items() if value is not None}
    train = {} if how.images is None else {"images": how.images}
    return [
        LITTLE if how.quick else {},
        {"downstream": {"n": how.n, "arms": how.arms, **told}, "train": train},
    ]


def called(how: argparse.Namespace) -> str:
    """The options that make this table and no other."""
    words = ["--quick"] if how.quick else []
    for name in ("n", "subsets", "steps", "images", "samples", "arms"):
        value = getattr(how, name)
        if value in (None, [], [2, 4, 8]):
            continue
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return "".join(f" {word}" for word in words)


def main() -> int:
    """Fill the table and keep it; rows that are done stay."""
    how = asked()
    cache = patients(how)
    config = resolve_study(cache, *wishes(how))
    study, train = config.study, config.generator.train
    out = how.work / f"{'quick' if how.quick else 'full'}-{train.images}-{study.steps}"
    try:
        made = run(cache, config, out / str(study.samples), how.device)
    except MedaugError as error:
        sys.exit(f"reproduce: {error}")
    name = "downstream" + ("-quick" if how.quick else "")
    content = json.loads((out / str(study.samples) / RESULT).read_text())
    took = sum(content["seconds"].values())
    options = called(how)
    text = [
        "# Downstream" + (", a quick look" if how.quick else ""),
        "",
        f"Made by `scripts/reproduce downstream{options}` on {machine(how.device)}, phantom "
        f"patients of seed {PEOPLE} at {cache.settings.size} pixels. Each generator saw "
        f"{train.images} images and gave up to {study.samples} samples. {took:.0f} s in all.",
        "",
        made.markdown(),
    ]
    if how.quick:
        text.insert(3, "\nToo little of everything to judge an arm by, the filter all but off.")
    stamp = {
        "command": f"scripts/reproduce downstream{options}",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(how.device),
        "torch": torch.__version__,
    }
    write_json(how.results / f"{name}.json", {**content, **stamp})
    write_bytes(how.results / f"{name}.md", "\n".join(text).encode())
    print(made.markdown())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
