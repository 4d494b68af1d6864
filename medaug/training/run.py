"""A run folder: what it was asked to be, where it stands, and who is working in it.

runs/pancreas-spatial_vaegan/
  config.yaml            the resolved config
  run.json               versions, device, precision, the cache it learns from; the secret of a
                         private training
  metrics.jsonl          one line of means every so often
  samples/0000051200.png what it draws, from the same noise each time
  checkpoints/           the two newest training states
  model.safetensors      the averaged generator with config, codec and geometry
  snapshots/             earlier ones, where train.keep_snapshots asks for some
"""

import json
from pathlib import Path
from typing import Any

import yaml

from medaug.core.config import Config, read_yaml, validated
from medaug.core.errors import ConfigError, RunError, called
from medaug.core.text import tell
from medaug.data.cache.store import INDEX, SliceCache
from medaug.runtime.files import explaining, parse_json, sealed, unsealed, write_bytes, write_json

FREE = ("train.images", "train.snapshot_every", "train.keep_snapshots", "train.capture")
"""Settings that may change between one command and the next on the same run."""


def weights_path(run: Path) -> Path:
    """The exported generator of a run."""
    return run / "model.safetensors"


def snapshot_paths(run: Path) -> list[Path]:
    """The generators that a run kept of its snapshots, oldest first."""
    return sorted((run / "snapshots").glob("*.safetensors"))


def flatten(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def claim(run: Path, config: Config, facts: dict[str, Any]) -> dict[str, Any]:
    """Make ``run`` the folder of ``config``, or confirm it; returns the facts it began with.

    Args:
        run: the folder; made where it is missing.
        config: what is asked now.
        facts: what else must not change under a run, such as the cache's fingerprint; a fact
            whose key starts with ``_`` is recorded at the start and kept.

    Raises:
        RunError: the folder holds something else, or a run with other settings.
    """
    path = run / "run.json"
    if not path.exists():
        # a kill between the two writes below leaves the config alone
        strangers = [p.name for p in run.glob("*") if p.name != "config.yaml" and p.name[0] != "."]
        if strangers:
            raise RunError(
                f"{run}: holds {sorted(strangers)[0]} but no run.json, so it is not a run; "
                "choose a new or empty folder for --run"
            )
        write_bytes(run / "config.yaml", yaml.safe_dump(config.dump(), sort_keys=False).encode())
        write_json(path, sealed(facts))
        return facts
    began = read_facts(run)
    try:
        kept = validated(Config, read_yaml(run / "config.yaml"), "")  # fills what the run lacks
    except ConfigError as error:
        raise RunError(
            f"{run}: its config.yaml is damaged ({error}); bring it back from a copy, or choose "
            "another --run"
        ) from error
    there, asked = flatten(kept.dump()), flatten(config.dump())
    for key in sorted(there.keys() | asked.keys()):
        if key not in FREE and there.get(key) != asked.get(key):
            raise RunError(
                f"{run}: {key} is {called(str(there.get(key)))} in this run and "
                f"{called(str(asked.get(key)))} was asked; "
                "ask for the same, or choose another --run"
            )
    for key, value in facts.items():
        if not key.startswith("_") and began.get(key) != value:
            raise RunError(
                f"{run}: {key} was {began.get(key)} when this run began and is {value} now; "
                "choose another --run"
            )
    if there != asked:
        write_bytes(run / "config.yaml", yaml.safe_dump(config.dump(), sort_keys=False).encode())
    return began


def read_facts(run: Path) -> dict[str, Any]:
    """What ``run.json`` says.

    Raises:
        RunError: it is damaged.
    """
    try:
        return unsealed(json.loads((run / "run.json").read_text()))
    except ValueError as error:
        raise RunError(
            f"{run}: its run.json is damaged ({error}); bring it back from a copy, or choose "
            "another --run"
        ) from error


def truncate_metrics(run: Path, images: int) -> None:
    """Drop the lines after ``images`` that a killed run left, and a broken last one."""
    path = run / "metrics.jsonl"
    if not path.exists():
        return
    kept = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            if parse_json(line)["images"] <= images:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    write_bytes(path, "".join(line + "\n" for line in kept).encode())


def append_metrics(run: Path, row: dict[str, Any]) -> None:
    """Add one line to ``metrics.jsonl``."""
    with explaining(run / "metrics.jsonl"), (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def newest(runs: Path) -> Path:
    """The run below ``runs`` whose weights are newest; it is named on standard error.

    Raises:
        RunError: there is none.
    """
    found = [p.parent for p in runs.glob("*/model.safetensors")]
    if not found:
        raise RunError(f"{runs}: no trained run there; train one first (medaug train --help)")
    run = max(found, key=lambda path: weights_path(path).stat().st_mtime_ns)
    tell(f"run: {run}")
    return run


def trained_on(run: Path, what: str = "cache") -> SliceCache | None:
    """The cache that a run folder was trained on, where it is still there and the same.

    ``what`` is ``cache``, or ``unlabeled`` for that of the scans without labels.
    """
    if not (run / "run.json").is_file():
        return None
    began = read_facts(run)
    if not began.get(f"_{what}"):
        return None
    place = (run / began[f"_{what}"]).resolve()  # relative to the run; absolute in older runs
    if not (place / INDEX).is_file():
        return None
    cache = SliceCache.open(place)
    return cache if cache.fingerprint == began.get(what) else None
