"""Maps of a feature space: where synthetic slices lie beside real ones, to be looked at."""

import numpy as np
import torch
from torch import Tensor

from medaug.evaluate.features.extractor import Extractor
from medaug.evaluate.figures import Curve
from medaug.evaluate.telling import Teller

MOST = 300
"""Points of each kind, so that the page stays small and the dots apart."""

NAMES = ("synthetic", "training", "held out")


def feature_map(teller: Teller, space: Extractor) -> Curve:
    """Slices along the two directions in which the real ones differ most.

    The directions are the first principal components of training and held-out features, each
    feature in standard deviations; synthetic slices do not turn them.
    """
    sets = [part.double() for part in teller.features(space)]
    axes, middle, spread = components(torch.cat(sets[1:]))
    lines = {}
    for place, (name, part) in enumerate(zip(NAMES, sets, strict=True)):
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
