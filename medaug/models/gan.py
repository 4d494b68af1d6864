"""Generative adversarial network of Goodfellow et al. 2014; on ``dcgan`` networks that of DCGAN.

Two players in turn, each on fresh images.  The preset ``modern`` is the recipe of R3GAN (Huang et
al. 2024): a relativistic loss with zero-centred penalties on real and fake images.

Healthy: ``real`` and ``fake`` hover between 0.3 and 0.7, or ``margin`` between 0.2 and 0.7, and
``adversarial`` around 1.  All of the judge's terms near 0: it has won; samples that all look the
same: the generator has collapsed; raise r1 and r2, or add augmentation.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medaug.core.batch import Shape
from medaug.models.base import Batch, Model, Move, OptimizerSettings, Turn
from medaug.models.discriminator import Discriminator
from medaug.models.networks.build import Network, make_decoder


class GAN(Model):
    """See the module's docstring.

    Args:
        shape: what the data dictate.
        latent_dim: dimensions of the code.
        network: family of both networks.
        width: of both.
        duel: the adversarial loss; see `medaug.models.losses`.
        augment: differentiable augmentations of what the judge sees; see `medaug.models.augment`.
        r1: gamma of the zero-centred penalty on real images, ``r2`` on fakes.
        r2: see ``r1``.
        lecam: weight of LeCam's pull on the scores.
        judge_turns: the judge's turns to one of the generator.
        lr: the generator's rate; ``judge_lr`` the judge's (TTUR, Heusel et al. 2017).
        judge_lr: see ``lr``.
        beta1: Adam's first decay, ``beta2`` its second.
        beta2: see ``beta1``.
    """

    def __init__(
        self,
        shape: Shape,
        latent_dim: int = 100,
        network: Network = "dcgan",
        width: int = 64,
        duel: str = "logistic",
        augment: Sequence[str] = (),
        r1: float = 0.0,
        r2: float = 0.0,
        lecam: float = 0.0,
        judge_turns: int = 1,
        lr: float = 2e-4,
        judge_lr: float = 2e-4,
        beta1: float = 0.5,
        beta2: float = 0.999,
    ) -> None:
        super().__init__()
        self.decoder = make_decoder(network, shape, latent_dim, width)
        self.discriminator = Discriminator(
            shape, network, width, duel=duel, augment=augment, r1=r1, r2=r2, lecam=lecam
        )
        self.noise_shape, self.judge_turns = (latent_dim,), judge_turns
        self.lr, self.judge_lr, self.betas = lr, judge_lr, (beta1, beta2)

    def players(self) -> dict[str, tuple[nn.Module, ...]]:
        return {"discriminator": (self.discriminator,), "generator": (self.decoder,)}

    def turns(self, progress: float) -> Sequence[Turn]:
        return self.judge_turns * [Turn(self.judge)] + [Turn(self.generate)]

    def optim(self, progress: float) -> dict[str, OptimizerSettings]:
        return {
            "discriminator": OptimizerSettings(self.judge_lr, betas=self.betas),
            "generator": OptimizerSettings(self.lr, betas=self.betas),
        }

    def judge(self, batch: Batch) -> dict[str, Move]:
        with torch.no_grad():  # the generator rests
            fake = self.fakes(batch)
        return {"discriminator": Move(self.discriminator.judge(batch.x, fake, batch.cond))}

    def generate(self, batch: Batch) -> dict[str, Move]:
        escape = self.discriminator.escape(self.fakes(batch), batch.x, batch.cond)
        return {"generator": Move({"adversarial": (1.0, escape)})}

    def fakes(self, batch: Batch) -> Tensor:
        noise = torch.randn(len(batch.x), *self.noise_shape, device=batch.x.device)
        return batch.seen(self.decode(noise, batch.cond))

    def prior(self, noise: Tensor, cond: Tensor | None) -> Tensor:
        return noise

    def decode(self, z: Tensor, cond: Tensor | None) -> Tensor:
        return self.decoder(z, cond).float().tanh()
