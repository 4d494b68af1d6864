"""Every model on digits and clothes: trained, sampled, scored, one row each."""

from argparse import Namespace
from typing import Any

import board
from scoreboard import Reference, score

from medaug.core.config import presets
from medaug.core.registry import MODELS
from medaug.data.cache.prepare import SliceCache
from medaug.synthesis.generator import Generator

COLUMNS = {
    "inception_score": "IS",
    "frechet_ratio": "Frechet ratio",
    "mse": "MSE",
    "ms_ssim": "MS-SSIM",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "mmd_rbf_features": "MMD",
    "mmd_linear": "linear MMD",
    "class_kl": "class KL",
}


def row(
    how: Namespace, data: str, name: str, preset: str, cache: SliceCache, real: Reference
) -> dict[str, Any]:
    """Train one model where that is not done, sample it and score it."""
    config = board.settings(how, data, {"name": name, "preset": preset})
    run = how.work / "runs" / f"{data}-{name}-{preset}"

    def made() -> dict[str, Any]:
        report = board.trained(config, cache, run, how)
        generator = Generator.from_pretrained(run, how.device)
        return {
            "data": data,
            "model": name,
            "preset": preset,
            "images": report.images,
            "full_budget": not how.cut,
            "seconds": None if report.resumed else report.seconds,
            "arithmetic": generator.precision,
            "machine": board.machine(how.device),
            **score(board.drawn(generator, how.n), real),
            "mse": board.rebuilt(generator, cache, how.n),
        }

    return board.kept(how.work / "rows" / f"{data}-{name}-{preset}.json", config, how, made)


def page(how: Namespace, real: dict[str, dict[str, Any]], rows: list[dict[str, Any]]) -> list[str]:
    """The rows of every data set, best Frechet ratio first, under the row of real pictures."""
    machines = ", ".join(sorted({found["machine"] for found in rows}))
    parts = [
        "# Digits and clothes" + (", shorter runs" if how.cut else ""),
        "",
        f"Made by `{how.command}` on {machines}, {how.n} samples a row, each class "
        "as often as the others. Frechet ratio: distance to the test set in the features of a "
        "classifier trained here, over that of the training set at the same n (1 is real). MSE: "
        "reconstruction, in [-1, 1] units per pixel. MMD: in the same features. Class KL: of the "
        "drawn classes from uniform, nats.",
    ]
    if how.quick:
        parts.append(
            "Every run was cut to the images named, every network to width "
            f"{board.QUICK_WIDTH}, every batch to {board.QUICK_BATCH}: these rows rank short runs "
            "of small networks, not the models at their full budget."
        )
    elif how.cut:
        parts.append(
            f"Every run was cut to {how.images} images at its preset's own width and batch: the "
            "full budget is in the preset's config."
        )
    for data, figures in real.items():
        found = sorted((r for r in rows if r["data"] == data), key=lambda r: r["frechet_ratio"])
        lines = [(["*real*", "", "", ""], figures)]
        for each in found:
            budget = f"{each['images']}" + ("" if each["full_budget"] else " (short)")
            seconds = "" if each["seconds"] is None else f"{each['seconds']:.3g}"
            lines.append(([each["model"], each["preset"], budget, seconds], each))
        parts += board.section(data, ["model", "preset", "images", "seconds"], COLUMNS, lines)
        parts.append("")
        parts.append(
            f"The test set's own inception score is {figures['inception_score_test']:.2f}; the "
            f"classifier is right on {100 * figures['classifier']['test_accuracy']:.2f} % of it. "
            f"The linear MMD of GVAE's lineage at batch {figures['mmd_linear_batch']} is "
            f"{figures['mmd_linear']:.3g} for real pictures, its floor "
            f"{figures['mmd_linear_floor']:.3g}."
        )
    return parts


def main() -> int:
    """Fill the table; rows that are done are kept."""
    how = board.options(__doc__ or "", "digits")
    names = how.models or list(MODELS)
    real: dict[str, dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    for data in how.data:
        cache, reference, facts = board.pictures(how, data)
        real[data] = board.real_figures(reference, facts)
        for preset in how.presets:
            for name in (name for name in names if preset in presets(name)):
                rows.append(row(how, data, name, preset, cache, reference))
                ratio = rows[-1]["frechet_ratio"]
                print(f"{data} {name} {preset}: Frechet ratio {ratio:.3g}", flush=True)
                content = {"real": real, "rows": rows}
                board.publish(how.results, "digits" + how.cut, content, page(how, real, rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
