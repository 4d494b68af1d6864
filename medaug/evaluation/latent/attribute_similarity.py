"""Whether a sample shows what it was told: the attribute similarity of Larsen et al. 2016.

A regressor learns the condition from real training images.  It then reads samples that were told
the conditions of test slices, and what it reads is compared with what they were told.  The same
figures of the test slices themselves are the bound.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medaug.core.errors import ConfigError
from medaug.core.seeds import derive
from medaug.core.seeds import generator as address
from medaug.data.feed.condition import HEIGHT, Condition
from medaug.data.feed.feed import Feed
from medaug.models.networks.blocks import group_norm
from medaug.synthesis.generator import Generator

BATCH = 64
TESTED = 1024
"""At most this many test slices' conditions are asked for."""


@dataclass(frozen=True)
class Similarity:
    """How well samples, and real test slices, show their condition.

    Attributes:
        cosine: mean over test conditions of the best of the draws, attributes as -1 and +1, since
            a vector of zeros has no direction.
        squared_error: mean over conditions, draws and their numbers.
        real_cosine: of the test slices themselves.
        real_squared_error: likewise.
    """

    cosine: float
    squared_error: float
    real_cosine: float
    real_squared_error: float


def attribute_similarity(
    generator: Generator,
    train: Feed,
    test: Feed,
    *,
    draws: int = 10,
    images: int = 32768,
    seed: int = 0,
) -> Similarity:
    """Compare what samples were told with what a regressor reads in them.

    Args:
        generator: a model with a condition.
        train: slices the regressor learns from.
        test: slices whose conditions are asked for.
        draws: samples for each condition.
        images: training images the regressor sees, repeats counted.
        seed: of regressor and draws.

    Raises:
        ConfigError: the model has no condition, or draws or images are below 1.
    """
    if not generator.condition.dim:
        raise ConfigError("attribute similarity needs a condition; this model was not conditioned")
    for name, value in (("draws", draws), ("images", images)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")
    regressor = fit_regressor(train, images, seed, generator.device)
    index = torch.randperm(len(test), generator=address(seed, "tested"))[:TESTED]
    found: list[list[Tensor]] = [[], [], [], []]
    for places in index.split(BATCH):
        seen = test.at(places)
        x, told = seen.x, seen.cond
        assert told is not None
        told = told.to(generator.device)
        cosines, errors = zip(
            *(_score(regressor, _drawn(generator, places, told, seed, k), told, generator.condition)
              for k in range(draws)), strict=True,
        )  # fmt: skip
        real = _score(regressor, x.to(generator.device), told, generator.condition)
        parts = torch.stack(cosines).amax(0), torch.stack(errors).mean(0), *real
        for whole, part in zip(found, parts, strict=True):
            whole.append(part)
    return Similarity(*(float(torch.cat(whole).mean()) for whole in found))


def fit_regressor(train: Feed, images: int, seed: int, device: torch.device) -> nn.Module:
    """A small network from intensities (b, c, h, w) to the condition (b, dim), squared error."""
    shape = train.shape
    widths = (shape.images, 16, 32, 64, 64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "regressor"))
        layers: list[nn.Module] = []
        for c_in, c_out in pairwise(widths):
            layers += [nn.Conv2d(c_in, c_out, 3, 2, 1), group_norm(c_out), nn.SiLU()]
        side = -(-shape.size // 16)
        layers += [nn.Flatten(), nn.Linear(widths[-1] * side**2, shape.cond_dim)]
        regressor = nn.Sequential(*layers).to(device)
    optimizer = torch.optim.Adam(regressor.parameters(), 1e-3)
    for position in range(0, images, BATCH):
        batch = train.batch(position, BATCH)
        assert batch.cond is not None
        read = regressor(batch.x[:, : shape.images].to(device))
        optimizer.zero_grad()
        F.mse_loss(read, batch.cond.to(device)).backward()
        optimizer.step()
    return regressor.eval().requires_grad_(False)


def _drawn(generator: Generator, places: Tensor, told: Tensor, seed: int, draw: int) -> Tensor:
    noise = generator.noise(seed, places.tolist(), f"similarity {draw}")
    with torch.no_grad():
        return generator.model.decode(generator.prior(noise, told), told)


def _score(
    regressor: nn.Module, x: Tensor, told: Tensor, condition: Condition
) -> tuple[Tensor, Tensor]:
    """Cosine and mean squared error (b,) of what is read in ``x`` against ``told``."""
    first = next(regressor.parameters())
    read = regressor(x[:, : first.shape[1]].float())
    alike = F.cosine_similarity(_signed(read, condition), _signed(told, condition))
    return alike, (read - told).square().mean(1)


def _signed(rows: Tensor, condition: Condition) -> Tensor:
    binary = [False] * len(condition.classes) + [name != HEIGHT for name in condition.names]
    return torch.where(torch.tensor(binary, device=rows.device), 2 * rows - 1, rows)
