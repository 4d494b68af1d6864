"""Measure fidelity: do synthetic slices look like those of patients the generator has not seen?

Distances between sets (MMD, Frechet, kernel) have no bound: they grow with a lack of variety as
well, which is diversity's verdict.  The bounds are on what single slices are like: the share of
slices that lie among real ones, and the shift of the typical slice.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from medaug.evaluation.families.common import FigureBuilder, K, Values, too_few
from medaug.evaluation.features.extractor import Extractor
from medaug.evaluation.features.spaces import Spaces, spaces_of
from medaug.evaluation.features.texture import NAMES
from medaug.evaluation.figures import Bound, Curve, Family, Figure, intensities
from medaug.evaluation.metrics.distances import (
    Mmd,
    bandwidths,
    cubic,
    frechet_estimate,
    gaussian,
    linear_floor,
    linear_gaps,
)
from medaug.evaluation.metrics.intervals import Estimate, mean
from medaug.evaluation.metrics.neighbours import integrated
from medaug.evaluation.slices.evidence import Evidence

BATCH = 64
"""Mini-batch of the papers' linear MMD."""

DOTS = 300
"""Dots of each kind in a feature map, so that the page stays small and the dots apart."""

MAP_NAMES = ("synthetic", "training", "held out")

BOUNDS: Mapping[str, Bound] = {
    "fidelity.shift.texture": Bound(most=2.0, of="difference"),
    "fidelity.precision.texture": Bound(least=0.5, of="ratio"),
    "fidelity.precision.encoder": Bound(least=0.5, of="ratio"),
}
"""What passes by default; docs/evaluation.md says why."""


def measure(
    evidence: Evidence, spaces: Spaces | None = None, *, bounds: Mapping[str, Bound] = BOUNDS
) -> Family:
    """Measure the figures of the family fidelity.

    Args:
        evidence: the slices.
        spaces: their feature spaces; by default made here.
        bounds: by figure name.
    """
    if few := too_few(evidence):
        return Family("fidelity", [], skipped=[few])
    builder = FigureBuilder(spaces or spaces_of(evidence), bounds)
    figures, details, skipped = _pixels(builder)
    for space in builder.spaces.learned:
        figures += _distances(builder, space) + _realism(builder, space)
        if space.name == "texture":
            figures.append(_shift(builder, space, intensities(evidence.modality)))
    maps = [feature_map(builder, space) for space in builder.spaces.learned]
    return Family("fidelity", figures, curves=maps, details=details, skipped=skipped)


def _gaussian_mmd(builder: FigureBuilder, space: Extractor) -> tuple[Mmd, list[float]]:
    """The MMD from held-out features under Gaussian kernels, and their widths."""
    heldout = builder.features(space)[2]
    widths = [width for width in bandwidths(heldout, builder.spaces.seed) if width > 0]
    kernel, middle = gaussian(widths or [1.0]), heldout.double().mean(0)
    return Mmd(heldout, kernel, builder.groups("heldout"), middle), widths


def _pixels(builder: FigureBuilder) -> tuple[list[Figure], dict[str, object], list[str]]:
    """Unbiased and linear MMD of the pictures themselves."""
    spaces, space = builder.spaces, builder.spaces.pixels
    mmd, widths = _gaussian_mmd(builder, space)
    figures = [
        builder.of_sets(
            "fidelity.mmd",
            space,
            mmd.of,
            "Distance between synthetic and unseen real slices, pixel by pixel (unbiased MMD, "
            f"Gaussian kernels of widths {', '.join(f'{width:.3g}' for width in widths)}); 0 where "
            "they agree, bad where it is many times that of real slices.",
        )
    ]
    details: dict[str, object] = {"mmd_widths": {space.name: widths}}
    few = min(spaces.n, spaces.n_real)
    if few < BATCH:
        return figures, details, [f"the linear MMD needs batches of {BATCH}, and there are {few}"]
    synthetic, train, heldout = (
        x[torch.from_numpy(np.random.default_rng(spaces.seed).permutation(len(x)))]
        for x in builder.features(space)
    )
    value, real = (np.array(linear_gaps(x, heldout, BATCH)) for x in (synthetic, train))
    floor = linear_floor(builder.features(space)[2], BATCH)
    figures += [
        builder.figure(
            "fidelity.mmd_linear",
            space,
            Estimate(float(value.mean()), _error_of_mean(value)),
            float(real.mean()),
            f"The MMD of the GVAE papers (batches of {BATCH}, linear kernel): it sees the mean "
            f"picture alone, and a perfect generator scores {floor:.3g}, not 0.",
        ),
        builder.figure(
            "fidelity.mmd_linear_floor",
            space,
            Estimate(floor),
            None,
            "What the papers' linear MMD is for a perfect generator, from the spread of the "
            "unseen real slices; a linear MMD near it says nothing more.",
        ),
    ]
    return figures, details, []


def _error_of_mean(values: Values) -> float:
    return math.nan if len(values) < 2 else float(values.std(ddof=1) / math.sqrt(len(values)))


def _distances(builder: FigureBuilder, space: Extractor) -> list[Figure]:
    """Frechet distance, kernel distance and MMD in a feature space."""
    heldout, groups = builder.features(space)[2], builder.groups("heldout")
    what = f"in the {space.name} features"
    return [
        builder.of_sets(
            "fidelity.frechet",
            space,
            lambda x, own: frechet_estimate(x, heldout, own, groups),
            f"Distance of mean and spread {what} (as FID); bad where it is many times that of "
            "real slices. Few slices and little variety raise it too.",
        ),
        builder.of_sets(
            "fidelity.kernel",
            space,
            Mmd(heldout, cubic, groups).of,
            f"Distance of mean, spread and skew {what} (as KID, unbiased); 0 where they agree, "
            "bad where it is many times that of real slices.",
        ),
        builder.of_sets(
            "fidelity.mmd",
            space,
            _gaussian_mmd(builder, space)[0].of,
            f"Distance of the whole distribution {what} (unbiased MMD, Gaussian kernels); 0 where "
            "they agree, bad where it is many times that of real slices.",
        ),
    ]


def _realism(builder: FigureBuilder, space: Extractor) -> list[Figure]:
    """What single slices are like: precision, density and alpha-precision."""
    ours, theirs = builder.lying(*builder.features(space))
    around, around_real = (side.near.around.double().numpy() for side in (ours, theirs))
    what = f"in the {space.name} features"
    return [
        builder.of_slices(
            "fidelity.precision",
            space,
            (around, around_real),
            "Share of synthetic slices that lie among unseen real ones "
            f"{what}; bad where it is far below that of real slices.",
            lambda balls, weights: mean((balls > 0).astype(np.float64), weights),
        ),
        builder.of_slices(
            "fidelity.density",
            space,
            (around / K, around_real / K),
            "How thickly unseen real slices lie about the synthetic ones "
            f"{what}; about 1 is good, near 0 is bad.",
        ),
        builder.of_slices(
            "fidelity.alpha_precision",
            space,
            (ours.typical.rank, theirs.typical.rank),
            f"Whether synthetic slices are as typical {what} as real ones, neither odder nor "
            "more ordinary; 1 is best, bad where it is far below that of real slices.",
            integrated,
        ),
    ]


def _shift(builder: FigureBuilder, space: Extractor, values: str) -> Figure:
    """How far the typical slice is off, in the texture feature that is off the most."""
    synthetic, train, heldout = (x.double().numpy() for x in builder.features(space))
    spread = np.concatenate([train, heldout]).std(0)
    used = spread > 0
    unit = np.where(used, spread, 1)

    def shifts(x: Values, weights: Values) -> Values:
        middle = np.median(np.repeat(x, weights.astype(int), 0), 0)
        return np.abs(middle - np.median(heldout, 0)) / unit * used

    worst = NAMES[int(shifts(synthetic, np.ones(len(synthetic))).argmax())]
    return builder.of_slices(
        "fidelity.shift",
        space,
        (synthetic, train),
        "How far the typical synthetic slice is from the typical unseen real one, in standard "
        f"deviations of real slices, where it is farthest off: here {worst}. Bad above the real "
        f"one by 2 and more: too smooth, too noisy, or of other {values}.",
        lambda x, weights: float(shifts(x, weights).max()),
    )


def feature_map(builder: FigureBuilder, space: Extractor) -> Curve:
    """Draw slices along the two directions in which the real ones differ most.

    The directions are the first principal components of training and held-out features, each
    feature in standard deviations; synthetic slices do not turn them.
    """
    sets = [part.double() for part in builder.features(space)]
    axes, middle, spread = components(torch.cat(sets[1:]))
    lines = {}
    for place, (name, part) in enumerate(zip(MAP_NAMES, sets, strict=True)):
        order = np.random.default_rng((builder.spaces.seed, place)).permutation(len(part))[:DOTS]
        x, y = (((part[order] - middle) / spread) @ axes).T.tolist()
        lines[name] = (x, y)
    return Curve(
        f"Feature map, {space.name}",
        f"Each dot is a slice, in the {space.name} features along the two directions in which "
        f"real slices differ most (up to {DOTS} dots of each kind). Synthetic dots apart from the "
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
