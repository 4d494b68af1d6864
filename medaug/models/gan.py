"""Generative adversarial network of Goodfellow et al. 2014; on ``dcgan`` networks that of DCGAN.

Two players in turn, each on fresh images.  The preset ``modern`` is the recipe of R3GAN (Huang et
al. 2024): a relativistic loss with zero-centred penalties on real and fake images.

Healthy: ``real`` and ``fake`` hover between 0.3 and 0.7, or ``margin`` between 0.2 and 0.7, and
``adversarial`` around 1.  All terms of the discriminator near 0: it has won; samples that all look
the same: the generator has collapsed; raise r1 and r2, or add augmentation.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medaug.core.batch import Shape
from medaug.models.base import Batch, Model, Move, OptimizerSettings, Turn
from medaug.models.discriminator import Discriminator
from medaug.models.networks.build import Network, make_decoder


class GAN(Model):
    """A generator and a discriminator, in turn.

    Args:
        shape: channels, size and conditions of the data.
        latent_dim: length of the code.
        network: architecture of both networks.
        width: channels of their first level.
        adversarial_loss: logistic, saturating, hinge, wasserstein or relativistic.
        augment: differentiable augmentations of what the discriminator sees: brightness,
            contrast, translation, cutout.
        r1: gamma of the zero-centred penalty on real images (R1).
        r2: gamma of the zero-centred penalty on fakes (R2).
        lecam: weight of LeCam's pull on the scores.
        discriminator_turns: the discriminator's turns to one of the generator.
        lr: Adam's rate of the generator.
        discriminator_lr: Adam's rate of the discriminator (TTUR, Heusel et al. 2017).
        beta1: Adam's first decay.
        beta2: Adam's second decay.
    """

    def __init__(
        self,
        shape: Shape,
        latent_dim: int = 100,
        network: Network = "dcgan",
        width: int = 64,
        adversarial_loss: str = "logistic",
        augment: Sequence[str] = (),
        r1: float = 0.0,
        r2: float = 0.0,
        lecam: float = 0.0,
        discriminator_turns: int = 1,
        lr: float = 2e-4,
        discriminator_lr: float = 2e-4,
        beta1: float = 0.5,
        beta2: float = 0.999,
    ) -> None:
        super().__init__()
        self.decoder = make_decoder(network, shape, latent_dim, width)
        self.discriminator = Discriminator(
            shape,
            network,
            width,
            adversarial_loss=adversarial_loss,
            augment=augment,
            r1=r1,
            r2=r2,
            lecam=lecam,
        )
        self.noise_shape, self.discriminator_turns = (latent_dim,), discriminator_turns
        self.lr, self.discriminator_lr, self.betas = lr, discriminator_lr, (beta1, beta2)

    def players(self) -> dict[str, tuple[nn.Module, ...]]:
        return {"discriminator": (self.discriminator,), "generator": (self.decoder,)}

    def turns(self, progress: float) -> Sequence[Turn]:
        return self.discriminator_turns * [Turn(self.train_discriminator)] + [
            Turn(self.train_generator)
        ]

    def optim(self, progress: float) -> dict[str, OptimizerSettings]:
        return {
            "discriminator": OptimizerSettings(self.discriminator_lr, betas=self.betas),
            "generator": OptimizerSettings(self.lr, betas=self.betas),
        }

    def train_discriminator(self, batch: Batch) -> dict[str, Move]:
        with torch.no_grad():  # the generator rests
            fake = self.fakes(batch)
        return {
            "discriminator": Move(self.discriminator.discriminator_loss(batch.x, fake, batch.cond))
        }

    def train_generator(self, batch: Batch) -> dict[str, Move]:
        adversarial = self.discriminator.generator_loss(self.fakes(batch), batch.x, batch.cond)
        return {"generator": Move({"adversarial": (1.0, adversarial)})}

    def fakes(self, batch: Batch) -> Tensor:
        noise = torch.randn(len(batch.x), *self.noise_shape, device=batch.x.device)
        return batch.seen(self.decode(noise, batch.cond))

    def prior(self, noise: Tensor, cond: Tensor | None) -> Tensor:
        return noise

    def decode(self, z: Tensor, cond: Tensor | None) -> Tensor:
        return self.decoder(z, cond).float().tanh()
