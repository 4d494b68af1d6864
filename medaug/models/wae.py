"""What both Wasserstein autoencoders of Tolstikhin, Bousquet, Gelly and Schoelkopf 2018 share.

A deterministic encoder of images with a little noise on them; the squared error of the
reconstruction; a first share of the run in which the encoder alone matches the prior's moments.
"""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medaug.core.batch import Shape
from medaug.models.autoencoder import Autoencoder
from medaug.models.base import Batch, Move, OptimizerSettings, Turn
from medaug.models.losses import half_squared_error
from medaug.models.networks.build import Network
from medaug.models.priors import GAUSSIAN, PriorOptions
from medaug.runtime import collectives

NOISE = 0.01
AUTHORS_SCALE = 0.05 / 4
"""Theirs weighs the summed squared error on [0, 1], a quarter of that on [-1, 1], by 0.05."""


class WAE(Autoencoder):
    """A Wasserstein autoencoder; subclasses say how codes are held to the prior.

    Args:
        shape: channels, size and conditions of the data.
        latent_dim: length of the code.
        network: architecture of encoder and decoder.
        width: channels of their first level.
        penalty: lambda of the paper, against its summed squared error.
        pretrain: share of the images in which the encoder matches moments.
        lr: Adam's rate at the start; halved after 30 %, a tenth after half of the images.
        prior: how codes are distributed and drawn.
    """

    stochastic = False

    def __init__(
        self,
        shape: Shape,
        latent_dim: int = 8,
        network: Network = "dcgan",
        width: int = 64,
        penalty: float = 10.0,
        pretrain: float = 0.003,
        lr: float = 1e-3,
        prior: PriorOptions = GAUSSIAN,
    ) -> None:
        super().__init__(shape, latent_dim, network, width, prior)
        pixels = shape.channels * shape.size**shape.spatial_dims
        self.penalty = penalty / (AUTHORS_SCALE * pixels)
        self.pretrain, self.lr = pretrain, lr

    def game(self, progress: float) -> Sequence[Turn]:
        if progress < self.pretrain:
            return [Turn(self.match_moments)]
        return self.match_codes()

    @abstractmethod
    def match_codes(self) -> Sequence[Turn]:
        """The turns after the first share."""

    def game_players(self) -> dict[str, tuple[nn.Module, ...]]:
        return {"encoder": (self.encoder,), "decoder": (self.decoder,)}

    def pace(self, progress: float) -> float:
        return 1.0 if progress < 0.3 else 0.5 if progress < 0.5 else 0.1

    def game_optim(self, progress: float) -> dict[str, OptimizerSettings]:
        step = OptimizerSettings(self.lr * self.pace(progress), betas=(0.5, 0.999))
        return dict.fromkeys(self.game_players(), step)

    def match_moments(self, batch: Batch) -> dict[str, Move]:
        z = collectives.all_gather(self.noisy_codes(batch))
        centred = z - z.mean(0)
        covariance = centred.T @ centred / len(z)
        gap = (covariance - torch.eye(len(covariance), device=z.device)).square().mean()
        return {"encoder": Move({"mean": (1.0, z.mean(0).square().mean()), "spread": (1.0, gap)})}

    def noisy_codes(self, batch: Batch) -> Tensor:
        x = batch.x + NOISE * torch.randn_like(batch.x).clamp(-2, 2)
        return self.encode(x, batch.cond)[0]

    def rebuilt(self, batch: Batch, z: Tensor) -> dict[str, tuple[float, Tensor]]:
        """The mean squared error of the reconstruction from ``z``."""
        x_hat = batch.seen(self.decode(z, batch.cond))
        return {"reconstruction": (2.0, half_squared_error(x_hat, batch.x))}
