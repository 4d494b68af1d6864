"""alpha-GAN of Rosca, Lakshminarayanan, Warde-Farley and Mohamed 2017.

An autoencoder with two discriminators: one of images, which sees samples and reconstructions, and
one of codes.  The first public version of the paper swaps prior and posterior in the loss of the
second, as its authors confirmed; here codes of images are the fakes.

Healthy: ``reconstruction`` falls throughout; ``real`` and ``fake`` of both stay between 0.3 and
0.7.  The discriminator of codes near 0: codes do not match the prior, and samples will be poor.
"""

from collections.abc import Sequence

import torch
from torch import nn

from medaug.core.batch import Shape
from medaug.models.autoencoder import Autoencoder
from medaug.models.base import Batch, Move, OptimizerSettings, Turn
from medaug.models.discriminator import Discriminator
from medaug.models.losses import ADVERSARIAL_LOSSES, absolute_error
from medaug.models.networks.build import Network
from medaug.models.networks.latent import CodeDiscriminator
from medaug.models.priors import GAUSSIAN, PriorOptions
from medaug.runtime import collectives


class AlphaGAN(Autoencoder):
    """An autoencoder with a discriminator of images and one of codes.

    Args:
        shape: channels, size and conditions of the data.
        latent_dim: length of the code.
        network: architecture of encoder, decoder and discriminator.
        width: channels of their first level.
        reconstruction: weight of the mean absolute error.
        code_width: of the discriminator of codes.
        adversarial_loss: on images: logistic, saturating, hinge, wasserstein or relativistic.
        r1: gamma of the zero-centred penalty on real images.
        augment: differentiable augmentations of what the discriminator of images sees.
        lr: Adam's rate of all players.
        prior: how codes are distributed and drawn.
    """

    stochastic = False

    def __init__(
        self,
        shape: Shape,
        latent_dim: int = 64,
        network: Network = "dcgan",
        width: int = 64,
        reconstruction: float = 40.0,
        code_width: int = 700,
        adversarial_loss: str = "logistic",
        r1: float = 0.0,
        augment: Sequence[str] = (),
        lr: float = 8e-4,
        prior: PriorOptions = GAUSSIAN,
    ) -> None:
        super().__init__(shape, latent_dim, network, width, prior)
        self.discriminator = Discriminator(
            shape, network, width, adversarial_loss=adversarial_loss, r1=r1, augment=augment
        )
        self.code_discriminator = CodeDiscriminator(latent_dim, code_width, 2, shape.cond_dim)
        self.latent_dim, self.reconstruction, self.lr = latent_dim, reconstruction, lr

    def game_players(self) -> dict[str, tuple[nn.Module, ...]]:
        return {
            "autoencoder": (self.encoder, self.decoder),
            "discriminator": (self.discriminator,),
            "code_discriminator": (self.code_discriminator,),
        }

    def game(self, progress: float) -> Sequence[Turn]:
        return [
            *2 * [Turn(self.train_autoencoder)],
            Turn(self.train_discriminator),
            Turn(self.train_code_discriminator),
        ]

    def game_optim(self, progress: float) -> dict[str, OptimizerSettings]:
        return dict.fromkeys(self.game_players(), OptimizerSettings(self.lr, betas=(0.5, 0.9)))

    def train_autoencoder(self, batch: Batch) -> dict[str, Move]:
        x, cond = batch.x, batch.cond
        z_hat, _ = self.encode(x, cond)
        x_hat = batch.seen(self.decode(z_hat, cond))
        x_p = batch.seen(self.decode(torch.randn_like(z_hat), cond))
        terms = {
            "reconstruction": (self.reconstruction, absolute_error(x_hat, x)),
            "hat": (0.5, self.discriminator.generator_loss(x_hat, x, cond)),
            "sample": (0.5, self.discriminator.generator_loss(x_p, x, cond)),
            "code": (
                1.0,
                ADVERSARIAL_LOSSES["logistic"].generator_loss(
                    self.code_discriminator(z_hat, cond), None
                ),
            ),
        }
        return {"autoencoder": Move(terms)}

    def train_discriminator(self, batch: Batch) -> dict[str, Move]:
        x, cond = batch.x, batch.cond
        with torch.no_grad():  # the autoencoder rests
            z = self.encode(x, cond)[0]
            second = (
                collectives.global_rows(len(x), x.device) >= collectives.global_count(len(x)) // 2
            )
            z = torch.where(second[:, None], torch.randn_like(z), z)
            fake = batch.seen(self.decode(z, cond))
        return {"discriminator": Move(self.discriminator.discriminator_loss(x, fake, cond))}

    def train_code_discriminator(self, batch: Batch) -> dict[str, Move]:
        cond = batch.cond
        with torch.no_grad():
            z_hat, _ = self.encode(batch.x, cond)
        z = torch.randn_like(z_hat)
        terms = ADVERSARIAL_LOSSES["logistic"].discriminator_loss(
            self.code_discriminator(z, cond), self.code_discriminator(z_hat, cond)
        )
        return {"code_discriminator": Move({name: (1.0, value) for name, value in terms.items()})}
