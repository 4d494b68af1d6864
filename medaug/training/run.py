"""Read and write a run folder.

runs/pancreas-spatial_vaegan/
  config.yaml            the resolved config
  run.json               versions, device, precision, the cache it is trained on; the secret of
                         private training
  metrics.jsonl          one line of means, five times a snapshot
  samples/0000051200.png samples, of the same noise each time
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
"""Settings that may change when a run is resumed."""


def weights_path(run: Path) -> Path:
    """The file of a run's exported generator."""
    return run / "model.safetensors"


def snapshot_paths(run: Path) -> list[Path]:
    """The generators that a run kept of earlier snapshots, oldest first."""
    return sorted((run / "snapshots").glob("*.safetensors"))


def flatten(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested sections as one level of dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def claim(run: Path, config: Config, facts: dict[str, Any]) -> dict[str, Any]:
    """Make ``run`` the folder of ``config``, or check that it is; returns the recorded facts.

    Args:
        run: the folder; made where it is missing.
        config: the settings of this call.
        facts: what else must not change when a run is resumed, such as the cache's fingerprint; a
            fact whose key starts with ``_`` is recorded once and not compared.

    Raises:
        RunError: the folder holds something else, or a run with other settings.
    """
    # A new run: the folder holds nothing else.
    path = run / "run.json"
    if not path.exists():
        # a kill between the two writes below leaves the config alone
        others = [p.name for p in run.glob("*") if p.name != "config.yaml" and p.name[0] != "."]
        if others:
            raise RunError(
                f"{run}: holds {sorted(others)[0]} but no run.json, so it is not a run; "
                "choose a new or empty folder for --run"
            )
        write_bytes(run / "config.yaml", yaml.safe_dump(config.dump(), sort_keys=False).encode())
        write_json(path, sealed(facts))
        return facts

    # An earlier run: the same settings, the same facts.
    recorded = read_facts(run)
    try:
        kept = validated(Config, read_yaml(run / "config.yaml"), "")  # fills what the run lacks
    except ConfigError as error:
        raise RunError(
            f"{run}: its config.yaml is damaged ({error}); bring it back from a copy, or choose "
            "another --run"
        ) from error
    there, now = flatten(kept.dump()), flatten(config.dump())
    for key in sorted(there.keys() | now.keys()):
        if key not in FREE and there.get(key) != now.get(key):
            raise RunError(
                f"{run}: {key} is {called(str(there.get(key)))} in this run and "
                f"{called(str(now.get(key)))} was asked; "
                "ask for the same, or choose another --run"
            )
    for key, value in facts.items():
        if not key.startswith("_") and recorded.get(key) != value:
            raise RunError(
                f"{run}: {key} was {recorded.get(key)} when this run began and is {value} now; "
                "choose another --run"
            )
    if there != now:
        write_bytes(run / "config.yaml", yaml.safe_dump(config.dump(), sort_keys=False).encode())
    return recorded


def read_facts(run: Path) -> dict[str, Any]:
    """Return the content of ``run.json``.

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
    """Drop the lines beyond ``images`` that a killed run left, and a broken last one."""
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
    """Return the run below ``runs`` with the newest weights, and name it on standard error.

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
    """Open the cache that a run was trained on; None where it is gone or has changed.

    Args:
        run: the run folder.
        what: ``cache``, or ``unlabeled`` for that of the scans without labels.
    """
    if not (run / "run.json").is_file():
        return None
    recorded = read_facts(run)
    if not recorded.get(f"_{what}"):
        return None
    place = (run / recorded[f"_{what}"]).resolve()  # relative to the run; absolute in older runs
    if not (place / INDEX).is_file():
        return None
    cache = SliceCache.open(place)
    return cache if cache.fingerprint == recorded.get(what) else None
