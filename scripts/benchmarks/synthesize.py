"""What writing adds to generating at 64 x 64 with 8 alternatives, and memory as n grows.

Generating alone and ``synthesize`` are timed in turns (alone, files, files, alone).  Writers run in
threads beside the generator, so besides the report's own account, which is what the loop waited for
them, the whole time is compared with that of generating alone: it also counts the processor that
writers took from the generator.
"""

import sys
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Any

from material import phantom_cache
from results import Asked, Claim, asked, fresh, peak_bytes, report

from medaug.cli.demonstration import SHIPPED
from medaug.core.config import resolve
from medaug.synthesis.generator import Generator
from medaug.synthesis.synthesize import synthesize
from medaug.training.checkpoint import read_tensors, write_tensors
from medaug.training.loop import fit
from medaug.training.run import weights_path

SAMPLES = 256
ALTERNATIVES = 8
GROWING = (64, 256, 1024)
FEW_STEPS = 2


def weights(how: Asked) -> Path:
    """The shipped phantom weights; a moment's training where there are none."""
    if SHIPPED.exists():
        return SHIPPED
    wishes = {"data": {"name": "phantom", "size": 64}, "train": {"images": 640}}
    return weights_path(fit(resolve(wishes), phantom_cache(how.work), how.work / "brief").run)


def with_few_steps(path: Path, target: Path) -> Path:
    """The same networks with fewer steps from noise to a code: quicker, and of the same size."""
    tensors, header, _ = read_tensors(path)
    header["config"]["model"]["prior"]["steps"] = FEW_STEPS
    write_tensors(target, tensors, header)
    return target


def generate_alone(generator: Generator, n: int) -> dict[str, float]:
    """Draw as ``synthesize`` would and drop the samples."""
    started, cpu = time.monotonic(), time.process_time()
    for number in range(-(-n // generator.block_size)):
        generator.block(number, uncertainty=ALTERNATIVES)
    return {"seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - cpu}


def write_too(generator: Generator, n: int, out: Path) -> dict[str, float]:
    """Draw and write."""
    cpu = time.process_time()
    done = synthesize(generator, n, out, uncertainty=ALTERNATIVES)
    assert done.written == n
    return {
        "seconds": done.seconds,
        "generate_seconds": done.generate_seconds,
        "write_seconds": done.write_seconds,
        "cpu_seconds": time.process_time() - cpu,
    }


def peak_of(path: str, n: int, out: str) -> int:
    """The peak memory of a process that synthesises ``n`` samples."""
    synthesize(Generator.from_pretrained(path), n, Path(out), uncertainty=ALTERNATIVES)
    return peak_bytes()


def measure(how: Asked, path: Path, folder: Path) -> dict[str, Any]:
    """Times with and without writing, and the peaks."""
    n = 32 if how.quick else SAMPLES
    generator = Generator.from_pretrained(path)
    generator.block(0, uncertainty=ALTERNATIVES)
    first = generate_alone(generator, n)
    files = [write_too(generator, n, folder / name) for name in "ab"]
    alone = [first, generate_alone(generator, n)]
    few = with_few_steps(path, folder / "few.safetensors")
    counts = (16, 32, 64) if how.quick else GROWING
    return {
        "n": n,
        "generate_alone": average(alone),
        "synthesize": average(files),
        "peak_bytes": {
            str(n): fresh("synthesize", "peak_of", few, n, folder / f"out-{n}") for n in counts
        },
    }


def average(told: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each figure over repeats."""
    return {key: mean(one[key] for one in told) for key in told[0]}


def derived(figures: dict[str, Any]) -> dict[str, float]:
    """What follows from the times and peaks, in per cent and seconds."""
    alone, files = figures["generate_alone"], figures["synthesize"]
    peaks = list(figures["peak_bytes"].values())
    return {
        "waited_for_writing_percent": 100 * files["write_seconds"] / files["generate_seconds"],
        "over_generating_alone_percent": 100 * (files["seconds"] / alone["seconds"] - 1),
        "cpu_seconds_of_writing": files["cpu_seconds"] - alone["cpu_seconds"],
        "cpu_over_generating_alone_percent": 100
        * (files["cpu_seconds"] / alone["cpu_seconds"] - 1),
        "peak_spread_percent": 100 * (max(peaks) / min(peaks) - 1),
    }


def claims(told: dict[str, float]) -> list[Claim]:
    """Both accounts of writing against the bound, and the spread of the peaks."""
    named = {
        "writing over generating, by the report": ("waited_for_writing_percent", 25),
        "whole time over generating alone": ("over_generating_alone_percent", 25),
        "spread of peak memory as n grows": ("peak_spread_percent", 5),
    }
    return [Claim(what, told[key], "<", bound, "%") for what, (key, bound) in named.items()]


def main() -> int:
    """Measure and report."""
    how = asked()
    with tempfile.TemporaryDirectory(dir=how.work) as folder:
        path = weights(how)
        figures = measure(how, path, Path(folder))
    told = derived(figures)
    kind = "the shipped phantom weights" if path == SHIPPED else "weights trained for a moment"
    note = (
        f"64 x 64, K = {ALTERNATIVES}, gzip, {kind}. Peaks are of fresh processes whose model "
        f"takes {FEW_STEPS} steps from noise to a code, to be quick; the networks are the same."
    )
    n = figures["n"]
    return report(how, "synthesize", claims(told), figures | told, n=n, seed=0, note=note)


if __name__ == "__main__":
    sys.exit(main())
