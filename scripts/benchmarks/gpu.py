"""Training on one GPU: images per second, shares of what the hardware gives, idle time, the peers.

Every measurement is a process of its own and, where it is whole, kept below build/bench/gpu for the
same program and GPU, so that a row that was killed goes on with the next one; a row that ended with
all of them measures anew.  One that fails is reported with its reason, and without its claim.

Without a GPU the slices are prepared, to be taken to a machine that has one but no SimpleITK, and
nothing is measured.
"""

import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from counting import (
    convolution_seconds,
    counted,
    idle_share,
    matrix_peak,
    memory_rate,
)
from cpu import advantage, compared
from keeping import kept, sources
from material import PATIENTS, SEED, cached
from results import Asked, Claim, NotMeasured, asked, fresh, report
from train import set_up

BATCH = 64
SIZES = (32, 64, 128, 256)
GAMES: dict[str, dict[str, Any]] = {
    "vaegan": {"name": "vaegan", "preset": "author"},
    "wgan_gp": {"name": "wgan_gp", "preset": "author"},
    "gvae": {"name": "gvae", "preset": "author"},
}
LEFT_OUT = {("gvae", 256)}
"""Its 3.2 billion weights with gradients, moments and average are 63 GB before any activation."""
MISSING = "not measured"
UNMEASURED = 2
SECONDS = 5.0
BARS = {("vaegan", 64): 5.0, ("wgan_gp", 64): 5.0}
"""How many times the best rival's speed is wanted."""


def ceilings() -> dict[str, float]:
    """What the GPU gives: operations a second, bytes a second."""
    device = torch.device("cuda")
    return {"bf16_flops_per_s": matrix_peak(device), "bytes_per_s": memory_rate(device)}


def hardware(work: str, name: str, size: int, batch: int) -> dict[str, float]:
    """What medaug's rounds ask of the GPU, counted as they are played one by one; their pace."""
    folder = Path(work)
    cache = cached(folder, size)
    plain = set_up(cache, GAMES[name], folder / "run-eager", "cuda", batch=batch, capture="off")
    for _ in range(2):
        plain.round()
    asks = counted(plain.round)
    alone = convolution_seconds(asks["convolutions"], torch.device("cuda"))
    eager = paced(plain.round)
    del plain
    fast = set_up(cache, GAMES[name], folder / "run-graph", "cuda", batch=batch)
    for _ in range(8):
        fast.round()
    pace = paced(fast.round)
    return {
        "images_per_s": pace,
        "eager_images_per_s": eager,
        "flops_per_image": asks["flops_per_image"],
        "bytes_per_image": asks["bytes_per_image"],
        "convolution_seconds_per_image": alone / asks["images"],
        "idle": idle_share(fast.round, 10),
        "recorded": float(fast.capture is not None and not fast.capture.refused),
    }


def paced(round: Callable[[], int], seconds: float = 3.0) -> float:
    """Images per second on the GPU."""
    torch.cuda.synchronize()
    images, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        images += round()
        torch.cuda.synchronize()
    return images / (time.perf_counter() - started)


def gathered(
    how: Asked, place: Path, sizes: tuple[int, ...], batch: int, seconds: float
) -> dict[str, Any]:
    """All measurements, those of 64 pixels first, or why there are none; kept in ``place``."""
    figures = {"ceilings": cell(place / "ceilings.json", lambda: fresh("gpu", "ceilings"))}
    for size in sorted(sizes, key=lambda size: (size != 64, size)):
        for name, game in GAMES.items():
            if (name, size) in LEFT_OUT:
                continue
            key = f"{name}-{size}"
            figures[key] = cell(
                place / f"{key}.json",
                lambda n=name, s=size: fresh("gpu", "hardware", how.work, n, s, batch),
            )
            figures[f"{key}-rivals"] = cell(
                place / f"{key}-rivals.json",
                lambda g=game, s=size: compared(how, s, batch, g, "cuda", 1, seconds),
            )
    return figures


def cell(path: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """One measurement, kept where no rival is missing, or why there is none."""
    try:
        told: dict[str, Any] = kept(
            path, measure, lambda told: not any(isinstance(value, str) for value in told.values())
        )
    except NotMeasured as error:
        print(f"gpu: {path.stem}: {MISSING}: {error}", file=sys.stderr, flush=True)
        return {MISSING: str(error)}
    return told


def missing(figures: dict[str, Any]) -> dict[str, str]:
    """The measurements that failed, and why."""
    return {key: told[MISSING] for key, told in figures.items() if MISSING in told}


def shares(figures: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Each game's shares of the peaks: operations, bytes, and of its own convolutions' rate."""
    peak, found = figures["ceilings"], {}
    for key, told in figures.items():
        if "images_per_s" in told and "flops_per_image" in told and MISSING not in peak:
            pace = told["images_per_s"]
            matrix = told["flops_per_image"] / peak["bf16_flops_per_s"]
            memory = told["bytes_per_image"] / peak["bytes_per_s"]
            found[key] = {
                "of_matrix_peak": pace * matrix,
                "of_memory_bound": pace * memory,
                "of_bound": pace * max(matrix, memory),
                "of_own_convolutions": pace * told["convolution_seconds_per_image"],
            }
    return found


def claims(figures: dict[str, Any]) -> list[Claim]:
    """What the GPU must show."""
    found = shares(figures)
    result = [
        Claim(
            f"{name} at {size} px over the best rival",
            advantage(figures[f"{name}-{size}-rivals"]),
            ">=",
            bar,
            "x",
        )
        for (name, size), bar in BARS.items()
        if MISSING not in figures.get(f"{name}-{size}-rivals", {MISSING: ""})
    ]
    if "vaegan-256" in found:
        share = 100 * found["vaegan-256"]["of_own_convolutions"]
        result.append(Claim("256 px VAE/GAN, of its convolutions' rate", share, ">=", 40, "%"))
    return result


def main() -> int:
    """Measure and report, or only prepare."""
    how = asked()
    sizes = (64,) if how.quick else SIZES
    for size in sizes:
        cached(how.work, size)
    if not torch.cuda.is_available():
        print("gpu: no CUDA GPU here: the slices are prepared, nothing is measured")
        return 0
    gpu = re.sub(r"\W+", "-", torch.cuda.get_device_name())
    place = how.work / "gpu" / f"{sources()}-{gpu}"
    figures = gathered(how, place, sizes, BATCH, 2.0 if how.quick else SECONDS)
    failed = missing(figures)
    note = (
        f"Image and mask, batch {BATCH}, bfloat16, {PATIENTS} phantom patients, the authors' "
        "networks. Bytes are those of every operator as if each went to memory, so their share may "
        "pass 1. Rivals run in processes of their own. GVAE at 256 pixels is left out: with "
        "gradients, moments and average its weights alone are 63 GB."
        + "".join(f" {key} was not measured: {why}." for key, why in failed.items())
    )
    told = {**figures, "shares": shares(figures)}
    status = report(how, "gpu", claims(figures), told, n=len(sizes), seed=SEED, note=note)
    if failed:
        return UNMEASURED
    shutil.rmtree(place)
    return status


if __name__ == "__main__":
    sys.exit(main())
