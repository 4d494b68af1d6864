"""What each prior is worth on the codes of one autoencoder, and what its samples cost."""

import time
from pathlib import Path
from typing import Any

import torch
from board import (
    QUICK_WIDTH,
    Asked,
    asked,
    called,
    drawn,
    kept,
    machine,
    pictures,
    publish,
    real_figures,
    settings,
    trained,
)
from digits import figure, line
from scoreboard import Reference, score

from medaug.data.cache.prepare import SliceCache
from medaug.runtime.files import write_json
from medaug.synthesis.generator import Generator

BASE = {"name": "vae", "preset": "modern", "prior": "gaussian"}
TIMED = 256
PRIORS: dict[str, dict[str, Any]] = {
    "gaussian": {},
    "gmm": {"prior": "gmm"},
    "adversarial": {"prior": "adversarial", "prior_share": 1.0},
    "flow, 2 steps": {"prior": "flow", "prior_share": 1.0, "prior_steps": 2},
    "flow, 24 steps": {"prior": "flow", "prior_share": 1.0, "prior_steps": 24},
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
    how: Asked, data: str, name: str, images: int, cache: SliceCache, base: Path, real: Reference
) -> dict[str, Any]:
    """Learn one prior on the autoencoder in ``base``, whose networks rest, and score it."""
    place = how.work / "priors" / "rows" / f"{data}-{name}.json"
    model = {**BASE, **PRIORS[name]}
    # a mixture is fitted, not trained: one batch at a rate of 0 leaves the networks alone
    fitted = name == "gmm"
    config = settings(how, data, {**model, "lr": 0.0} if fitted else model, 64 if fitted else None)
    made_with = {"config": config.dump(), "n": how.n}
    found = kept(place, made_with)
    if found is not None:
        return found
    run = base
    if name != "gaussian":
        run = how.work / "priors" / f"{data}-{name.replace(', ', '-').replace(' ', '')}"
        trained(config, cache, run, how, init=base)
    generator = Generator.from_pretrained(run, how.device)
    result = {
        "data": data,
        "prior": name,
        "images": None if name in ("gaussian", "gmm") else images,
        "milliseconds": milliseconds(generator),
        **score(drawn(generator, how.n), real),
        "made_with": made_with,
    }
    write_json(place, result)
    return result


def table(how: Asked, real: dict[str, dict[str, Any]], rows: list[dict[str, Any]]) -> str:
    """The priors of every data set, in the order of their cost."""
    command = "scripts/reproduce priors" + called(how)
    parts = [
        "# Priors" + (", shorter runs" if how.cut else ""),
        "",
        f"Made by `{command}` on {machine(how.device)}, {how.n} samples a row. One VAE (preset "
        "modern) is trained with N(0, I); then each prior is learned on its codes while encoder "
        "and decoder rest. Milliseconds are of prior and decoder together.",
    ]
    if how.cut:
        width = f", at width {QUICK_WIDTH}" if how.quick else ""
        parts.append(f"Autoencoder and priors had {how.images} images each{width}.")
    for data in real:
        head = ["prior", "images", *COLUMNS.values()]
        parts += ["", f"## {data}", "", line(head), line(["---"] * len(head))]
        parts.append(line(["*real*", "", *(figure(real[data].get(c)) for c in COLUMNS)]))
        for found in (r for r in rows if r["data"] == data):
            images = "" if found["images"] is None else str(found["images"])
            cells = [found["prior"], images, *(figure(found.get(c)) for c in COLUMNS)]
            parts.append(line(cells))
    return "\n".join(parts) + "\n"


def main() -> int:
    """Fill the table; rows that are done are kept."""
    how = asked(__doc__ or "")
    real: dict[str, dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    for data in how.data:
        cache, reference, facts = pictures(how, data)
        real[data] = real_figures(reference, facts)
        base = how.work / "priors" / f"{data}-base"
        report = trained(settings(how, data, BASE), cache, base, how)
        for name in PRIORS:
            found = row(how, data, name, report.images, cache, base, reference)
            found["times_gaussian"] = found["milliseconds"] / (
                rows[-1]["milliseconds"] / rows[-1]["times_gaussian"]
                if rows and rows[-1]["data"] == data
                else found["milliseconds"]
            )
            rows.append(found)
            print(f"{data} {name}: Frechet ratio {found['frechet_ratio']:.3g}", flush=True)
            content = {"real": real, "rows": rows, "torch_threads": torch.get_num_threads()}
            title = "priors" + how.cut
            publish(how.results, title, content, table(how, real, rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
