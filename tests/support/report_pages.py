"""A report with everything on it, and its page."""

from pathlib import Path
from typing import Any

import numpy as np

from medaug.evaluation.figures import Bound, Curve, Family, Figure
from medaug.evaluation.page import render
from medaug.evaluation.page.training_curves import training_curves
from medaug.evaluation.verdict import of_all, of_family
from medaug.runtime.pictures import Picture

EVIL = "<script>alert('x')</script> & \"more\""


def figure(name: str, value: float, real: float | None = 1.0, **more: Any) -> Figure:
    sentence = "How far the slices are from real ones; far more than the real bar would be bad."
    return Figure(name, value, real, sentence, **{"n": 500, "n_real": 120, **more})


def tile(seed: int, colour: bool = False) -> np.ndarray:
    """A made-up slice at 64 pixels: a body with organs and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    grey = np.where((x / 0.85) ** 2 + (y / 0.7) ** 2 < 1, 120, 5) + rng.normal(0, 9, (64, 64))
    spot = (x - rng.uniform(-0.3, 0.3)) ** 2 + (y - 0.1) ** 2 < 0.06
    grey[spot] = 190
    whole = grey.clip(0, 255).astype(np.uint8)
    if not colour:
        return whole
    both = np.repeat(whole[..., None], 3, 2)
    both[spot] = (255, 196, 0)
    return both


def families() -> list[Family]:
    rng = np.random.default_rng(0)
    cloud = {
        name: (rng.normal(shift, 1, 80).tolist(), rng.normal(0, 1, 80).tolist())
        for name, shift in (("synthetic", 0.3), ("training", 0.0), ("held out", 0.0))
    }
    x = np.linspace(0, 1, 50).tolist()
    roc = {"distance": (x, [v**0.8 for v in x]), "chance": (x, x)}
    fidelity = Family(
        "fidelity",
        [
            figure(
                "fidelity.frechet.random_convolutions", 14.2, 11.9, low=13.1, high=15.6, seed=0,
                extractor="fixed random convolutions 1", bound=Bound(most=2.0, of="ratio"),
            ),
            figure("fidelity.mmd_rbf.encoder", -0.0012, 0.0008, low=-0.004, high=0.003),
            figure("fidelity.mean_hu", 3.2, 1.1, unit="HU", bound=Bound(-10, 10, "difference")),
        ],
        curves=[Curve("Feature map", "Each dot is a slice; the clouds should lie on each other.",
                      "first axis", "second axis", cloud)],
    )  # fmt: skip
    privacy = Family(
        "privacy",
        [
            figure("privacy.auc", 0.61, 0.5, bound=Bound(most=0.55)),
            figure("privacy.closer_to_training", 0.52, None, bound=Bound(most=0.6)),
        ],
        [
            Picture("Nearest pairs", "Left synthetic, right its nearest training slice.",
                    [[tile(i), tile(i + 50)] for i in range(4)], [f"{i}. pair" for i in range(4)]),
        ],
        [Curve("Membership", "The diagonal is chance.", "false positives", "true positives", roc)],
        skipped=[f"Likelihood: {EVIL}."],
    )  # fmt: skip
    anatomy = Family("anatomy", [figure("anatomy.area_mm2", 640, 655, unit="mm2")])
    return [fidelity, anatomy, privacy]


def content(parts: list[Family], **more: Any) -> dict[str, Any]:
    whole = of_all({family.name: of_family(family) for family in parts})
    return {
        "passed": whole.passed,
        "verdict": whole.sentence,
        "judged": {"what": "500 slices drawn from the run runs/phantom", "weights": "a" * 64},
        "against": {
            "source": "phantom",
            "fingerprint": "0123456789abcdef0123",
            "train": [f"PANCREAS_{i:04d}" for i in range(1, 17)],
            "heldout": [f"PANCREAS_{i:04d}" for i in range(17, 21)],
        },
        "settings": {"window_hu": [-160, 240], "size": 64, "pixel_mm": 5.625, "slices": 5000,
                     "labels": ["pancreas"], "seed": 0, "unit": "HU"},
        "versions": {"medaug": "0.1.0", "torch": "2.11.0"},
        "reproduce": "medaug evaluate --out report --run runs/phantom-vaegan --seed 0 "
                     "--set 'evaluate.bounds.privacy.auc={\"most\": 0.55}'",
        "downstream": None,
        **more,
    }  # fmt: skip


def study() -> dict[str, Any]:
    def span(mean: float) -> dict[str, float]:
        return {"mean": mean, "low": mean - 0.012, "high": mean + 0.013}

    def row(n: int, arm: str, role: str, dice: float, verdict: str = "", **more: Any) -> Any:
        compared = {"against": "cutmix", "differences": {"dice": span(0.02)}, "hurt": 2,
                    "cases": 30, "subsets": 3}  # fmt: skip
        beside = compared if role == "synthetic" else None
        scores = {"dice": span(dice), "hd95": span(12.4), "surface_dice": span(0.61)}
        return {"n": n, "arm": arm, "role": role, "scores": scores, "versus_standard": beside,
                "versus_rival": beside, "verdict": verdict, "seconds": 412.3, "skipped": "",
                **more}  # fmt: skip

    return {
        "rows": [
            row(4, "standard", "real", 0.736),
            row(4, "cutmix", "real", 0.74),
            row(4, "joint", "synthetic", 0.757, "helps"),
            row(4, "layout", "synthetic", 0.71, "hurts"),
            row(4, "pseudo", "synthetic", 0.7, skipped="no unlabelled scans", scores={}),
        ],
        "notes": ["Every arm taught the same U-Net for 700 steps."],
    }


def training(tmp: Path) -> list[Curve]:
    tmp.mkdir(parents=True, exist_ok=True)
    lines = [
        f'{{"images": {i * 64}, "images_per_s": 9.5, "vae/pixels": {1 / (i + 1)}, '
        f'"vae/gradient": {0.5 + 0.1 * (i % 7)}, "judge/hinge": {2 - i / 500}}}'
        for i in range(900)
    ]
    (tmp / "metrics.jsonl").write_text("\n".join([*lines, '{"images": 9, "vae/pi']))
    return training_curves(tmp)


def whole_page(folder: Path) -> Path:
    """A page with everything on it."""
    grid = Picture(
        "Synthetic and real slices", "Drawn at random; masks outlined.",
        [[tile(8 * r + c, colour=True) for c in range(8)] for r in range(3)],
        ["Synthetic slices", "Training slices", "Held out slices"],
    )  # fmt: skip
    parts = families()
    whole = content(parts, downstream=study())
    text = render(whole, parts, [grid], training(folder / "run"))
    path = folder / "index.html"
    path.write_text(text)
    return path
