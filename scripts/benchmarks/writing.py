"""Whether writing hides behind generating at 128 x 128 with 8 alternatives, or the other way round.

Three times are taken one after another: drawing the samples and dropping them; writing as many that
were drawn before, a few blocks over and over under new names; and ``synthesize``, which does both.
If the two overlap, the third is hardly longer than the longer of the others, as far as the
processor has room for both: their processor seconds are in the figures.
"""

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from material import phantom_cache
from results import Asked, Claim, asked, report

from medaug.core.config import resolve
from medaug.core.types import Sample
from medaug.data.cache.prepare import CacheSettings
from medaug.synthesis.generator import Generator
from medaug.synthesis.synthesize import synthesize
from medaug.training.loop import fit

SAMPLES = 5000
ON_CPU = 480
"""Without a CUDA GPU 5000 would be drawn for forty minutes, twice."""
ALTERNATIVES = 8
SIZE = 128
KEPT_BLOCKS = 4
PATIENTS = 4
SEED = 128


class Replay:
    """Blocks drawn before, as if a generator made them in no time."""

    def __init__(self, generator: Generator, blocks: list[list[Sample]]) -> None:
        self.blocks = blocks
        self.fingerprint, self.kind, self.labels = (
            generator.fingerprint,
            generator.kind,
            generator.labels,
        )
        self.config, self.block_size = generator.config, generator.block_size
        self.channels, self.privacy = generator.channels, generator.privacy
        self.fix, self.depends_on = generator.fix, generator.depends_on
        self.uncertainty_of = generator.uncertainty_of

    def block(self, number: int, **_: Any) -> list[Sample]:
        """One of the kept blocks, under the indices asked for."""
        kept = self.blocks[number % len(self.blocks)]
        start = number * self.block_size
        return [replace(sample, index=start + i) for i, sample in enumerate(kept)]


def train_briefly(how: Asked) -> Path:
    """A run of the default model at 128 pixels; how long it trained does not alter its speed."""
    cache = phantom_cache(how.work, PATIENTS, SEED, CacheSettings(size=SIZE))
    wishes = {
        "data": {"name": "phantom", "size": SIZE},
        "train": {"images": 64 if how.quick else 640, "batch": 16},
    }
    return fit(resolve(wishes), cache, how.work / "brief-128").run


def measure(generator: Generator, n: int, folder: Path) -> dict[str, dict[str, float]]:
    """Wall and processor seconds of generating, of writing, and of both at once."""

    def generate() -> None:
        for number in range(-(-n // generator.block_size)):
            generator.block(number, uncertainty=ALTERNATIVES)

    def write(source: Any, name: str) -> None:
        done = synthesize(source, n, folder / name, uncertainty=ALTERNATIVES)
        assert done.written == n

    blocks = [generator.block(i, uncertainty=ALTERNATIVES) for i in range(KEPT_BLOCKS)]
    return {
        "generate_alone": clocked(generate),
        "write_alone": clocked(lambda: write(Replay(generator, blocks), "alone")),
        "both": clocked(lambda: write(generator, "both")),
    }


def clocked(work: Any) -> dict[str, float]:
    """Wall and processor seconds of one call."""
    started, cpu = time.monotonic(), time.process_time()
    work()
    return {"seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - cpu}


def derived(figures: dict[str, dict[str, float]]) -> dict[str, float]:
    """What follows from the times."""
    made, wrote, both = (
        figures[name]["seconds"] for name in ("generate_alone", "write_alone", "both")
    )
    return {
        "total_over_slower": both / max(made, wrote),
        "total_over_sum": both / (made + wrote),
        "cores_that_writing_alone_uses": figures["write_alone"]["cpu_seconds"] / wrote,
    }


def claims(told: dict[str, float]) -> list[Claim]:
    """The whole against the slower of its parts."""
    what = "generating and writing over the slower of the two alone"
    return [Claim(what, told["total_over_slower"], "<", 1.2, "x")]


def main() -> int:
    """Measure and report."""
    how = asked()
    generator = Generator.from_pretrained(train_briefly(how))
    n = SAMPLES if generator.device.type == "cuda" else ON_CPU
    n = 48 if how.quick else n
    with tempfile.TemporaryDirectory(dir=how.work) as folder:
        figures = measure(generator, n, Path(folder))
    told = derived(figures)
    note = f"{SIZE} x {SIZE}, K = {ALTERNATIVES}, NIfTI with gzip, weights trained for a moment."
    return report(how, "writing", claims(told), {**figures, **told}, n=n, seed=0, note=note)


if __name__ == "__main__":
    sys.exit(main())
