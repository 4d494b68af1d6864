"""Measure diversity: are synthetic slices as varied as slices of patients, however they look?

Blur, noise and a shift of HU are no lack of variety.  So the bounds are on coarse anatomy (a grid
of mean HU, in which noise averages out), each set about its own mean (which takes out what was done
to all slices alike).  The other feature spaces are reported without bounds.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from medaug.core.errors import ConfigError
from medaug.core.seeds import generator
from medaug.evaluation.families.common import FigureBuilder, K, too_few
from medaug.evaluation.features.extractor import Extractor, windowed
from medaug.evaluation.features.spaces import Spaces, spaces_of
from medaug.evaluation.figures import Bound, Family, Figure
from medaug.evaluation.metrics.intervals import Estimate
from medaug.evaluation.metrics.ms_ssim import layout, similarities
from medaug.evaluation.metrics.neighbours import held, integrated, radii
from medaug.evaluation.slices.evidence import Evidence, SliceSet

PAIRS = 500
TWIN = 0.01
"""Share of unseen real slices that are each other's twins, by which a twin is defined."""

BOUNDS: Mapping[str, Bound] = {
    "diversity.beta_recall.coarse": Bound(least=0.6, of="ratio"),
    "diversity.twins.coarse": Bound(most=0.25, of="difference"),
}
"""What passes by default; docs/evaluation.md says why."""


def measure(
    evidence: Evidence, spaces: Spaces | None = None, *, bounds: Mapping[str, Bound] = BOUNDS
) -> Family:
    """Measure the figures of the family diversity.

    Args:
        evidence: the slices.
        spaces: their feature spaces; by default made here.
        bounds: by figure name.
    """
    if few := too_few(evidence):
        return Family("diversity", [], skipped=[few])
    builder = FigureBuilder(spaces or spaces_of(evidence), bounds)
    figures, skipped = _pairs(builder, evidence.window_hu)
    for space in (builder.spaces.coarse, *builder.spaces.learned):
        synthetic, train, heldout = (x.double() for x in builder.features(space))
        if space is builder.spaces.coarse:
            synthetic, train, heldout = (x - x.mean(0) for x in (synthetic, train, heldout))
            figures.append(_twins(builder, space, synthetic, train, heldout))
        figures += _reach(builder, space, synthetic, train, heldout)
    return Family("diversity", figures, skipped=skipped)


def _pairs(
    builder: FigureBuilder, window_hu: tuple[float, float]
) -> tuple[list[Figure], list[str]]:
    """MS-SSIM between pairs of slices of different cases."""
    spaces = builder.spaces
    try:
        layout(min(spaces.synthetic.images.shape[1:]))
    except ConfigError as error:
        return [], [str(error)]
    value, real = (
        _similarity(part, window_hu, spaces.seed) for part in (spaces.synthetic, spaces.train)
    )
    if math.isnan(value.value) or math.isnan(real.value):
        return [], ["structural similarity needs slices of two cases and more"]
    figure = builder.figure(
        "diversity.ms_ssim",
        spaces.pixels,
        value,
        real.value,
        "How alike two slices of different cases are (MS-SSIM, 1 is the same picture), in the "
        "mean; bad where it is far above that of real slices. Blur raises and noise lowers it, "
        "and ten pictures repeated hardly move it.",
    )
    return [figure], []


def _similarity(part: SliceSet, window_hu: tuple[float, float], seed: int) -> Estimate:
    draws = generator(seed, "pairs")
    first, second = (torch.randint(len(part), (4 * PAIRS,), generator=draws) for _ in range(2))
    _, scan = np.unique(np.asarray(part.cases), return_inverse=True)
    number, height = torch.from_numpy(scan), torch.from_numpy(np.asarray(part.heights))
    copies = (height[first] == height[second]) & (first != second)
    apart = torch.where((number[first] != number[second]) | copies)[0][:PAIRS]
    if len(apart) < 2:
        return Estimate(math.nan)

    def pictures(index: Tensor) -> Tensor:
        return windowed(part.images[index.numpy()], window_hu)[:, 0]

    found = similarities(pictures, first[apart], second[apart])
    error = found.std().item() / math.sqrt(len(found))
    return Estimate(found.mean().item(), error, 0.0)


def _twins(
    builder: FigureBuilder, space: Extractor, synthetic: Tensor, train: Tensor, heldout: Tensor
) -> Figure:
    """Share of slices with another one that is all but the same."""
    limit = torch.quantile(radii(heldout, 1), TWIN)
    twins, real = ((radii(x, 1) < limit).double().numpy() for x in (synthetic, train))
    return builder.of_slices(
        "diversity.twins",
        space,
        (twins, real),
        "Share of synthetic slices that all but repeat another synthetic one: closer to it in "
        "coarse anatomy than neighbouring slices of a patient are. Bad from a quarter on: the "
        "generator says the same again and again.",
    )


def _reach(
    builder: FigureBuilder, space: Extractor, synthetic: Tensor, train: Tensor, heldout: Tensor
) -> list[Figure]:
    """What of the unseen real slices is reached: recall, coverage and beta-recall."""
    ours, theirs = builder.lying(synthetic, train, heldout)
    inside, inside_real = (
        (held(x, radii(x, K), heldout).around > 0).double().numpy() for x in (synthetic, train)
    )
    what = f"in {space.name} features"
    return [
        builder.of_slices(
            "diversity.recall",
            space,
            (inside, inside_real),
            f"Share of unseen real slices that lie among the synthetic ones {what}; bad where it "
            "is far below that of training slices.",
            role="heldout",
        ),
        builder.of_slices(
            "diversity.coverage",
            space,
            (ours.near.holds.double().numpy(), theirs.near.holds.double().numpy()),
            f"Share of unseen real slices with a synthetic one in their neighbourhood {what}; bad "
            "where it is far below that of training slices.",
            role="heldout",
        ),
        builder.of_slices(
            "diversity.beta_recall",
            space,
            (ours.typical.reached, theirs.typical.reached),
            f"Whether common and rare synthetic slices alike come near unseen real ones {what}; 1 "
            "is best, bad where it is far below that of training slices: kinds of patients are "
            "missing.",
            integrated,
            "heldout",
        ),
    ]
