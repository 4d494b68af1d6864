"""Measurements that are kept, so that a row that was killed goes on where it was."""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medaug.files import write_json

ROOT = Path(__file__).parents[2]


def kept(path: Path, measure: Callable[[], Any]) -> Any:
    """What ``measure`` returned, now or in an earlier call."""
    if not path.exists():
        print(f"measuring {path.stem}", file=sys.stderr, flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, measure())
    return json.loads(path.read_text())


def sources() -> str:
    """A name for the program that is measured: what was measured of another does not count."""
    files = sorted((ROOT / "medaug").rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
