"""Two real parts of an evaluation, small enough for the tests of what joins the parts."""

import numpy as np
import torch

from medaug.evaluation.figures import Bound, Curve, Family, Figure
from medaug.evaluation.metrics.distances import frechet
from medaug.evaluation.slices.evidence import SliceSet
from medaug.evaluation.subject import Subject
from medaug.runtime.pictures import Picture, grey, shaded


def coarse(slices: SliceSet) -> torch.Tensor:
    """Means of 4 x 4 cells (n, 16), in HU."""
    n, h, w = slices.images.shape
    blocks = slices.images.astype(np.float64).reshape(n, 4, h // 4, 4, w // 4).mean((2, 4))
    return torch.from_numpy(blocks.reshape(n, 16))


def fidelity(subject: Subject) -> Family:
    """Frechet distance of coarse means, and the mean HU."""
    evidence = subject.evidence
    n = min(len(evidence.synthetic), len(evidence.train))
    made, real, unseen = (coarse(s) for s in (evidence.synthetic, evidence.train, evidence.heldout))
    value, beside = frechet(made[:n], unseen), frechet(real[:n], unseen)
    sets = {"synthetic": made, "training": real, "held out": unseen}
    middle = torch.cat(list(sets.values())).mean(0)
    _, _, axes = torch.linalg.svd(torch.cat(list(sets.values())) - middle, full_matrices=False)
    cloud = {}
    for name, features in sets.items():
        x, y = ((features - middle) @ axes[:2].T).T.tolist()
        cloud[name] = (x, y)
    told = {"n": n, "n_real": len(unseen), "seed": evidence.seed, "extractor": "means of 4 x 4"}
    gap = float(evidence.synthetic.images.mean() - evidence.heldout.images.mean())
    figures = [
        Figure(
            "fidelity.frechet.coarse",
            value,
            beside,
            "How far apart the two sets are in coarse brightness; large means that one sees it.",
            low=0.8 * value,
            high=1.25 * value,
            bound=Bound(most=3, of="ratio"),
            **told,
        ),
        Figure(
            "fidelity.mean_hu",
            gap,
            float(evidence.train.images.mean() - evidence.heldout.images.mean()),
            "Mean HU beside unseen patients; far from 0 means that all is too bright or too dark.",
            unit="HU",
            n=n,
            n_real=len(unseen),
        ),
    ]
    curves = [
        Curve("Feature map", "Each dot is a slice.", "first axis", "second axis", cloud),
        Curve(
            "Brightness", "Sorted means.", "slice", "HU",
            {k: (list(range(len(v))), sorted(v.mean(1).tolist())) for k, v in sets.items()},
        ),
    ]  # fmt: skip
    return Family("fidelity", figures, curves=curves, details={"axes": axes[:2].numpy()})


def privacy(subject: Subject) -> Family:
    """Share of slices that equal a training slice, with pairs."""
    evidence = subject.evidence
    pictures = [
        [grey(evidence.synthetic.images[i]), grey(evidence.train.images[i])] for i in range(3)
    ]
    known = {image.tobytes() for image in evidence.train.images}
    copies = [image.tobytes() in known for image in evidence.synthetic.images]
    figure = Figure(
        "privacy.exact_copies",
        float(np.mean(copies)),
        None,
        "Share of slices that are a training slice, pixel by pixel; any is one too many.",
        n=len(copies),
        n_real=len(evidence.train),
        bound=Bound(most=0.0),
    )
    spread = [[shaded(row[1]) for row in pictures]]
    return Family(
        "privacy",
        [figure],
        [
            Picture("Nearest pairs", "Left synthetic, right training.", pictures, ["a", "b", "c"]),
            Picture("Shades", "In colour.", spread),
        ],
        details={"generator": subject.generator is not None},
        skipped=["Membership by likelihood: <script>alert(1)</script> & no likelihood."],
    )


def broken(subject: Subject) -> Family:
    """Stops as a killed process does."""
    raise KeyboardInterrupt


def lacking(subject: Subject) -> Family:
    """A part that can measure nothing."""
    value = float("nan")
    figure = Figure("diversity.recall", value, 0.5, "Nothing.", 0, 0, bound=Bound(least=0.1))
    return Family("diversity", [figure], details={"nan": value, "n": np.int64(3)})
