"""Measurements that are kept, so that a row that was killed goes on where it was."""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medaug.runtime.files import write_json

ROOT = Path(__file__).parents[2]


def kept(
    path: Path, measure: Callable[[], Any], whole: Callable[[Any], bool] = lambda told: True
) -> Any:
    """What ``measure`` returned, now or in an earlier call; kept where it is ``whole``."""
    if not path.exists():
        print(f"measuring {path.stem}", file=sys.stderr, flush=True)
        told = measure()
        if not whole(told):
            return told
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, told)
    return json.loads(path.read_text())


def sources(*more: Path) -> str:
    """A name for the program that is measured, and for ``more`` folders of what measures it.

    What was measured of another does not count.
    """
    files = sorted(file for folder in (ROOT / "medaug", *more) for file in folder.rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
