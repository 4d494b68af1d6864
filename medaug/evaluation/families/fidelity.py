"""Fidelity: do synthetic slices look like slices of patients that the generator has not seen.

Distances between sets (MMD, Frechet, kernel) are told without a bound: they answer to a lack of
variety as well, which is the diversity part's verdict.  The bounds are on what each slice is by
itself: the share of slices that lie among real ones, and the shift of the typical slice.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from medaug.evaluation.families.common import LEAST, FigureBuilder, Pair, too_few
from medaug.evaluation.features.extractor import Extractor
from medaug.evaluation.features.spaces import Spaces, spaces_of
from medaug.evaluation.features.texture import NAMES
from medaug.evaluation.figures import Bound, Curve, Family, Figure
from medaug.evaluation.metrics.distances import (
    Mmd,
    bandwidths,
    cubic,
    frechet_estimate,
    gaussian,
    linear_floor,
    linear_gaps,
)
from medaug.evaluation.metrics.intervals import Estimate
from medaug.evaluation.metrics.neighbours import (
    Held,
    held,
    integrated,
    radii,
    scans_of,
    typical,
    weighted,
)
from medaug.evaluation.slices.evidence import Evidence

# Maps of a feature space: where synthetic slices lie beside real ones, to be looked at.


MOST = 300
"""Points of each kind, so that the page stays small and the dots apart."""


MAP_NAMES = ("synthetic", "training", "held out")


def feature_map(teller: FigureBuilder, space: Extractor) -> Curve:
    """Slices along the two directions in which the real ones differ most.

    The directions are the first principal components of training and held-out features, each
    feature in standard deviations; synthetic slices do not turn them.
    """
    sets = [part.double() for part in teller.features(space)]
    axes, middle, spread = components(torch.cat(sets[1:]))
    lines = {}
    for place, (name, part) in enumerate(zip(MAP_NAMES, sets, strict=True)):
        order = np.random.default_rng((teller.spaces.seed, place)).permutation(len(part))[:MOST]
        x, y = (((part[order] - middle) / spread) @ axes).T.tolist()
        lines[name] = (x, y)
    return Curve(
        f"Feature map, {space.name}",
        f"Each dot is a slice, in the {space.name} features along the two directions in which "
        f"real slices differ most (up to {MOST} dots of each kind). Synthetic dots apart from the "
        "real ones look unlike any patient; regions of real dots without synthetic ones are "
        "missing from what is drawn.",
        "first component",
        "second component",
        lines,
    )


def components(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The first two principal axes (d, 2) of features (n, d), their middle and spread (d,).

    An axis points to where its largest share is positive, so that a map is not mirrored by chance.
    """
    middle = features.mean(0)
    spread = features.std(0, correction=0)
    spread = torch.where(spread > 0, spread, 1.0)
    _, _, axes = torch.linalg.svd((features - middle) / spread, full_matrices=False)
    axes = axes[:2].T
    largest = axes.abs().argmax(0)
    return axes * axes[largest, torch.arange(axes.shape[1])].sign(), middle, spread


K = 5


BATCH = 64
"""Mini-batch of the papers' linear MMD."""


BOUNDS: Mapping[str, Bound] = {
    "fidelity.shift.texture": Bound(most=2.0, of="difference"),
    "fidelity.precision.texture": Bound(least=0.5, of="ratio"),
    "fidelity.precision.encoder": Bound(least=0.5, of="ratio"),
}
"""What passes by default: see ``docs/evaluation.md`` for why these."""


def measure(
    evidence: Evidence,
    spaces: Spaces | None = None,
    *,
    bounds: Mapping[str, Bound] | None = None,
) -> Family:
    """The fidelity figures.

    Args:
        evidence: what is judged, and against what.
        spaces: its feature spaces, where they are at hand; made by ``spaces_of`` otherwise.
        bounds: by figure name, in the place of ``BOUNDS``.
    """
    few = too_few(evidence, LEAST)
    if few:
        return Family("fidelity", [], skipped=[few])
    spaces = spaces or spaces_of(evidence)
    teller = FigureBuilder(spaces, BOUNDS if bounds is None else bounds)
    figures, details, skipped = _pixels(teller)
    for space in spaces.learned:
        figures += _distances(teller, space) + _realism(teller, space)
        if space.name == "texture":
            figures.append(_shift(teller, space))
    maps = [feature_map(teller, space) for space in spaces.learned]
    return Family("fidelity", figures, curves=maps, details=details, skipped=skipped)


def compared(
    measure: Callable[[Tensor, np.ndarray], Estimate], teller: FigureBuilder, space: Extractor
) -> Pair:
    """An estimate of the synthetic slices, and of the training slices in their place."""
    synthetic, train, _ = teller.features(space)
    groups = teller.groups
    return measure(synthetic, groups["synthetic"]), measure(train, groups["train"])


def _mmd(teller: FigureBuilder, space: Extractor) -> tuple[Pair, list[float]]:
    heldout = teller.features(space)[2]
    widths = [width for width in bandwidths(heldout, teller.spaces.seed) if width > 0]
    middle = heldout.double().mean(0)
    other = Mmd(heldout, gaussian(widths or [1.0]), teller.groups["heldout"], middle)
    return compared(other.of, teller, space), widths


def _pixels(teller: FigureBuilder) -> tuple[list[Figure], dict[str, object], list[str]]:
    """Unbiased and linear MMD of the pictures themselves."""
    space = teller.spaces.pixels
    pair, widths = _mmd(teller, space)
    told = ", ".join(f"{width:.3g}" for width in widths)
    figures = [
        teller.distance(
            "fidelity.mmd",
            space,
            pair,
            "Distance between synthetic and unseen real slices, pixel by pixel (unbiased MMD, "
            f"Gaussian kernels of widths {told}); 0 where they agree, bad where it is many times "
            "that of real slices.",
        )
    ]
    details: dict[str, object] = {"mmd_widths": {space.name: widths}}
    synthetic, train, heldout = teller.features(space)
    if min(teller.spaces.n, teller.spaces.n_real) < BATCH:
        few = min(teller.spaces.n, teller.spaces.n_real)
        return figures, details, [f"the linear MMD needs batches of {BATCH}, and there are {few}"]
    shuffled = [
        x[torch.from_numpy(np.random.default_rng(teller.spaces.seed).permutation(len(x)))]
        for x in (synthetic, train, heldout)
    ]
    gaps = [np.array(linear_gaps(x, shuffled[2], BATCH)) for x in shuffled[:2]]
    floor = linear_floor(heldout, BATCH)
    value, real = (Estimate(float(gap.mean()), _error_of_mean(gap)) for gap in gaps)
    figures += [
        teller.distance(
            "fidelity.mmd_linear",
            space,
            (value, real),
            f"The MMD of the GVAE papers (batches of {BATCH}, linear kernel): it sees the mean "
            f"picture alone, and a perfect generator scores {floor:.3g}, not 0.",
        ),
        teller.figure(
            "fidelity.mmd_linear_floor",
            space,
            floor,
            None,
            "What the papers' linear MMD is for a perfect generator, from the spread of the "
            "unseen real slices; a linear MMD near it says nothing more.",
        ),
    ]
    return figures, details, []


def _error_of_mean(values: np.ndarray) -> float:
    if len(values) < 2:
        return math.nan
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def _distances(teller: FigureBuilder, space: Extractor) -> list[Figure]:
    """Frechet distance, kernel distance and MMD in a feature space."""
    heldout, groups = teller.features(space)[2], teller.groups["heldout"]
    what = f"in the {space.name} features"
    other = Mmd(heldout, cubic, groups)
    return [
        teller.distance(
            "fidelity.frechet",
            space,
            compared(lambda x, g: frechet_estimate(x, heldout, g, groups), teller, space),
            f"Distance of mean and spread {what} (as FID); bad where it is many times that of "
            "real slices. Few slices and little variety raise it too.",
        ),
        teller.distance(
            "fidelity.kernel",
            space,
            compared(other.of, teller, space),
            f"Distance of mean, spread and skew {what} (as KID, unbiased); 0 where they agree, "
            "bad where it is many times that of real slices.",
        ),
        teller.distance(
            "fidelity.mmd",
            space,
            _mmd(teller, space)[0],
            f"Distance of the whole distribution {what} (unbiased MMD, Gaussian kernels); 0 where "
            "they agree, bad where it is many times that of real slices.",
        ),
    ]


def _realism(teller: FigureBuilder, space: Extractor) -> list[Figure]:
    """What each slice is by itself: precision, density and alpha-precision."""
    synthetic, train, heldout = teller.features(space)
    part = teller.spaces.heldout
    scans = scans_of(part.cases, part.heights, K)
    radius, nearest = (radii(heldout, k, scans) for k in (K, 1))
    inside, inside_real = (held(heldout, radius, x) for x in (synthetic, train))
    typical_fakes, typical_train = (typical(heldout, x, nearest) for x in (synthetic, train))
    shares, densities = (inside.around > 0).double().numpy(), inside.around.numpy() / K
    what = f"in the {space.name} features"
    return [
        teller.figure(
            "fidelity.precision",
            space,
            shares.mean(),
            _share(inside_real),
            "Share of synthetic slices that lie among unseen real ones "
            f"{what}; bad where it is far below that of real slices.",
            teller.resampled("fidelity.precision", space, shares),
        ),
        teller.figure(
            "fidelity.density",
            space,
            densities.mean(),
            inside_real.around.double().mean().item() / K,
            "How thickly unseen real slices lie about the synthetic ones "
            f"{what}; about 1 is good, near 0 is bad.",
            teller.resampled("fidelity.density", space, densities),
        ),
        teller.figure(
            "fidelity.alpha_precision",
            space,
            integrated(typical_fakes.precision()),
            integrated(typical_train.precision()),
            f"Whether synthetic slices are as typical {what} as real ones, neither odder nor "
            "more ordinary; 1 is best, bad where it is far below that of real slices.",
            teller.resampled("fidelity.alpha_precision", space, typical_fakes.rank, weighted),
        ),
    ]


def _share(found: Held) -> float:
    return (found.around > 0).double().mean().item()


def _shift(teller: FigureBuilder, space: Extractor) -> Figure:
    """How far the typical slice is off, in the texture feature that is off the most."""
    synthetic, train, heldout = (x.double().numpy() for x in teller.features(space))
    spread = np.concatenate([train, heldout]).std(0)
    used = spread > 0
    unit = np.where(used, spread, 1)

    def shifts(x: np.ndarray) -> np.ndarray:
        return np.abs(np.median(x, 0) - np.median(heldout, 0)) / unit * used

    found = shifts(synthetic)
    ends = teller.resampled(
        "fidelity.shift",
        space,
        synthetic,
        lambda rows, weights: shifts(np.repeat(rows, weights.astype(int), 0)).max(),
    )
    return teller.figure(
        "fidelity.shift",
        space,
        found.max(),
        shifts(train).max(),
        "How far the typical synthetic slice is from the typical unseen real one, in standard "
        "deviations of real slices, where it is farthest off: "
        f"here {NAMES[int(found.argmax())]}. Bad above the real one by 2 and more: "
        "too smooth, too noisy, or of other HU.",
        ends,
    )
