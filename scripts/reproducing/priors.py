"""What each prior is worth on the codes of one autoencoder, and what its samples cost."""

import time
from argparse import Namespace
from typing import Any

import board
import torch
from scoreboard import Reference, score

from medaug.data.cache.prepare import SliceCache
from medaug.synthesis.generator import Generator
from medaug.training.loop import TrainReport

BASE = {"name": "vae", "preset": "modern", "prior": "gaussian"}
TIMED = 256
PRIORS: dict[str, dict[str, Any]] = {
    "gaussian": {},
    "gmm": {"prior": "gmm"},
    "adversarial": {"prior": {"name": "adversarial", "share": 1.0}},
    "flow, 2 steps": {"prior": {"name": "flow", "share": 1.0, "steps": 2}},
    "flow, 24 steps": {"prior": {"name": "flow", "share": 1.0, "steps": 24}},
}
COLUMNS = {
    "milliseconds": "ms a sample",
    "times_gaussian": "times the Gaussian's",
    "inception_score": "IS",
    "frechet_ratio": "Frechet ratio",
    "density": "density",
    "coverage": "coverage",
}


def milliseconds(generator: Generator) -> float:
    """Time to draw one sample, prior and decoder, in batches of ``TIMED``; the best of three."""
    best = float("inf")
    indices = range(TIMED)
    cond = generator.rows([generator.condition.of(0, i, {}) for i in indices])
    noise = generator.noise(0, indices, "code")
    for _ in range(3):
        started = time.perf_counter()
        generator.decode(generator.prior(noise, cond), cond)
        best = min(best, time.perf_counter() - started)
    return 1000 * best / TIMED


def row(
    how: Namespace, data: str, name: str, cache: SliceCache, base: TrainReport, real: Reference
) -> dict[str, Any]:
    """Learn one prior on the autoencoder of ``base``, whose networks rest, and score it."""
    # a mixture is fitted, not trained: one batch at a rate of 0 leaves the networks alone
    more, few = ({"lr": 0.0}, 64) if name == "gmm" else ({}, None)
    config = board.settings(how, data, {**BASE, **PRIORS[name], **more}, few)

    def made() -> dict[str, Any]:
        run = base.run
        if name != "gaussian":
            run = how.work / "priors" / f"{data}-{name.replace(', ', '-').replace(' ', '')}"
            board.trained(config, cache, run, how, init=base.run)
        generator = Generator.from_pretrained(run, how.device)
        return {
            "data": data,
            "prior": name,
            "images": None if name in ("gaussian", "gmm") else base.images,
            "milliseconds": milliseconds(generator),
            **score(board.drawn(generator, how.n), real),
        }

    return board.kept(how.work / "priors" / "rows" / f"{data}-{name}.json", config, how, made)


def page(how: Namespace, real: dict[str, dict[str, Any]], rows: list[dict[str, Any]]) -> list[str]:
    """The priors of every data set, in the order of their cost."""
    parts = [
        "# Priors" + (", shorter runs" if how.cut else ""),
        "",
        f"Made by `{how.command}` on {board.machine(how.device)}, {how.n} samples "
        "a row. One VAE (preset modern) is trained with N(0, I); then each prior is learned on its "
        "codes while encoder and decoder rest. Milliseconds are of prior and decoder together.",
    ]
    if how.cut:
        width = f", at width {board.QUICK_WIDTH}" if how.quick else ""
        parts.append(f"Autoencoder and priors had {how.images} images each{width}.")
    for data, figures in real.items():
        lines = [(["*real*", ""], figures)]
        lines += [([r["prior"], str(r["images"] or "")], r) for r in rows if r["data"] == data]
        parts += board.section(data, ["prior", "images"], COLUMNS, lines)
    return parts


def main() -> int:
    """Fill the table; rows that are done are kept."""
    how = board.options(__doc__ or "", "priors")
    real: dict[str, dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    for data in how.data:
        cache, reference, facts = board.pictures(how, data)
        real[data] = board.real_figures(reference, facts)
        run = how.work / "priors" / f"{data}-base"
        base = board.trained(board.settings(how, data, BASE), cache, run, how)
        gaussian = None
        for name in PRIORS:
            found = row(how, data, name, cache, base, reference)
            gaussian = gaussian or found["milliseconds"]
            rows.append({**found, "times_gaussian": found["milliseconds"] / gaussian})
            print(f"{data} {name}: Frechet ratio {found['frechet_ratio']:.3g}", flush=True)
            content = {"real": real, "rows": rows, "torch_threads": torch.get_num_threads()}
            board.publish(how.results, "priors" + how.cut, content, page(how, real, rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
