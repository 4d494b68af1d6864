"""WAE-MMD of Tolstikhin et al. 2018: codes are held to the prior by their maximum mean discrepancy.

Kernels are inverse multiquadratics over seven scales.

Healthy: ``reconstruction`` falls, ``mmd`` hovers around 0 (it is unbiased, and may be negative).
"""

from collections.abc import Sequence

import torch

from medaug.models.base import Batch, Move, Turn
from medaug.models.losses import imq_mmd
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

    def match_codes(self) -> Sequence[Turn]:
        return [Turn(self.train_autoencoder)]

    def train_autoencoder(self, batch: Batch) -> dict[str, Move]:
        z = self.noisy_codes(batch)
        prior = torch.randn_like(z)
        mmd = imq_mmd(collectives.all_gather(z), collectives.all_gather(prior))
        move = Move({**self.rebuilt(batch, z), "mmd": (self.penalty, mmd)})
        return {"encoder": move, "decoder": move}
