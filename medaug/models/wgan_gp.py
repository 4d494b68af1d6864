"""WGAN-GP of Gulrajani, Ahmed, Arjovsky, Dumoulin and Courville 2017, Algorithm 1.

The critic plays several turns to the generator's one, each on fresh images; its gradient is held
to norm 1 on lines between real and fake.  Networks whose critic has batch statistics are refused,
since the penalty is per sample.

Healthy: ``discriminator/real`` + ``fake`` (the negative Wasserstein estimate) is negative, grows
quickly in size, then shrinks slowly; ``penalty`` stays below about 0.1.  A penalty that keeps
growing means the critic escapes its constraint: lower the rate.
"""

from collections.abc import Sequence

from medaug.core.batch import Shape
from medaug.models.discriminator import Discriminator
from medaug.models.gan import GAN
from medaug.models.networks.build import Network


class WGANGP(GAN):
    """A generator against a critic with a gradient penalty.

    Args:
        shape: channels, size and conditions of the data.
        latent_dim: length of the code.
        network: architecture of both networks.
        width: channels of their first level.
        augment: differentiable augmentations of what the critic sees.
        critic_turns: the critic's turns to one of the generator.
        penalty: weight of the gradient penalty.
        drift: weight of the mean squared score of real images.
        lr: Adam's rate of the generator.
        critic_lr: Adam's rate of the critic.
        beta1: Adam's first decay; the second is 0.9.
    """

    def __init__(
        self,
        shape: Shape,
        latent_dim: int = 128,
        network: Network = "plain",
        width: int = 64,
        augment: Sequence[str] = (),
        critic_turns: int = 5,
        penalty: float = 10.0,
        drift: float = 0.0,
        lr: float = 1e-4,
        critic_lr: float = 1e-4,
        beta1: float = 0.5,
    ) -> None:
        super().__init__(
            shape,
            latent_dim,
            network,
            width,
            discriminator_turns=critic_turns,
            lr=lr,
            discriminator_lr=critic_lr,
            beta1=beta1,
            beta2=0.9,
        )
        self.discriminator = Discriminator(
            shape,
            network,
            width,
            adversarial_loss="wasserstein",
            augment=augment,
            gradient_penalty=penalty,
            drift=drift,
        )
