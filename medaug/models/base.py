"""The contract that every generator keeps, and that the loop, the checkpoint and the tests rely on.

A model is networks plus four answers: who plays (``players``), who moves when (``turns``), how
each player steps (``optim``), and how a sample is drawn (``prior`` then ``decode``).  It computes
no average, takes no step and writes no log; the loop does.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from medaug.core.batch import Batch, Shape

__all__ = ["Batch", "Model", "Move", "OptimizerSettings", "Shape", "Turn"]


@dataclass(frozen=True, eq=False)
class Move:
    """What one player minimises in a turn.

    Attributes:
        terms: name to (weight, values); values have shape (b,) or, for batch statistics, ().
        when: a boolean scalar on the device; where false the player keeps its parameters.
    """

    terms: Mapping[str, tuple[float, Tensor]]
    when: Tensor | None = None

    def total(self) -> Tensor:
        """What the loop differentiates: the weighted sum of the terms' means, in float32."""
        return torch.stack([w * value.float().mean() for w, value in self.terms.values()]).sum()


@dataclass(frozen=True)
class Turn:
    """One call of ``play`` on ``batches`` batches at once; two movers play simultaneously."""

    play: Callable[[Batch], Mapping[str, Move]]
    batches: int = 1


@dataclass(frozen=True)
class OptimizerSettings:
    """How a player steps: Adam with decoupled decay, or RMSProp as Larsen et al. used it.

    Attributes:
        lr: rate.
        kind: which rule.
        betas: Adam's decays.
        weight_decay: decoupled under Adam, added to the gradient under RMSProp.
        max_norm: of the gradient before the step; None leaves it.
        clip: bound on every weight after the step (Arjovsky et al. 2017); None leaves them.
    """

    lr: float
    kind: Literal["adam", "rmsprop"] = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    max_norm: float | None = None
    clip: float | None = None


class Model(nn.Module, ABC):
    """A generator as data: networks, players, turns, optimisers, and how a sample is drawn."""

    noise_shape: tuple[int, ...]
    """Shape of the standard normal noise of one sample."""
    uncertainty: str = "a neighbour of the noise on the prior's shell"
    """What ``vary`` draws, in words for the reader of a manifest."""

    @abstractmethod
    def players(self) -> dict[str, tuple[nn.Module, ...]]:
        """Player to the modules it owns; together they hold every parameter exactly once."""

    @abstractmethod
    def turns(self, progress: float) -> Sequence[Turn]:
        """The turns of one round at ``progress`` in [0, 1), the share of images seen."""

    @abstractmethod
    def optim(self, progress: float) -> dict[str, OptimizerSettings]:
        """How each player steps at ``progress``."""

    @abstractmethod
    def prior(self, noise: Tensor, cond: Tensor | None) -> Tensor:
        """Noise (b, *noise_shape) to codes as ``decode`` takes them."""

    @abstractmethod
    def decode(self, z: Tensor, cond: Tensor | None) -> Tensor:
        """Codes to (b, c, h, w) in [-1, 1]."""

    def per_sample_gradients_obstacle(self) -> str | None:
        """Why the gradients of its losses are not per sample, or None where they are.

        None promises private training that all players share one move of terms (b,), each row from
        its own sample alone, on turns of one batch, and that nothing else is learned from data.
        """
        return "its losses compare the samples of a batch, or a discriminator learns them"

    def vary(
        self, noise: Tensor, z: Tensor, x: Tensor, fresh: Tensor, cond: Tensor | None, how: float
    ) -> Tensor:
        """Codes of plausible alternatives to a sample; here a neighbour on the prior's shell.

        Args:
            noise: the sample's own noise (b, *noise_shape).
            z: its code, ``prior(noise, cond)``.
            x: the sample, ``decode(z, cond)``.
            fresh: new noise (b, *noise_shape).
            cond: the sample's condition.
            how: strength in (0, 1]; at 1 nothing of the sample's noise is left.
        """
        return self.prior((1 - how**2) ** 0.5 * noise + how * fresh, cond)

    def fit_prior(self, batches: Iterable[Batch]) -> None:
        """Fit what is fitted in one go, such as a mixture on the codes of training images.

        The loop calls it on the averaged weights before it exports them.  ``batches`` are lazy,
        unwarped and the same every time; a model with nothing to fit does not iterate them.
        """

    def drop_discriminators(self) -> None:
        """Drop discriminators and critics: what is left encodes, draws and decodes."""
        for module in list(self.modules()):
            for name, _ in list(module.named_children()):
                if name.endswith(("discriminator", "critic")):
                    delattr(module, name)
