"""One round of the game: turns to moves, moves to gradients, gradients to steps, all guarded.

Gradients of a turn are taken first, each with respect to its own player's parameters; then all
movers step.  Players that share a move share its backward pass.
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
from medaug.training.optimizers import PlayerOptimizer
from medaug.training.privacy import PrivateGradients

Keys = tuple[tuple[str, str], ...]
"""Players and terms that are counted together."""


class Players:
    """A model with its optimisers and the running account of every term.

    Args:
        model: whose players step.
        seed: of the draws inside turns.
        device: where the model is.
        precision: ``float32`` or ``bfloat16``.
        private: takes the gradients where training is differentially private.
        recorded: whether turns may be recorded and played again (see
        `medaug.training.cuda_graphs`).
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
        self.steppers = {
            player: PlayerOptimizer(self.parameters[player], how.kind, recorded)
            for player, how in model.optim(0.0).items()
        }
        self.position = torch.zeros((), dtype=torch.float64, device=device)
        self.account = LossLog(device)

    def turn(
        self, turn: Turn, batch: Batch, position: int, optim: Mapping[str, OptimizerSettings]
    ) -> None:
        """Play one turn on a batch that starts at image ``position``."""
        self.address(position, optim)
        if self.private is None:
            self.play(turn, batch, optim)
        else:
            steps, moves = self.private.gradients(turn, batch, position, self.parameters)
            self.step(steps, moves, optim)

    def address(self, position: int, optim: Mapping[str, OptimizerSettings]) -> None:
        """Set all that differs between two turns of a kind, without waiting for the device."""
        torch.manual_seed(derive(self.seed, "turn", position))
        self.position.fill_(position)
        for player, stepper in self.steppers.items():
            if stepper.rate is not None:
                stepper.rate.fill_(optim[player].lr)

    def play(self, turn: Turn, batch: Batch, optim: Mapping[str, OptimizerSettings]) -> Keys:
        """One turn as a function of tensors on the device, after ``address``; what it counted."""
        with collectives.shared_draws(len(batch.x)), autocast(self.device, self.precision):
            moves = turn.play(batch)
        return self.step(collectives.average_gradients(self.gradients(moves)), moves, optim)

    def step(
        self,
        steps: Mapping[str, list[Tensor]],
        moves: Mapping[str, Move],
        optim: Mapping[str, OptimizerSettings],
    ) -> Keys:
        """Move the players by their gradients and count every term; what was counted."""
        counted: dict[tuple[str, str], Tensor] = {}
        for player, gradients in steps.items():
            norm = total_norm(gradients)
            counted[player, "gradient"] = norm
            limit = optim[player].max_norm
            if limit is not None:
                torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0))
            self.steppers[player].step(gradients, optim[player], moves[player].when)
        for player, move in moves.items():
            for term, (_, value) in move.terms.items():
                counted[player, term] = value.detach().float().mean()
        return self.account.add(counted, self.position)

    def gradients(self, moves: Mapping[str, Move]) -> dict[str, list[Tensor]]:
        """Each mover's gradient with respect to its own parameters, zeros where none reaches."""
        groups: dict[int, list[str]] = {}
        for player, move in moves.items():
            groups.setdefault(id(move), []).append(player)
        result: dict[str, list[Tensor]] = {}
        for number, players in enumerate(groups.values(), 1):
            wanted = [p for player in players for p in self.parameters[player]]
            move = moves[players[0]]
            loss = move.total() if move.surrogate is None else move.surrogate
            found = torch.autograd.grad(
                loss, wanted, retain_graph=number < len(groups), materialize_grads=True
            )
            start = 0
            for player in players:
                end = start + len(self.parameters[player])
                result[player] = list(found[start:end])
                start = end
        return result

    def tensors(self) -> dict[str, Tensor]:
        """Everything the next round depends on, by name."""
        result = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for player, stepper in self.steppers.items():
            for name, value in stepper.tensors():
                result[f"optim.{player}.{name}"] = value
        return result

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what ``tensors`` gave."""
        self.model.load_state_dict(below(tensors, "model."))
        for player, stepper in self.steppers.items():
            stepper.restore(below(tensors, f"optim.{player}."))


@dataclass
class _Sums:
    """The running sums (n,) of terms counted together, and where each first broke."""

    sums: Tensor
    broken: Tensor
    count: int = 0


class LossLog:
    """Means of every player's terms, and where one of them first stopped being a number.

    Everything stays on the device, in tensors that last, until ``close``, so that the loop never
    waits for it.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.tallies: dict[Keys, _Sums] = {}

    def add(self, values: Mapping[tuple[str, str], Tensor], position: Tensor) -> Keys:
        """Count scalars towards their terms' means; the key of their tally.

        Args:
            values: by player and term.
            position: images seen, a float64 scalar on the device.
        """
        keys = tuple(values)
        if keys not in self.tallies:
            sums = torch.zeros(len(keys), device=self.device)
            broken = torch.full((len(keys),), math.inf, device=self.device, dtype=torch.float64)
            self.tallies[keys] = _Sums(sums, broken)
        tally, row = self.tallies[keys], torch.stack(list(values.values()))
        tally.sums += row
        at = position.masked_fill(row.isfinite(), math.inf)
        torch.minimum(tally.broken, at, out=tally.broken)
        tally.count += 1
        return keys

    def check(self) -> None:
        """Stop where a term was not finite.

        Raises:
            TrainingError: names the player, the term and the images seen at the first such value.
        """
        named = [
            (at, key)
            for keys, tally in self.tallies.items()
            for at, key in zip(collectives.all_min(tally.broken).tolist(), keys, strict=True)
        ]
        at, key = min(named, key=lambda pair: pair[0], default=(math.inf, ("", "")))
        if at == math.inf:
            return
        player, term = key
        raise TrainingError(
            f"{player}/{term} stopped being a finite number at image {int(at)}; the last "
            "checkpoint is sound: lower model.lr or set train.precision to float32"
        )

    def close(self) -> dict[str, float]:
        """The means since the last call, by ``player/term``; checks first."""
        self.check()
        sums: dict[tuple[str, str], float] = {}
        counts: dict[tuple[str, str], int] = {}
        for keys, tally in self.tallies.items():
            if not tally.count:
                continue
            for key, total in zip(keys, collectives.all_mean(tally.sums).tolist(), strict=True):
                sums[key] = sums.get(key, 0.0) + total
                counts[key] = counts.get(key, 0) + tally.count
            tally.sums.zero_()
            tally.count = 0
        return {
            f"{player}/{term}": sums[player, term] / counts[player, term] for player, term in sums
        }


def total_norm(gradients: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm over all gradients together, a scalar."""
    return torch.stack(list(torch._foreach_norm(list(gradients)))).norm()


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries under ``prefix``, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
