"""Downloads of the miniature archive that `tests.web` serves."""

import hashlib
import json
from pathlib import Path
from typing import Any

from medaug.downloads import Report, download
from tests import web as w

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
