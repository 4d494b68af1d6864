"""GVAE of Sagar 2020, resolved: a VAE with a Wasserstein critic in place of a likelihood.

Encoder and decoder minimise an absolute reconstruction error, the KL per dimension and the
critic's scores of reconstructions and samples; the critic is that of WGAN-GP on both.

The paper's tables cannot be targets: see ``docs/models/gvae.md``.

Healthy: ``reconstruction`` falls, ``kl`` per dimension settles above 0.1, ``real`` + ``fake`` of
both games is negative and shrinks, both ``penalty`` stay below about 0.1.
"""

from collections.abc import Sequence

import torch
from torch import nn

from medaug.core.batch import Shape
from medaug.models.autoencoder import Autoencoder
from medaug.models.base import Batch, Move, OptimizerSettings, Turn
from medaug.models.discriminator import Discriminator
from medaug.models.losses import absolute_error, gaussian_kl, reparametrise
from medaug.models.networks.build import Network
from medaug.models.priors import GAUSSIAN, PriorOptions


class GVAE(Autoencoder):
    """A VAE with a Wasserstein critic of reconstructions and samples.

    Args:
        shape: channels, size and conditions of the data.
        latent_dim: length of the code.
        network: architecture of all three networks.
        width: channels of their first level.
        reconstruction: weight of the mean absolute error; 0 is the paper's pure form.
        beta: weight of the KL per code dimension.
        penalty: weight of the gradient penalties.
        critic_turns: the critic's turns to one of the autoencoder.
        augment: differentiable augmentations of what the critic sees.
        lr: Adam's rate of encoder and decoder.
        critic_lr: Adam's rate of the critic.
        beta1: Adam's first decay.
        beta2: Adam's second decay.
        prior: how codes are distributed and drawn.
    """

    def __init__(
        self,
        shape: Shape,
        latent_dim: int = 128,
        network: Network = "gvae",
        width: int = 64,
        reconstruction: float = 10.0,
        beta: float = 1.0,
        penalty: float = 10.0,
        critic_turns: int = 2,
        augment: Sequence[str] = (),
        lr: float = 1e-4,
        critic_lr: float = 4e-4,
        beta1: float = 0.0,
        beta2: float = 0.9,
        prior: PriorOptions = GAUSSIAN,
    ) -> None:
        super().__init__(shape, latent_dim, network, width, prior)
        self.discriminator = Discriminator(
            shape,
            network,
            width,
            adversarial_loss="wasserstein",
            gradient_penalty=penalty,
            augment=augment,
        )
        self.latent_dim, self.reconstruction, self.beta = latent_dim, reconstruction, beta
        self.critic_turns = critic_turns
        self.lr, self.critic_lr, self.betas = lr, critic_lr, (beta1, beta2)

    def game_players(self) -> dict[str, tuple[nn.Module, ...]]:
        return {"autoencoder": (self.encoder, self.decoder), "discriminator": (self.discriminator,)}

    def game(self, progress: float) -> Sequence[Turn]:
        return self.critic_turns * [Turn(self.train_discriminator)] + [Turn(self.train_autoencoder)]

    def game_optim(self, progress: float) -> dict[str, OptimizerSettings]:
        return {
            "autoencoder": OptimizerSettings(self.lr, betas=self.betas),
            "discriminator": OptimizerSettings(self.critic_lr, betas=self.betas),
        }

    def train_discriminator(self, batch: Batch) -> dict[str, Move]:
        x, cond = batch.x, batch.cond
        with torch.no_grad():  # the autoencoder rests
            z_hat = reparametrise(*self.encode(x, cond))
            fakes = {"hat": batch.seen(self.decode(z_hat, cond))}
            fakes["sample"] = batch.seen(self.decode(torch.randn_like(z_hat), cond))
        terms = {
            f"{term}_{kind}": value
            for kind, fake in fakes.items()
            for term, value in self.discriminator.discriminator_loss(x, fake, cond).items()
        }
        return {"discriminator": Move(terms)}

    def train_autoencoder(self, batch: Batch) -> dict[str, Move]:
        x, cond = batch.x, batch.cond
        mu, logvar = self.encode(x, cond)
        x_hat = batch.seen(self.decode(reparametrise(mu, logvar), cond))
        x_p = batch.seen(self.decode(torch.randn_like(mu), cond))
        terms = {
            "kl": (self.beta, gaussian_kl(mu, logvar)),
            "hat": (1.0, self.discriminator.generator_loss(x_hat, x, cond)),
            "sample": (1.0, self.discriminator.generator_loss(x_p, x, cond)),
        }
        if self.reconstruction:
            terms["reconstruction"] = (self.reconstruction, absolute_error(x_hat, x))
        return {"autoencoder": Move(terms)}
