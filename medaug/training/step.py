"""Play one turn: losses to gradients, gradients to optimiser steps, and the log of every term.

All gradients of a turn are taken first, each with respect to its own player's parameters; then all
players of the turn step.  Players that share a move share its backward pass.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from medaug.core.batch import Batch
from medaug.core.errors import TrainingError
from medaug.core.seeds import derive
from medaug.models.base import Model, Move, OptimizerSettings, Turn
from medaug.runtime import collectives
from medaug.runtime.device import autocast
from medaug.training.checkpoint import below
from medaug.training.optimizers import PlayerOptimizer
from medaug.training.privacy import PrivateGradients

TermKeys = tuple[tuple[str, str], ...]
"""(player, term) of the values that one turn logs together."""


class Players:
    """The players of a model with their optimisers and the log of their losses.

    Args:
        model: whose players step.
        seed: of the random draws inside turns.
        device: where the model is.
        precision: ``float32`` or ``bfloat16``.
        private: computes the gradients where training is differentially private; None: as usual.
        recorded: whether turns are recorded and replayed by a `GraphRunner`.
    """

    def __init__(
        self,
        model: Model,
        seed: int,
        device: torch.device,
        precision: str,
        private: PrivateGradients | None = None,
        recorded: bool = False,
    ) -> None:
        self.private = private
        self.model, self.seed, self.device, self.precision = model, seed, device, precision
        self.parameters = {
            player: [p for module in modules for p in module.parameters()]
            for player, modules in model.players().items()
        }
        self.optimizers = {
            player: PlayerOptimizer(self.parameters[player], settings.kind, recorded)
            for player, settings in model.optim(0.0).items()
        }
        self.position = torch.zeros((), dtype=torch.float64, device=device)
        self.loss_log = LossLog(device)

    def turn(
        self, turn: Turn, batch: Batch, position: int, settings: Mapping[str, OptimizerSettings]
    ) -> None:
        """Play one turn on a batch.

        Args:
            turn: of this model.
            batch: this process's rows of it.
            position: images seen before the batch.
            settings: of the optimisers, by player.
        """
        self.begin_turn(position, settings)
        if self.private is None:
            self.play(turn, batch, settings)
        else:
            gradients, moves = self.private.gradients(turn, batch, position, self.parameters)
            self.step(gradients, moves, settings)

    def begin_turn(self, position: int, settings: Mapping[str, OptimizerSettings]) -> None:
        """Set all that differs between turns of a kind: random seed, position, learning rates."""
        torch.manual_seed(derive(self.seed, "turn", position))
        self.position.fill_(position)
        for player, optimizer in self.optimizers.items():
            if optimizer.rate is not None:
                optimizer.rate.fill_(settings[player].lr)

    def play(self, turn: Turn, batch: Batch, settings: Mapping[str, OptimizerSettings]) -> TermKeys:
        """Play a turn after ``begin_turn``, as a function of tensors on the device alone.

        Returns:
            The terms that were logged.
        """
        with collectives.shared_draws(len(batch.x)), autocast(self.device, self.precision):
            moves = turn.play(batch)
        return self.step(collectives.average_gradients(self.gradients(moves)), moves, settings)

    def step(
        self,
        gradients: Mapping[str, list[Tensor]],
        moves: Mapping[str, Move],
        settings: Mapping[str, OptimizerSettings],
    ) -> TermKeys:
        """Step every player by its gradients and log every term; returns the terms logged."""
        values: dict[tuple[str, str], Tensor] = {}
        for player, own in gradients.items():
            norm = total_norm(own)
            values[player, "gradient"] = norm
            limit = settings[player].max_norm
            if limit is not None:
                torch._foreach_mul_(own, (limit / (norm + 1e-6)).clamp(max=1.0))
            self.optimizers[player].step(own, settings[player], moves[player].when)
        for player, move in moves.items():
            for term, (_, value) in move.terms.items():
                values[player, term] = value.detach().float().mean()
        return self.loss_log.add(values, self.position)

    def gradients(self, moves: Mapping[str, Move]) -> dict[str, list[Tensor]]:
        """Each player's gradient with respect to its own parameters, zeros where none reaches."""
        groups: dict[int, list[str]] = {}
        for player, move in moves.items():
            groups.setdefault(id(move), []).append(player)
        result: dict[str, list[Tensor]] = {}
        for number, players in enumerate(groups.values(), 1):
            wanted = [p for player in players for p in self.parameters[player]]
            move = moves[players[0]]
            found = torch.autograd.grad(
                move.total(), wanted, retain_graph=number < len(groups), materialize_grads=True
            )
            start = 0
            for player in players:
                end = start + len(self.parameters[player])
                result[player] = list(found[start:end])
                start = end
        return result

    def tensors(self) -> dict[str, Tensor]:
        """Everything the next turn depends on, by name: weights, buffers, optimiser states."""
        result = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for player, optimizer in self.optimizers.items():
            for name, value in optimizer.tensors():
                result[f"optim.{player}.{name}"] = value
        return result

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Load what ``tensors`` returned."""
        self.model.load_state_dict(below(tensors, "model."))
        for player, optimizer in self.optimizers.items():
            optimizer.restore(below(tensors, f"optim.{player}."))


@dataclass
class _Sums:
    """Running sums of the terms that turns of one kind log together.

    Attributes:
        totals: sum of each term (n,).
        broken_at: images seen when each term was first not finite (n,); infinity: never.
        count: turns summed.
    """

    totals: Tensor
    broken_at: Tensor
    count: int = 0


class LossLog:
    """Average every player's terms, and remember where one first stopped being finite.

    The values stay in tensors on the device until ``means``, so that the loop never waits for it.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.sums: dict[TermKeys, _Sums] = {}

    def add(self, values: Mapping[tuple[str, str], Tensor], position: Tensor) -> TermKeys:
        """Add one scalar a term to the running sums.

        Args:
            values: by player and term.
            position: images seen, a float64 scalar on the device.

        Returns:
            The key of these sums: the terms in their order.
        """
        keys = tuple(values)
        if keys not in self.sums:
            totals = torch.zeros(len(keys), device=self.device)
            never = torch.full((len(keys),), math.inf, device=self.device, dtype=torch.float64)
            self.sums[keys] = _Sums(totals, never)
        sums, row = self.sums[keys], torch.stack(list(values.values()))
        sums.totals += row
        at = position.masked_fill(row.isfinite(), math.inf)
        torch.minimum(sums.broken_at, at, out=sums.broken_at)
        sums.count += 1
        return keys

    def check(self) -> None:
        """Stop where a term was not finite.

        Raises:
            TrainingError: names the player, the term and the images seen at the first such value.
        """
        first = [
            (at, key)
            for keys, sums in self.sums.items()
            for at, key in zip(collectives.all_min(sums.broken_at).tolist(), keys, strict=True)
        ]
        at, key = min(first, key=lambda pair: pair[0], default=(math.inf, ("", "")))
        if at == math.inf:
            return
        player, term = key
        raise TrainingError(
            f"{player}/{term} stopped being a finite number at image {int(at)}; the last "
            "checkpoint is sound: lower model.lr or set train.precision to float32"
        )

    def means(self) -> dict[str, float]:
        """Return the means since the last call, by ``player/term``, and start again from zero.

        Raises:
            TrainingError: a term was not finite.
        """
        self.check()
        totals: dict[tuple[str, str], float] = {}
        counts: dict[tuple[str, str], int] = {}
        for keys, sums in self.sums.items():
            if not sums.count:
                continue
            for key, total in zip(keys, collectives.all_mean(sums.totals).tolist(), strict=True):
                totals[key] = totals.get(key, 0.0) + total
                counts[key] = counts.get(key, 0) + sums.count
            sums.totals.zero_()
            sums.count = 0
        return {
            f"{player}/{term}": total / counts[player, term]
            for (player, term), total in totals.items()
        }


def total_norm(gradients: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm over all gradients together, a scalar."""
    return torch.stack(list(torch._foreach_norm(list(gradients)))).norm()
