"""Wasserstein GAN of Arjovsky, Chintala and Bottou 2017: a critic with clipped weights.

Kept for comparison: the clipped critic is weak in long runs, where WGAN-GP is fine.  RMSProp is
ours, with decay 0.9.

Healthy: ``discriminator/real`` + ``fake`` (the negative Wasserstein estimate, in units the clipping
sets) is negative and shrinks slowly.  Near 0 from the start: ``clip`` is too small for the depth.
"""

from collections.abc import Sequence

from medaug.core.batch import Shape
from medaug.models.base import OptimizerSettings
from medaug.models.gan import GAN
from medaug.models.networks.build import Network


class WGAN(GAN):
    """A generator against a critic whose weights are clipped.

    Args:
        shape: channels, size and conditions of the data.
        latent_dim: length of the code.
        network: architecture of both networks.
        width: channels of their first level.
        augment: differentiable augmentations of what the critic sees.
        critic_turns: the critic's turns to one of the generator.
        clip: bound on the critic's weights.
        lr: RMSProp rate of both.
    """

    def __init__(
        self,
        shape: Shape,
        latent_dim: int = 128,
        network: Network = "dcgan",
        width: int = 64,
        augment: Sequence[str] = (),
        critic_turns: int = 5,
        clip: float = 0.01,
        lr: float = 5e-5,
    ) -> None:
        super().__init__(
            shape,
            latent_dim,
            network,
            width,
            "wasserstein",
            augment,
            discriminator_turns=critic_turns,
        )
        self.clip, self.lr = clip, lr

    def optim(self, progress: float) -> dict[str, OptimizerSettings]:
        return {
            "discriminator": OptimizerSettings(self.lr, "rmsprop", clip=self.clip),
            "generator": OptimizerSettings(self.lr, "rmsprop"),
        }
