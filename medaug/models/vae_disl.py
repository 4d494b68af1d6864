"""VAE_Dis_l of Larsen et al. 2016: an autoencoder under the features of a discriminator at rest.

1. A GAN trains.
2. Its discriminator rests as at test time; encoder and decoder minimise the KL and the
   squared distance between x and its reconstruction in layer l.

No script of theirs is published.  Features that ignore a pattern leave it in the reconstructions;
``pixel_weight`` adds an absolute pixel error against that.

Healthy: phase 1 as the GAN's; in phase 2 ``distance`` falls at once, ``kl`` rises and settles.
``distance`` that hardly falls: the discriminator had won, and its features are of no use.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medaug.core.batch import Shape
from medaug.models.autoencoder import Autoencoder
from medaug.models.base import Batch, Move, OptimizerSettings, Turn
from medaug.models.discriminator import Discriminator
from medaug.models.losses import absolute_error, gaussian_kl, half_squared_error, reparametrise
from medaug.models.networks.build import Network
from medaug.models.priors import GAUSSIAN, PriorOptions


class VAEDisL(Autoencoder):
    """A GAN, then a VAE under the features of its discriminator.

    Args:
        shape: channels, size and conditions of the data.
        latent_dim: length of the code.
        network: architecture of all three networks.
        width: channels of their first level.
        gan_share: share of the images that the GAN has.
        pixel_weight: weight of the absolute pixel error beside the feature distance.
        kl_weight: weight of the KL beside the summed feature distance.
        adversarial_loss: logistic, saturating, hinge, wasserstein or relativistic.
        r1: gamma of the zero-centred penalty on real images.
        lr: Adam's rate of all players.
        prior: how codes are distributed and drawn.
    """

    def __init__(
        self,
        shape: Shape,
        latent_dim: int = 128,
        network: Network = "larsen",
        width: int = 64,
        gan_share: float = 0.5,
        pixel_weight: float = 0.0,
        kl_weight: float = 1.0,
        adversarial_loss: str = "logistic",
        r1: float = 0.0,
        lr: float = 2e-4,
        prior: PriorOptions = GAUSSIAN,
    ) -> None:
        super().__init__(shape, latent_dim, network, width, prior)
        self.discriminator = Discriminator(
            shape, network, width, adversarial_loss=adversarial_loss, r1=r1
        )
        self.latent_dim, self.gan_share, self.lr = latent_dim, gan_share, lr
        self.pixel_weight, self.kl_weight = pixel_weight, kl_weight

    def game_players(self) -> dict[str, tuple[nn.Module, ...]]:
        return {
            "encoder": (self.encoder,),
            "decoder": (self.decoder,),
            "discriminator": (self.discriminator,),
        }

    def game(self, progress: float) -> Sequence[Turn]:
        if progress < self.gan_share:
            return [Turn(self.train_discriminator), Turn(self.train_generator)]
        return [Turn(self.train_autoencoder)]

    def game_optim(self, progress: float) -> dict[str, OptimizerSettings]:
        return dict.fromkeys(self.game_players(), OptimizerSettings(self.lr, betas=(0.5, 0.999)))

    def train_discriminator(self, batch: Batch) -> dict[str, Move]:
        with torch.no_grad():  # the decoder rests
            fake = self.fakes(batch)
        return {
            "discriminator": Move(self.discriminator.discriminator_loss(batch.x, fake, batch.cond))
        }

    def train_generator(self, batch: Batch) -> dict[str, Move]:
        adversarial = self.discriminator.generator_loss(self.fakes(batch), batch.x, batch.cond)
        return {"decoder": Move({"adversarial": (1.0, adversarial)})}

    def train_autoencoder(self, batch: Batch) -> dict[str, Move]:
        self.discriminator.eval()
        x, cond = batch.x, batch.cond
        mu, logvar = self.encode(x, cond)
        x_hat = batch.seen(self.decode(reparametrise(mu, logvar), cond))
        with torch.no_grad():
            target = self.features(x, cond)
        distance = half_squared_error(self.features(x_hat, cond), target)
        share = self.latent_dim / target[0].numel()
        terms = {
            "distance": (1.0, distance),
            "kl": (self.kl_weight * share, gaussian_kl(mu, logvar)),
        }
        if self.pixel_weight:
            terms["pixels"] = (self.pixel_weight, absolute_error(x_hat, x))
        move = Move(terms)
        return {"encoder": move, "decoder": move}

    def features(self, x: Tensor, cond: Tensor | None) -> Tensor:
        """Layer l of the discriminator."""
        return self.discriminator.network(x, cond)[1][-1]

    def fakes(self, batch: Batch) -> Tensor:
        noise = torch.randn(len(batch.x), self.latent_dim, device=batch.x.device)
        return batch.seen(self.decode(noise, batch.cond))
