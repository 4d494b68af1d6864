"""WAE-MMD of Tolstikhin et al. 2018: codes are held to the prior by their maximum mean discrepancy.

Kernels are inverse multiquadratics over seven scales.

Healthy: ``reconstruction`` falls, ``mmd`` hovers around 0 (it is unbiased, and may be negative).
"""

from collections.abc import Sequence

import torch

from medaug.core.batch import Shape
from medaug.models.base import Batch, Move, Turn
from medaug.models.losses import imq_mmd
from medaug.models.networks.build import Network
from medaug.models.priors import GAUSSIAN, PriorOptions
from medaug.models.wae import WAE
from medaug.runtime import collectives


class WAEMMD(WAE):
    """A Wasserstein autoencoder whose codes are held to the prior by kernels.

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
        super().__init__(
            shape, latent_dim, network, width, penalty, pretrain, lr,
            prior,
        )  # fmt: skip

    def match_codes(self) -> Sequence[Turn]:
        return [Turn(self.train_autoencoder)]

    def train_autoencoder(self, batch: Batch) -> dict[str, Move]:
        z = self.noisy_codes(batch)
        mmd = (
            self.penalty,
            imq_mmd(collectives.all_gather(z), collectives.all_gather(torch.randn_like(z))),
        )
        move = Move({**self.rebuilt(batch, z), "mmd": mmd})
        return {"encoder": move, "decoder": move}
