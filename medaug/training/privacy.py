"""Train with differential privacy: DP-SGD (Abadi et al. 2016) on the gradient of each slice.

Every step chooses each slice with probability ``batch / slices`` (Poisson sampling), clips the
gradient of each chosen slice to the norm C, adds N(0, (sigma C)^2) to their sum and divides by
``batch``.  Choice and noise are functions of (secret, position), so that a resumed run spends
nothing twice; the secret stays in the run folder and is not part of the weights.  Epsilon is the
bound of opacus' RDP accountant for the Poisson-subsampled Gaussian mechanism (Mironov et al. 2019).
"""

import hashlib
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from medaug.core.batch import Batch, Shape
from medaug.core.config import ModelConfig, PrivacyConfig
from medaug.core.errors import ConfigError
from medaug.core.registry import MODELS
from medaug.models import build
from medaug.models.base import Model, Move, Turn
from medaug.runtime.collectives import BATCH_NORMS
from medaug.runtime.device import autocast

CHUNK = 16
"""Slices whose gradients are held in memory at once."""
ORDERS = (*(1 + k / 10 for k in range(1, 100)), *range(12, 64), 64, 96, 128, 256, 512, 1024)
"""Orders of the Renyi divergence among which the accountant takes the tightest bound."""


def epsilon(privacy: PrivacyConfig, rate: float, steps: int) -> float:
    """Return the epsilon that training has spent at ``privacy.delta``.

    Args:
        privacy: noise, clip and delta.
        rate: probability with which a step chooses a slice, in (0, 1].
        steps: taken so far; 0 spends nothing.
    """
    if not steps:
        return 0.0
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = [(privacy.noise, rate, steps)]
    with warnings.catch_warnings():  # the bound holds at every order; it may be loose at the last
        warnings.filterwarnings("ignore", message="Optimal order is the")
        return float(accountant.get_epsilon(privacy.delta, alphas=list(ORDERS)))


def check_supported(config: ModelConfig, shape: Shape) -> None:
    """Refuse a model that cannot be trained privately.

    Raises:
        ConfigError: opacus is missing, or the gradients of the model are not per sample.
    """
    if find_spec("opacus") is None:
        raise ConfigError("train.privacy needs the package opacus: pip install medaug[dp]")
    model = build(config.name, config.arguments, shape)
    reason = model.per_sample_gradients_obstacle()
    if reason is None and any(isinstance(module, BATCH_NORMS) for module in model.modules()):
        reason = "its networks have batch norm, so choose model.network plain or residual"
    if reason is not None:
        silent = Model.per_sample_gradients_obstacle
        able = [
            name
            for name, entry in MODELS.items()
            if entry.load().per_sample_gradients_obstacle is not silent
        ]
        raise ConfigError(
            f"train.privacy needs gradients per sample, which {config.name} does not give as it "
            f"is set: {reason} (models that can: {', '.join(able)})"
        )


class PrivacyAccountant:
    """Account for what a private run spends, as a function of the images seen.

    Args:
        privacy: noise, clip and delta.
        batch: slices a step, on average.
        owners: the case of every training slice.

    Raises:
        ConfigError: more slices a step than there are, or a delta that guarantees nothing.
    """

    def __init__(self, privacy: PrivacyConfig, batch: int, owners: Sequence[str]) -> None:
        self.privacy, self.batch, self.slices = privacy, batch, len(owners)
        self.most = max(Counter(owners).values())
        self.rate = batch / self.slices
        if batch > self.slices:
            raise ConfigError(
                f"config train.batch: {batch} exceeds the {self.slices} training slices, of which "
                "a private step draws a share"
            )
        if privacy.delta * self.slices >= 1:
            raise ConfigError(
                f"config train.privacy.delta: {privacy.delta:g} promises nothing for "
                f"{self.slices} slices; below {1 / self.slices:.2g} is wanted"
            )

    def epsilon(self, images: int) -> float:
        """The epsilon spent after ``images`` images."""
        return epsilon(self.privacy, self.rate, images // self.batch)

    def statement(self, images: int) -> dict[str, Any]:
        """What is guaranteed after ``images`` images, for the readers of the weights."""
        return {
            "epsilon": round(self.epsilon(images), 4),
            **self.privacy.model_dump(mode="json"),
            "unit": "slice",
            "most_slices_of_a_case": self.most,
            "rate": self.rate,
            "steps": images // self.batch,
            "accountant": "RDP of the Poisson-subsampled Gaussian (opacus)",
        }


class PrivateGradients:
    """Compute clipped and noised gradients in the place of plain ones.

    Args:
        model: gives gradients per sample, as ``check_supported`` made sure.
        accountant: settings and sizes.
        secret: any text that is kept from the readers of the weights.
        device: where the model is.
        precision: ``float32`` or ``bfloat16``, of the forward pass; gradients are float32.
    """

    def __init__(
        self,
        model: Model,
        accountant: PrivacyAccountant,
        secret: str,
        device: torch.device,
        precision: str,
    ) -> None:
        self.accountant, self.secret = accountant, secret
        self.device, self.precision = device, precision
        self.privacy, self.turns = accountant.privacy, _TurnModule(model)

    def rng(self, purpose: str, position: int) -> np.random.Generator:
        """A random generator for one purpose and position, seeded by 128 bits of the secret."""
        text = f"{self.secret}:{purpose}:{position}".encode()
        return np.random.Generator(
            np.random.Philox(key=int.from_bytes(hashlib.sha256(text).digest()[:16], "big"))
        )

    def sample(self, position: int) -> Tensor:
        """The slices of the step at ``position``, ascending; their number varies and may be 0."""
        chosen = self.rng("sample", position).random(self.accountant.slices) < self.accountant.rate
        return torch.from_numpy(np.flatnonzero(chosen))

    def gradients(
        self, turn: Turn, batch: Batch, position: int, parameters: Mapping[str, list[nn.Parameter]]
    ) -> tuple[dict[str, list[Tensor]], dict[str, Move]]:
        """Return the private gradient of each player and the losses of the chosen slices.

        Args:
            turn: the one turn of a round.
            batch: the chosen slices.
            position: images seen before the batch.
            parameters: by player.

        Returns:
            Gradients, one for each parameter of each player, and moves whose terms are weighted
            already.
        """
        sums, terms = self.clipped(turn, batch)
        noise = self.rng("noise", position)
        scale = self.privacy.noise * self.privacy.clip
        noised = {
            name: (total + scale * self._normal(noise, total)) / self.accountant.batch
            for name, total in sums.items()
        }
        names = {id(p): name for name, p in self.turns.named_parameters()}
        found = {
            player: [noised[names[id(p)]] for p in owned] for player, owned in parameters.items()
        }
        return found, {player: Move(terms) for player in parameters}

    def _normal(self, rng: np.random.Generator, like: Tensor) -> Tensor:
        values = rng.standard_normal(tuple(like.shape), dtype=np.float32)
        return torch.from_numpy(values).to(like.device)

    def clipped(
        self, turn: Turn, batch: Batch
    ) -> tuple[dict[str, Tensor], dict[str, tuple[float, Tensor]]]:
        """The sum of clipped gradients by parameter, and each slice's weighted terms (b,)."""
        weights = {name: p.detach() for name, p in self.turns.named_parameters()}
        sums = {name: torch.zeros_like(p) for name, p in weights.items()}
        terms: dict[str, list[Tensor]] = {}
        inputs = {k: v for k, v in vars(batch).items() if v is not None}

        def loss(
            weights: dict[str, Tensor], one: dict[str, Tensor]
        ) -> tuple[Tensor, dict[str, Tensor]]:
            alone = Batch(**{key: value[None] for key, value in one.items()})
            with autocast(self.device, self.precision):
                moves = functional_call(self.turns, weights, (turn, alone))
            move = next(iter(moves.values()))
            return move.total(), {k: w * v.float() for k, (w, v) in move.terms.items()}

        each = vmap(grad(loss, has_aux=True), in_dims=(None, 0), randomness="different")
        for start in range(0, len(batch.x), CHUNK):
            part = {key: value[start : start + CHUNK] for key, value in inputs.items()}
            found, lost = each(weights, part)
            shares = self._shares(list(found.values()))
            for name, gradients in found.items():
                sums[name] += torch.einsum("b,b...->...", shares, gradients.float())
            for key, value in lost.items():
                terms.setdefault(key, []).append(value.flatten())
        return sums, {key: (1.0, torch.cat(values)) for key, values in terms.items()}

    def _shares(self, gradients: Sequence[Tensor]) -> Tensor:
        """The factor (b,) that clips each slice's gradient over all parameters together."""
        squares = torch.stack([g.float().flatten(1).square().sum(1) for g in gradients]).sum(0)
        return (self.privacy.clip / squares.sqrt().clamp_min(1e-12)).clamp(max=1.0)


class _TurnModule(nn.Module):
    """A turn of a model as a module, so that ``functional_call`` can give it weights."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, turn: Turn, batch: Batch) -> Mapping[str, Move]:
        return turn.play(batch)
