"""Planted defects, each in the place of the synthetic slices: which parts of a report fail.

Phantom patients at 64 px: some teach, some are held out, and a third group, on whom no bound was
chosen, stands in the place of the synthetic slices, first as it is, then with one defect at a time.
The parts are those that a folder of slices gets; uncertainty needs a model.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from copies import CHANGES, HELDOUT, KNOWN, SIZE, STRANGERS, WINDOW
from material import organ_cache
from results import Asked, Claim, asked, report
from scipy import ndimage

from medaug.data.cache.prepare import CacheSettings
from medaug.evaluation.families import anatomy, appearance, diversity, fidelity, privacy
from medaug.evaluation.families.anatomy import witness
from medaug.evaluation.features.spaces import spaces_of
from medaug.evaluation.figures import Figure
from medaug.evaluation.slices.evidence import Evidence, SliceSet, real_slices
from medaug.training.segmenter import Segmenter

TRAIN, CALIBRATION, UNSEEN = 20261211, 20261212, 20261213
"""Seeds of patients that were looked at once, after every bound was chosen."""
SEED = 1
SAMPLES = 400
DISTINCT = 10
"""Images that are left after a collapse."""
COPIED = 0.1
"""Share of the slices that are copies."""
SHIFT_PX = 4

Array = npt.NDArray[Any]


def drawn(part: SliceSet, change: Callable[[Array], Array]) -> SliceSet:
    """The slices with other HU."""
    changed = np.rint(change(part.images.astype(np.float32))).clip(*WINDOW)
    return replace(part, images=changed.astype(np.int16))


def collapsed(part: SliceSet) -> SliceSet:
    """A few of the slices over and over, each a case of its own."""
    few = np.random.default_rng(SEED).permutation(len(part))[:DISTINCT]
    whole = part.pick(few[np.arange(len(part)) % DISTINCT])
    return replace(whole, cases=[f"syn_{i:06d}" for i in range(len(part))])


def copied(part: SliceSet, train: SliceSet, change: Callable[..., Array]) -> SliceSet:
    """The slices, a tenth of them replaced by changed training slices."""
    rng = np.random.default_rng(SEED)
    count = int(COPIED * len(part))
    places, sources = rng.permutation(len(part))[:count], rng.permutation(len(train))[:count]
    images, labels = part.images.copy(), part.labels.copy()
    changed = change(train.images[sources].astype(np.float32), rng)
    images[places] = np.rint(changed).clip(*WINDOW)
    labels[places] = train.labels[sources]
    return replace(part, images=images, labels=labels)


def planted(real: SliceSet, train: SliceSet, heldout: SliceSet) -> dict[str, tuple[str, SliceSet]]:
    """Slices by what is wrong with them, and the part that should say so; empty: none."""
    rng = np.random.default_rng(SEED)
    disguise = CHANGES["shifted, mirrored, noised"]
    moved = replace(real, labels=np.roll(real.labels, SHIFT_PX, 2))
    return {
        "patients of nobody": ("", real),
        "the held-out slices": ("", heldout),
        "blur of 1 px": (
            "fidelity",
            drawn(real, lambda x: ndimage.gaussian_filter(x, (0, 1, 1))),
        ),
        "noise of 25 HU": ("fidelity", drawn(real, lambda x: x + rng.normal(0, 25, x.shape))),
        "30 HU too bright": ("fidelity", drawn(real, lambda x: x + 30)),
        "30 HU too dark": ("fidelity", drawn(real, lambda x: x - 30)),
        f"{DISTINCT} images repeated": ("diversity", collapsed(real)),
        "a tenth exact copies": ("privacy", copied(real, train, CHANGES["exact"])),
        "a tenth copies, shifted, mirrored, noised": ("privacy", copied(real, train, disguise)),
        f"masks moved by {SHIFT_PX} px": ("anatomy", moved),
    }


def failures(evidence: Evidence, segmenter: Segmenter, folder: Path) -> dict[str, list[Figure]]:
    """The figures whose bound does not hold, by part."""
    spaces = spaces_of(evidence, folder)
    looks, _, _ = appearance.figures(evidence)
    found = {
        "fidelity": [*fidelity.measure(evidence, spaces).figures, *looks],
        "diversity": diversity.measure(evidence, spaces).figures,
        "anatomy": anatomy.measure(evidence, segmenter).figures,
        "privacy": privacy.measure(evidence, spaces={"encoder": spaces.learned[1]}).figures,
    }
    return {part: [f for f in figures if f.passed is False] for part, figures in found.items()}


def main() -> int:
    """Measure and report."""
    how: Asked = asked()
    settings = CacheSettings(size=SIZE, holdout=0)
    counts = (6, 6, 6) if how.quick else (KNOWN, HELDOUT, STRANGERS)
    train, heldout, real = (
        real_slices(organ_cache(how.work, n, seed, settings), "train", WINDOW)
        for n, seed in zip(counts, (TRAIN, CALIBRATION, UNSEEN), strict=True)
    )
    real = real.some(SAMPLES, SEED)
    segmenter = witness(train, WINDOW, count=800 if how.quick else 4000)
    rows: dict[str, Any] = {}
    for name, (part, slices) in planted(real, train, heldout).items():
        evidence = Evidence(slices, train, heldout, WINDOW, SEED)
        failed = failures(evidence, segmenter, how.work / "defects")
        rows[name] = {
            "should_fail": part,
            "failed": {
                which: {f.name: [f.value, f.real] for f in figures}
                for which, figures in failed.items()
                if figures
            },
        }
        print(f"defects: {name}: {', '.join(rows[name]['failed']) or 'all pass'}", flush=True)
    wanted = {name: row["should_fail"] for name, row in rows.items()}
    seen = [name for name, part in wanted.items() if part and part in rows[name]["failed"]]
    others = [
        f"{which} of {name}"
        for name, row in rows.items()
        for which in row["failed"]
        if which != row["should_fail"]
    ]
    claims = [
        Claim("planted defects that their part sees, of 8", len(seen), ">=", 8),
        Claim("verdicts of other parts that change, and of real slices", len(others), "<=", 0),
    ]
    note = (
        f"{len(real)} slices of patients of a seed of their own, whom no bound was chosen on; "
        "uncertainty needs a model and is not among the parts."
    )
    figures = {
        "planted": rows,
        "others": others,
        "patients": list(counts),
        "patients_seeds": [TRAIN, CALIBRATION, UNSEEN],
    }
    return report(how, "defects", claims, figures, n=len(real), seed=SEED, note=note)


if __name__ == "__main__":
    sys.exit(main())
