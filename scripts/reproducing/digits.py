"""Every model on digits and clothes: trained, sampled, scored, one row each."""

from typing import Any

from board import (
    QUICK_BATCH,
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
    rebuilt,
    settings,
    trained,
)
from scoreboard import Reference, score

from medaug.core.registry import MODELS
from medaug.data.cache.prepare import SliceCache
from medaug.runtime.files import write_json
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
    how: Asked, data: str, name: str, preset: str, cache: SliceCache, real: Reference
) -> dict[str, Any]:
    """Train one model where that is not done, sample it and score it."""
    place = how.work / "rows" / f"{data}-{name}-{preset}.json"
    config = settings(how, data, {"name": name, "preset": preset})
    made_with = {"config": config.dump(), "n": how.n}
    found = kept(place, made_with)
    if found is not None:
        return found
    run = how.work / "runs" / f"{data}-{name}-{preset}"
    report = trained(config, cache, run, how)
    generator = Generator.from_pretrained(run, how.device)
    result = {
        "data": data,
        "model": name,
        "preset": preset,
        "images": report.images,
        "full_budget": not how.cut,
        "seconds": None if report.resumed else report.seconds,
        "arithmetic": generator.precision,
        "machine": machine(how.device),
        **score(drawn(generator, how.n), real),
        "mse": rebuilt(generator, cache, how.n),
        "made_with": made_with,
    }
    write_json(place, result)
    return result


def line(cells: list[str]) -> str:
    """One line of a table."""
    return "| " + " | ".join(cells) + " |"


def figure(value: float | None) -> str:
    """A figure for a reader."""
    return "" if value is None else f"{value:.3g}"


def table(how: Asked, real: dict[str, dict[str, Any]], rows: list[dict[str, Any]]) -> str:
    """The rows of every data set, best Frechet ratio first, under the row of real pictures."""
    command = "scripts/reproduce digits" + called(how)
    machines = ", ".join(sorted({found["machine"] for found in rows}))
    parts = [
        "# Digits and clothes" + (", shorter runs" if how.cut else ""),
        "",
        f"Made by `{command}` on {machines}, {how.n} samples a row, each class as often "
        "as the others. Frechet ratio: distance to the test set in the features of a classifier "
        "trained here, over that of the training set at the same n (1 is real). MSE: "
        "reconstruction, in [-1, 1] units per pixel. MMD: in the same features. Class KL: of the "
        "drawn classes from uniform, nats.",
    ]
    if how.quick:
        parts.append(
            "Every run was cut to the images named, every network to width "
            f"{QUICK_WIDTH}, every batch to {QUICK_BATCH}: these rows rank short runs of small "
            "networks, not the models at their full budget."
        )
    elif how.cut:
        parts.append(
            f"Every run was cut to {how.images} images at its preset's own width and batch: the "
            "full budget is in the preset's config."
        )
    for data, figures in real.items():
        head = ["model", "preset", "images", "seconds", *COLUMNS.values()]
        parts += ["", f"## {data}", "", line(head), line(["---"] * len(head))]
        parts.append(line(["*real*", "", "", "", *(figure(figures.get(c)) for c in COLUMNS)]))
        for found in sorted(
            (r for r in rows if r["data"] == data), key=lambda r: float(r["frechet_ratio"])
        ):
            budget = f"{found['images']}" + ("" if found["full_budget"] else " (short)")
            seconds = figure(found["seconds"])
            cells = [found["model"], found["preset"], budget, seconds]
            parts.append(line([*cells, *(figure(found.get(c)) for c in COLUMNS)]))
        parts.append("")
        parts.append(
            f"The test set's own inception score is {figures['inception_score_test']:.2f}; the "
            f"classifier is right on {100 * figures['classifier']['test_accuracy']:.2f} % of it. "
            f"The linear MMD of GVAE's lineage at batch {figures['mmd_linear_batch']} is "
            f"{figures['mmd_linear']:.3g} for real pictures, its floor "
            f"{figures['mmd_linear_floor']:.3g}."
        )
    return "\n".join(parts) + "\n"


def main() -> int:
    """Fill the table; rows that are done are kept."""
    how = asked(__doc__ or "")
    names = how.models or [name for name in MODELS if "." not in name]
    real: dict[str, dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    for data in how.data:
        cache, reference, facts = pictures(how, data)
        real[data] = real_figures(reference, facts)
        for preset in how.presets:
            for name in names:
                rows.append(row(how, data, name, preset, cache, reference))
                ratio = rows[-1]["frechet_ratio"]
                print(f"{data} {name} {preset}: Frechet ratio {ratio:.3g}", flush=True)
                title = "digits" + how.cut
                content = {"real": real, "rows": rows}
                publish(how.results, title, content, table(how, real, rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
