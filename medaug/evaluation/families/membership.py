"""Measure membership inference: can an attacker tell whose slices were trained on?

The attacker scores every real slice and calls those with the lowest scores members.  The score is
the distance to the nearest synthetic slice, which needs the output alone (Chen et al. 2020;
Hilprecht et al. 2019), or the model's loss on the slice, which needs the weights: its bound on
-log p(x), or its reconstruction error (Hayes et al. 2019; Carlini et al. 2022 for why the true
positive rate at few false ones is the figure to read).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata
from torch import Tensor

from medaug.core.codec import CTCodec
from medaug.core.errors import ConfigError
from medaug.core.modality import modality_of
from medaug.core.seeds import generator
from medaug.data.feed.tissues import layout
from medaug.evaluation.figures import Figure
from medaug.evaluation.latent.decoders import density
from medaug.evaluation.latent.likelihood import elbo
from medaug.evaluation.slices.evidence import Evidence, SliceSet
from medaug.models.autoencoder import Autoencoder
from medaug.synthesis.trained import Trained

Array = npt.NDArray[np.float64]

FALSE_POSITIVES = 0.01
LOSS_AUC = (
    "How well someone who holds the model's weights could tell whether a patient's slice was "
    "trained on, from how well the model explains it: 0.5 is a coin toss, and values towards 1 "
    "mean that the weights themselves give patients away and should not be passed on."
)
TPR = (
    "Share of training slices that such an attacker would name while wrongly naming at most 1 % of "
    "unseen slices; about 0.01 is a guess, and more means that some patients can be recognised."
)
BLOCK = 16
DRAWS = 4
"""Draws of q(z | x) for each slice."""


def auc(members: Array, others: Array) -> float:
    """Area under the ROC curve of scores that are lower for members; 0.5 for a guess.

    The share of pairs (member, other) in which the member's score is lower, ties counted half.
    """
    ranks = rankdata(np.concatenate([members, others]))[len(members) :]
    n, m = len(members), len(others)
    return float((ranks.sum() - m * (m + 1) / 2) / (n * m))


def tpr(members: Array, others: Array, rate: float = FALSE_POSITIVES) -> float:
    """Share of members below the score that at most ``rate`` of the others lie below or at.

    A guess finds ``rate`` of them; fewer than 1 / ``rate`` others allow no false one at all.
    """
    allowed = int(np.floor(rate * len(others) + 1e-9))
    bar = np.sort(others)[allowed] if allowed < len(others) else np.inf
    return float((members < bar).mean())


@dataclass(frozen=True)
class Loss:
    """The loss of a model on slices.

    Attributes:
        what: in words, such as ``bound on -log p(x)``.
        of: takes slices to their loss (n,); lower for what the model explains better.
    """

    what: str
    of: Callable[[SliceSet], Array]


def loss_of(trained: Trained, some: SliceSet, seed: int = 0) -> Loss:
    """Take the negative ELBO of a trained model where it has one, else its reconstruction error.

    A model has an ELBO here where its encoder gives a distribution and its prior is N(0, I); pixels
    are then Gaussian around their reconstruction, with the deviation that suits ``some``.  The
    other error is the mean squared one over pixels and channels, in [-1, 1] units.

    Args:
        trained: the generator.
        some: held-out slices.
        seed: of the draws of q(z | x).

    Raises:
        ConfigError: no encoder, or a model conditioned on classes or attributes.
    """
    trained.need_encoder()
    if trained.condition.dim:
        raise ConfigError(
            "membership by loss needs a model conditioned on nothing but masks, and this one takes "
            + ", ".join((*trained.condition.classes, *trained.condition.names))
        )
    model = trained.model
    if not isinstance(model, Autoencoder) or density(model, 1.0).posterior is None:
        return Loss(
            "reconstruction error", lambda slices: _blocks(slices, partial(_error, trained))
        )
    squares = _blocks(some, partial(_error, trained))
    sigma = max(float(squares.mean()) ** 0.5, 1e-3)

    def cost(part: SliceSet, number: int) -> Tensor:
        x, cond = _seen(trained, part)
        draws = generator(seed, "elbo", number)
        return -elbo(density(model, sigma, cond), x, draws, DRAWS).bound

    return Loss("bound on -log p(x)", lambda slices: _blocks(slices, cost))


def _blocks(slices: SliceSet, cost: Callable[[SliceSet, int], Tensor]) -> Array:
    """``cost`` of each slice (n,), a few slices at a time."""
    found = []
    for number, start in enumerate(range(0, len(slices), BLOCK)):
        part = slices.pick(np.arange(start, min(start + BLOCK, len(slices))))
        found.append(cost(part, number).double().cpu())
    return torch.cat(found).numpy()


@torch.no_grad()
def _error(trained: Trained, part: SliceSet, number: int) -> Tensor:
    x, cond = _seen(trained, part)
    z = trained.model.encode(x, cond)[0]  # type: ignore[operator]
    return (trained.model.decode(z, cond) - x).double().square().flatten(1).mean(1)


def _seen(trained: Trained, slices: SliceSet) -> tuple[Tensor, Tensor | None]:
    """Slices (n, y, x) as the model takes them, with the layout that it is conditioned on."""
    codec = trained.codec
    assert isinstance(codec, CTCodec)
    marks = slices.labels
    if marks is None:
        marks = np.zeros(slices.images.shape, np.uint8)
    x = codec.encode(torch.from_numpy(slices.images), torch.from_numpy(marks)).to(trained.device)
    if not codec.layout_labels:
        return x, None
    filled = layout(
        slices.images,
        marks,
        list(codec.labels.values()),
        bool(codec.tissues),
        modality_of(codec.modality),
    )
    return x, trained.rows([{}] * len(x), torch.from_numpy(filled))


def interval(
    figure: Callable[[Array, Array], float],
    members: Array,
    others: Array,
    cases: tuple[Sequence[str], Sequence[str]],
    seed: int,
    draws: int = 200,
) -> tuple[float, float]:
    """The 95 % bootstrap interval of ``auc`` or ``tpr``, resampling patients of both sides."""
    rng = np.random.default_rng(seed)
    sides = [
        [scores[np.array(owner) == name] for name in sorted(set(owner))]
        for scores, owner in zip((members, others), cases, strict=True)
    ]
    values = []
    for _ in range(draws):
        ours, theirs = (
            np.concatenate([side[i] for i in rng.integers(len(side), size=len(side))])
            for side in sides
        )
        values.append(figure(ours, theirs))
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def attack(
    name: str,
    scores: tuple[Array, Array],
    real: tuple[Array, Array] | None,
    sentence: str,
    evidence: Evidence,
    n: int,
    extractor: str,
) -> list[Figure]:
    """Make the figures of an attack: the area under its ROC curve and its true positive rate.

    Args:
        name: of the score.
        scores: of training slices (n,) and of held-out ones (m,).
        real: the same, scored by training slices in the place of the synthetic ones, or None.
        sentence: what the area means.
        evidence: the slices.
        n: synthetic slices that the scores were taken from.
        extractor: what the scores are.
    """
    owners = evidence.train.cases, evidence.heldout.cases
    return [
        Figure(
            f"privacy.{what}.{name}",
            statistic(*scores),
            None if real is None else statistic(*real),
            text,
            n,
            sum(map(len, scores)),
            evidence.seed,
            extractor,
            *interval(statistic, *scores, owners, evidence.seed),
        )
        for what, statistic, text in (
            ("membership_auc", auc, sentence), ("membership_tpr", tpr, TPR)
        )
    ]  # fmt: skip


def by_loss(evidence: Evidence, loss: Loss) -> list[Figure]:
    """Attack by the model's own loss; without real values, which would need another model."""
    scores = loss.of(evidence.train), loss.of(evidence.heldout)
    return attack("loss", scores, None, LOSS_AUC, evidence, 0, loss.what)
