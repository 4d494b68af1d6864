"""A lesson of a study, in small."""

from pathlib import Path
from typing import Any

from medaug.data.cache.prepare import SliceCache
from medaug.evaluation.downstream.lesson import PatientSubset
from medaug.evaluation.downstream.material import plain_codec
from medaug.evaluation.downstream.settings import resolve_study
from tests.conftest import TINY

LITTLE = {"steps": 3, "batch": 4, "samples": 32, "draws": 1.0, "uncertainty": 4, "resamples": 100}
LENIENT: dict[str, Any] = {
    "segmenter_images": 16,
    "empty": "allow",
    **dict.fromkeys(("noise_above", "hu_margin", "hu_spread", "area_factor"), None),
    **dict.fromkeys(("components_more", "agreement_margin", "body_share", "copy_share"), None),
}


def lesson(cache: SliceCache, out: Path) -> PatientSubset:
    train = {**TINY["train"], "images": 64, "snapshot_every": 64}
    little = {"model": TINY["model"], "train": train, "filter": LENIENT}
    config = resolve_study(cache, little, {"downstream": LITTLE})
    known = ["PANCREAS_0001", "PANCREAS_0002"]
    others = [name for name in cache.cases if name not in known]
    codec = plain_codec(cache, config.generator.data)
    return PatientSubset("n2-s0", cache, known, others, config, codec, out, "cpu", 5)
