"""Adversarially learned inference (ALI) of Dumoulin et al. 2017.

One discriminator of pairs of image and code tells (x, E(x)) from (G(z), z); encoder and decoder
play one side together, with labels swapped.  Both sides step at once, from the same forward pass.
Adam's second decay is 0.999: the paper prints 1 - beta_2.

Healthy: ``real`` and ``fake`` between 0.2 and 0.7.  Reconstructions drift to other instances of
the same kind; that is the model, and ALICE is the remedy.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medaug.core.batch import Shape
from medaug.models.autoencoder import Autoencoder
from medaug.models.base import Batch, Move, OptimizerSettings, Turn
from medaug.models.losses import fake_loss, real_loss, reparametrise
from medaug.models.networks.blocks import repeated
from medaug.models.networks.build import Network
from medaug.models.networks.latent import JointDiscriminator
from medaug.models.priors import GAUSSIAN, PriorOptions


class ALI(Autoencoder):
    """Encoder and decoder against one discriminator of pairs of image and code.

    Args:
        shape: channels, size and conditions of the data.
        latent_dim: length of the code.
        network: architecture of encoder and decoder.
        width: channels of the first level of all three networks.
        maxout: whether the discriminator is the authors', of maxout and dropout, or of leaky ReLU.
        lr: Adam's rate of encoder and decoder.
        discriminator_lr: Adam's rate of the discriminator.
        prior: how codes are distributed and drawn.
    """

    def __init__(
        self,
        shape: Shape,
        latent_dim: int = 64,
        network: Network = "dcgan",
        width: int = 64,
        maxout: bool = True,
        lr: float = 1e-4,
        discriminator_lr: float = 1e-4,
        prior: PriorOptions = GAUSSIAN,
    ) -> None:
        super().__init__(shape, latent_dim, network, width, prior)
        self.discriminator = JointDiscriminator(shape, latent_dim, width, maxout=maxout)
        self.lr, self.discriminator_lr = lr, discriminator_lr

    def game_players(self) -> dict[str, tuple[nn.Module, ...]]:
        return {"generator": (self.encoder, self.decoder), "discriminator": (self.discriminator,)}

    def game(self, progress: float) -> Sequence[Turn]:
        return [Turn(self.play)]

    def game_optim(self, progress: float) -> dict[str, OptimizerSettings]:
        return {
            "generator": OptimizerSettings(self.lr, betas=(0.5, 0.999)),
            "discriminator": OptimizerSettings(self.discriminator_lr, betas=(0.5, 0.999)),
        }

    def play(self, batch: Batch) -> dict[str, Move]:
        x, cond = batch.x, batch.cond
        mu, logvar = self.encode(x, cond)
        z_hat, z = reparametrise(mu, logvar), torch.randn_like(mu)
        x_p = batch.seen(self.decode(z, cond))
        on_q, on_p = self.discriminator(
            torch.cat([x, x_p]),
            torch.cat([z_hat, z]),
            repeated(cond, 2),
        ).chunk(2)
        generator = {
            "posterior": (1.0, fake_loss(on_q)),
            "sample": (1.0, real_loss(on_p)),
            **self.cycles(batch, mu, z, x_p),
        }
        discriminator = {"real": (1.0, real_loss(on_q)), "fake": (1.0, fake_loss(on_p))}
        return {"generator": Move(generator), "discriminator": Move(discriminator)}

    def cycles(
        self, batch: Batch, mu: Tensor, z: Tensor, x_p: Tensor
    ) -> dict[str, tuple[float, Tensor]]:
        """Further terms of encoder and decoder; ALI has none."""
        return {}
