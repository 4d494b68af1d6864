"""A generator without weights, and folders drawn by it in processes of their own."""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medaug.core.types import Sample
from medaug.synthesis.request import Judge


class Toy:
    """Noise with a square mask, in the manner of a generator, without loading torch."""

    block_size, channels = 16, 1

    def __init__(self, kind: str = "ct", size: int = 12, weights: str = "a", pause_s: float = 0):
        self.kind, self.size, self.pause_s = kind, size, pause_s
        self.fingerprint = hashlib.sha256(weights.encode()).hexdigest()
        self.labels = {"pancreas": 1} if kind == "ct" else {}
        self.config: dict[str, Any] = {"data": {"size": size, "fov_mm": 400.0}}
        self.privacy: dict[str, Any] | None = None

    def fix(self, condition: Mapping[str, str | float] | None) -> dict[str, float]:
        return {name: float(value) for name, value in (condition or {}).items()}

    def depends_on(self, source: str, uncertainty: int) -> dict[str, str | None]:
        return {"masks": None, "source": None if source == "latent" else source}

    def uncertainty_of(self, source: str) -> str:
        return "noise"

    def block(
        self,
        number: int,
        seed: int = 0,
        uncertainty: int = 8,
        condition: Mapping[str, str | float] | None = None,
        source: str = "latent",
        judge: Judge | None = None,
    ) -> list[Sample]:
        time.sleep(self.pause_s)
        start = number * self.block_size
        return [self._sample(i, seed, uncertainty) for i in range(start, start + self.block_size)]

    def _sample(self, index: int, seed: int, uncertainty: int) -> Sample:
        rng = np.random.default_rng([seed, index])
        shape = (self.size, self.size + 2)
        x = rng.integers(-160, 240, (uncertainty + 1, *shape)).astype(np.int16)
        label = np.zeros(shape, np.uint8)
        label[2:5, 3 : 6 + index % 3] = 1
        labels = np.repeat(label[None], uncertainty, 0)
        labels[::2, 4] = 0
        if self.kind != "ct":
            x = (x + 160).clip(0, 255).astype(np.uint8)
        spread = x[1:].astype(np.float32).std(0) if uncertainty else np.zeros(shape, np.float32)
        ct = self.kind == "ct"
        return Sample(
            index=index,
            image=x[0],
            label=label if ct else None,
            affine=np.array(
                [[2.5, 0, 0, -190], [0, 1.25, 0, -200 + index], [0, 0, 1, 7.5], [0, 0, 0, 1]]
            ),
            alternatives=x[1:],
            alternative_labels=labels if ct else None,
            std=spread.astype(np.float32),
            entropy=labels.any(0).astype(np.float32) if ct else None,
            origin={} if ct else {"class": index % 10},
        )


def start(
    out: Path, n: int, shard: tuple[int, int] = (0, 1), pause_s: float = 0.0, more: str = ""
) -> Any:
    """``synthesize`` from a process of its own."""
    code = (
        "import sys; from pathlib import Path; from medaug.synthesis.synthesize import synthesize;"
        "from tests.support.toy import Toy;"
        f"synthesize(Toy(pause_s={pause_s}), {n}, Path(sys.argv[1]), uncertainty=2, shard={shard}"
        f"{more})"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(out)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: Any) -> None:
    """Wait for a process that must succeed."""
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
