"""WAE-GAN of Tolstikhin et al. 2018: codes are held to the prior by an adversary of codes.

Healthy: ``reconstruction`` falls; the adversary's ``real`` and ``fake`` stay between 0.5 and 0.7.
Both near 0: codes do not match the prior; raise ``penalty`` or lower ``discriminator_lr``.
"""

from collections.abc import Sequence

import torch
from torch import nn

from medaug.core.batch import Shape
from medaug.models.base import Batch, Move, OptimizerSettings, Turn
from medaug.models.losses import fake_loss, real_loss
from medaug.models.networks.build import Network
from medaug.models.networks.latent import CodeDiscriminator
from medaug.models.priors import GAUSSIAN, PriorOptions
from medaug.models.wae import WAE


class WAEGAN(WAE):
    """A Wasserstein autoencoder with a discriminator of codes.

    Args:
        shape: channels, size and conditions of the data.
        latent_dim: length of the code.
        network: architecture of encoder and decoder.
        width: channels of their first level.
        penalty: lambda of the paper, against its summed squared error.
        pretrain: share of the images in which the encoder matches moments.
        lr: Adam's rate at the start; halved after 30 %, a tenth after half of the images.
        discriminator_lr: Adam's rate of the adversary, which falls with ``lr``.
        log_prior: whether the adversary's logit starts from the prior's log density.
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
        discriminator_lr: float = 5e-4,
        log_prior: bool = False,
        prior: PriorOptions = GAUSSIAN,
    ) -> None:
        super().__init__(shape, latent_dim, network, width, penalty, pretrain, lr, prior)
        self.code_discriminator = CodeDiscriminator(latent_dim, 512, 4, shape.cond_dim, log_prior)
        self.discriminator_lr = discriminator_lr

    def game_players(self) -> dict[str, tuple[nn.Module, ...]]:
        return {**super().game_players(), "code_discriminator": (self.code_discriminator,)}

    def game_optim(self, progress: float) -> dict[str, OptimizerSettings]:
        rate = self.discriminator_lr * self.pace(progress)
        how = OptimizerSettings(rate, betas=(0.5, 0.999))
        return {**super().game_optim(progress), "code_discriminator": how}

    def match_codes(self) -> Sequence[Turn]:
        return [Turn(self.train_autoencoder), Turn(self.train_code_discriminator)]

    def train_autoencoder(self, batch: Batch) -> dict[str, Move]:
        z = self.noisy_codes(batch)
        adversarial = (self.penalty, real_loss(self.code_discriminator(z, batch.cond)))
        move = Move({**self.rebuilt(batch, z), "code": adversarial})
        return {"encoder": move, "decoder": move}

    def train_code_discriminator(self, batch: Batch) -> dict[str, Move]:
        with torch.no_grad():  # the encoder rests
            z_hat = self.noisy_codes(batch)
        on_real = self.code_discriminator(torch.randn_like(z_hat), batch.cond)
        on_fake = self.code_discriminator(z_hat, batch.cond)
        terms = {"real": (1.0, real_loss(on_real)), "fake": (1.0, fake_loss(on_fake))}
        return {"code_discriminator": Move(terms)}
