"""Diversity: are synthetic slices as varied as slices of patients, whatever their picture quality.

Blur, noise and a shift of HU are no lack of variety.  So the bounds are on coarse anatomy (a grid
of mean HU, in which noise averages out), each set about its own mean (which takes out what was done
to all slices alike).  The feature spaces are told beside it, as they are.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medaug.core.errors import ConfigError
from medaug.core.seeds import generator
from medaug.core.types import HU
from medaug.evaluation.families.common import LEAST, FigureBuilder, too_few
from medaug.evaluation.features.extractor import Extractor, windowed
from medaug.evaluation.features.spaces import Spaces, spaces_of
from medaug.evaluation.figures import Bound, Family, Figure
from medaug.evaluation.metrics.intervals import Estimate
from medaug.evaluation.metrics.ms_ssim import layout, similarities
from medaug.evaluation.metrics.neighbours import (
    Held,
    held,
    integrated,
    radii,
    scans_of,
    typical,
    weighted,
)
from medaug.evaluation.slices.evidence import Evidence, SliceSet

K = 5
PAIRS = 500
TWIN = 0.01
"""Share of unseen real slices that are each other's twins, by which a twin is defined."""

BOUNDS: Mapping[str, Bound] = {
    "diversity.beta_recall.coarse": Bound(least=0.6, of="ratio"),
    "diversity.twins.coarse": Bound(most=0.25, of="difference"),
}
"""What passes by default: see ``docs/evaluation.md`` for why these."""


def measure(
    evidence: Evidence,
    spaces: Spaces | None = None,
    *,
    bounds: Mapping[str, Bound] | None = None,
) -> Family:
    """The diversity figures.

    Args:
        evidence: what is judged, and against what.
        spaces: its feature spaces, where they are at hand; made by ``spaces_of`` otherwise.
        bounds: by figure name, in the place of ``BOUNDS``.
    """
    few = too_few(evidence, LEAST)
    if few:
        return Family("diversity", [], skipped=[few])
    spaces = spaces or spaces_of(evidence)
    teller = FigureBuilder(spaces, BOUNDS if bounds is None else bounds)
    figures, skipped = _pairs(teller, evidence.window_hu)
    for space in (spaces.coarse, *spaces.learned):
        found = tuple(x.double() for x in teller.features(space))
        if space is spaces.coarse:
            found = tuple(x - x.mean(0) for x in found)
            figures.append(_twins(teller, space, found))
        figures += _reach(teller, space, found)
    return Family("diversity", figures, skipped=skipped)


def _pairs(teller: FigureBuilder, window_hu: tuple[float, float]) -> tuple[list[Figure], list[str]]:
    """MS-SSIM between pairs of slices of different cases."""
    try:
        layout(min(teller.spaces.synthetic.images.shape[1:]))
    except ConfigError as error:
        return [], [str(error)]
    seed = teller.spaces.seed
    value, real = (
        _similarity(part, window_hu, seed)
        for part in (teller.spaces.synthetic, teller.spaces.train)
    )
    if math.isnan(value.value) or math.isnan(real.value):
        return [], ["structural similarity needs slices of two cases and more"]
    figure = teller.distance(
        "diversity.ms_ssim",
        teller.spaces.pixels,
        (value, real),
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
    found = similarities(_Pictures(part.images, window_hu), first[apart], second[apart])
    error = found.std().item() / math.sqrt(len(found))
    return Estimate(found.mean().item(), error, 0.0)


@dataclass(frozen=True)
class _Pictures:
    """Slices that become pictures in [0, 1] where they are asked for."""

    images: HU
    window_hu: tuple[float, float]

    def __getitem__(self, index: Tensor) -> Tensor:
        return windowed(self.images[index.numpy()], self.window_hu)[:, 0]


def _twins(teller: FigureBuilder, space: Extractor, found: Sequence[Tensor]) -> Figure:
    """Share of slices with another one that is all but the same."""
    synthetic, train, heldout = found
    limit = torch.quantile(radii(heldout, 1), TWIN)
    twins, real = ((radii(x, 1) < limit).double().numpy() for x in (synthetic, train))
    return teller.figure(
        "diversity.twins",
        space,
        twins.mean(),
        real.mean(),
        "Share of synthetic slices that all but repeat another synthetic one: closer to it in "
        "coarse anatomy than neighbouring slices of a patient are. Bad from a quarter on: the "
        "generator says the same again and again.",
        teller.resampled("diversity.twins", space, twins),
    )


def _reach(teller: FigureBuilder, space: Extractor, found: Sequence[Tensor]) -> list[Figure]:
    """What of the unseen real slices is reached: recall, coverage and beta-recall."""
    synthetic, train, heldout = found
    part = teller.spaces.heldout
    scans = scans_of(part.cases, part.heights, K)
    radius, nearest = (radii(heldout, k, scans) for k in (K, 1))
    covered, covered_real = (
        held(heldout, radius, x).holds.double().numpy() for x in (synthetic, train)
    )
    recalled, recalled_real = (held(x, radii(x, K), heldout) for x in (synthetic, train))
    reached, reached_real = (typical(heldout, x, nearest) for x in (synthetic, train))
    what = f"in {space.name} features"
    return [
        teller.figure(
            "diversity.recall",
            space,
            _inside(recalled).mean(),
            _inside(recalled_real).mean(),
            f"Share of unseen real slices that lie among the synthetic ones {what}; bad where it "
            "is far below that of training slices.",
            teller.resampled("diversity.recall", space, _inside(recalled), role="heldout"),
        ),
        teller.figure(
            "diversity.coverage",
            space,
            covered.mean(),
            covered_real.mean(),
            f"Share of unseen real slices with a synthetic one in their neighbourhood {what}; bad "
            "where it is far below that of training slices.",
            teller.resampled("diversity.coverage", space, covered, role="heldout"),
        ),
        teller.figure(
            "diversity.beta_recall",
            space,
            integrated(reached.recall()),
            integrated(reached_real.recall()),
            f"Whether common and rare synthetic slices alike come near unseen real ones {what}; 1 "
            "is best, bad where it is far below that of training slices: kinds of patients are "
            "missing.",
            teller.resampled("diversity.beta_recall", space, reached.reached, weighted, "heldout"),
        ),
    ]


def _inside(found: Held) -> np.ndarray:
    return (found.around > 0).double().numpy()
