"""Downloads of the miniature archive that `tests.support.web` serves."""

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from medaug.data.download import Report, download
from tests.data.test_idx import idx_bytes
from tests.support import web as w

FOLDER = "TCIA_pancreas_labels-02-05-2017"
QUICK = {"timeout_s": 0.4, "attempts": 3, "pause_s": 0.0}


def settings(web: w.Web, nbia: w.Nbia, **more: Any) -> dict[str, Any]:
    digest = hashlib.sha256(nbia.files[w.LABELS]).hexdigest()
    places = {"pancreas": f"{web.url}/v4", "pancreas_labels": f"{web.url}{w.LABELS}"}
    return {**QUICK, **places, "checksums": {"pancreas_labels": digest}, **more}


def words(asked: dict[str, Any]) -> list[str]:
    return [
        word
        for key, value in asked.items()
        for word in ("--set", f"download.{key}={json.dumps(value)}")
    ]


def fetch(web: w.Web, nbia: w.Nbia, root: Path, **more: Any) -> Report:
    return download("pancreas", root, True, settings(web, nbia, **more))


def image(nbia: w.Nbia, patient: int) -> str:
    return w.image(nbia.uids[f"PANCREAS_{patient:04d}"])


def digits(data: str) -> tuple[dict[str, bytes], dict[str, str]]:
    """Four small idx files with their checksums."""
    rng = np.random.default_rng(0)
    files = {}
    for part, n in (("train", 60), ("t10k", 20)):
        pictures = rng.integers(0, 256, (n, 28, 28))
        files[f"{part}-images-idx3-ubyte.gz"] = gzip.compress(idx_bytes(pictures), mtime=0)
        files[f"{part}-labels-idx1-ubyte.gz"] = gzip.compress(idx_bytes(np.arange(n) % 10), mtime=0)
    return files, {f"{data}/{k}": hashlib.md5(v).hexdigest() for k, v in files.items()}
