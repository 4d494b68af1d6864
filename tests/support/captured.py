"""What the tests of recorded turns train: small models, handed over before the first round."""

from pathlib import Path
from typing import Any

import torch

from medaug.core.config import resolve
from medaug.data.cache.prepare import SliceCache
from medaug.training import loop
from tests.conftest import TINY

CPU = torch.device("cpu")
BATCH = 4
MODELS: dict[str, dict[str, Any]] = {
    "phased": {**TINY["model"], "phases": [0.3, 0.6]},
    "vaegan-author": {"name": "vaegan", "width": 4, "latent_dim": 4},
    "wgan_gp": {"name": "wgan_gp", "network": "plain", "width": 4, "latent_dim": 4},
    "gvae": {"name": "gvae", "network": "gvae", "width": 2, "latent_dim": 4},
}
IMAGES = {"phased": 80, "vaegan-author": 32, "wgan_gp": 120, "gvae": 60}
"""Enough for every kind of turn to be recorded and played again."""


class Rounds:
    """A run that ``fit`` would train, set up and handed over before its first round."""

    def __init__(self, training: loop.Training) -> None:
        vars(self)["training"], vars(self)["data"] = training, None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.training, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.training, name, value)

    def round(self) -> int:
        """Play one round; returns the images seen."""
        if self.data is None:
            vars(self)["data"] = self.training.batches()
        return loop.play_round(self.training, self.data)


def trainer(cache: SliceCache, run: Path, model: str, device: str = "cpu", **train: Any) -> Any:
    wishes = {"images": IMAGES[model], "batch": BATCH, "precision": "float32", **train}
    settings = resolve({**TINY, "model": MODELS[model]}, {"train": wishes})
    with loop.set_up(settings, cache, run, device) as training:
        loop.resume(training)
        return Rounds(training)


State = dict[str, torch.Tensor]


def weights(made: Any) -> State:
    return {name: p.detach().clone() for name, p in made.model.named_parameters()}


def apart(one: State, other: State, start: State) -> float:
    """How far two runs are apart, against how far the second has come from their start."""
    assert one.keys() == other.keys() == start.keys()
    distance = sum((one[k].double() - other[k].double()).square().sum() for k in one)
    way = sum((start[k].double() - other[k].double()).square().sum() for k in one)
    return float((distance / way).sqrt())


def trace(
    cache: SliceCache, run: Path, model: str, device: str, images: int, **train: Any
) -> dict[str, torch.Tensor]:
    """Every term, averaged over each 20 of 200 rounds, (10,)."""
    made = trainer(cache, run, model, device, images=images, **train)
    rows = []
    for _ in range(200):
        made.round()
        rows.append(made.players.loss_log.means())
    return {
        term: torch.tensor([row[term] for row in rows]).view(10, 20).mean(1) for term in rows[0]
    }
